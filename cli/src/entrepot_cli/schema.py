"""Reads `key=value` texts by a provider's JSON Schema: 8080 is a number where it says so."""

import json
from collections.abc import Mapping
from typing import Any

from entrepot_cli.exits import Exit, Failure

_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def typed(said: Mapping[str, str], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Values in the types of the schema; keys it doesn't know stay text and are refused there."""
    properties = _resolved(schema, schema).get("properties", {})
    return {
        key: _value(key, text, _types(properties.get(key, {}), schema))
        for key, text in said.items()
    }


def _value(key: str, text: str, types: set[str]) -> Any:
    if not types or "string" in types:
        return text
    try:
        if "boolean" in types:
            return _TRUTH[text.lower()]
        if "integer" in types:
            return int(text)
        return json.loads(text)
    except (KeyError, ValueError):
        expected = " or ".join(sorted(types - {"null"}))
        raise Failure(
            Exit.USAGE, "usage", f"{key}: expected {expected}", field=f"--set {key}"
        ) from None


def _types(part: Mapping[str, Any], schema: Mapping[str, Any]) -> set[str]:
    part = _resolved(part, schema)
    if "enum" in part:
        return {"string"} if all(isinstance(one, str) for one in part["enum"]) else set()
    found: set[str] = set()
    for branch in (*part.get("anyOf", ()), *part.get("oneOf", ())):
        found |= _types(branch, schema)
    kind = part.get("type", ())
    return found | ({kind} if isinstance(kind, str) else set(kind))


def _resolved(part: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    ref = part.get("$ref")
    if ref is None:
        return part
    found: Any = schema
    for step in str(ref).removeprefix("#/").split("/"):
        found = found.get(step, {})
    return _resolved(found, schema)
