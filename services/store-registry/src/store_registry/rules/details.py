"""A store's details against its provider's JSON Schema: what is wrong, what is secret, and which
place the store is. Messages never repeat a value: it may be a credential.
"""

import hashlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from jsonschema.exceptions import (  # type: ignore[import-untyped]
    SchemaError,
    ValidationError,
)
from msgspec import Struct
from referencing import Registry as References

from entrepot_contracts.errors import Code, Refused
from entrepot_plugin.plugin import secret_fields
from store_registry.rules.naming import has_userinfo

# Config fields that say where a store is, whatever its provider calls them.
_PLACE = (
    "host",
    "endpoint",
    "url",
    "server",
    "export",
    "container",
    "bucket",
    "pool",
    "path",
    "prefix",
)
_PORTS = {"http": ":80", "https": ":443"}


class Details(Struct, frozen=True, kw_only=True):
    public: dict[str, Any]
    secret: dict[str, Any]
    place: str


def check_schema(schema: dict[str, Any]) -> str | None:
    """Why a provider's schema can't be used; None when it can."""
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as err:
        return str(err.message)
    return None


def parse_details(provider: str, schema: dict[str, Any], opened: bytes) -> Details:
    """The details split in a public and a secret half. Raises Refused naming the field."""
    given = _as_object(opened)
    _refuse_unknown(given, schema)
    errors = sorted(_validator(schema).iter_errors(given), key=lambda err: list(map(str, err.path)))
    if errors:
        raise _refusal(errors[0])
    secrets = secret_fields(schema)
    public = {name: value for name, value in given.items() if name not in secrets}
    for name, value in public.items():
        if isinstance(value, str) and has_userinfo(value):
            raise Refused(
                Code.INVALID,
                f"{name} carries a user name or password",
                field=f"details.{name}",
                hint="give credentials in the provider's secret fields",
            )
    secret = {name: value for name, value in given.items() if name in secrets}
    return Details(public=public, secret=secret, place=place_of(provider, schema, public))


def place_of(provider: str, schema: Mapping[str, Any], public: Mapping[str, Any]) -> str:
    """A digest that two stores have in common exactly when they would share their bytes."""
    rules = schema.get("properties", {})
    said = {name: public.get(name, rules.get(name, {}).get("default")) for name in _PLACE}
    named = {name: _normal(value) for name, value in said.items() if value not in (None, "")}
    text = msgspec.json.encode([provider, named or dict(public)], order="deterministic")
    return hashlib.sha256(text).hexdigest()


def _as_object(opened: bytes) -> dict[str, Any]:
    try:
        given = msgspec.json.decode(opened)
    except (msgspec.DecodeError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise Refused(
            Code.INVALID,
            "the details are no JSON object",
            field="details",
            hint="give the provider's config as one JSON object",
        )
    return given


def _refuse_unknown(given: dict[str, Any], schema: dict[str, Any]) -> None:
    known = sorted(schema.get("properties", {}))
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise Refused(
            Code.INVALID,
            "the details have a field the provider does not know",
            field=f"details.{unknown[0][:100]}",
            hint=f"known fields: {', '.join(known)}",
        )


def _validator(schema: dict[str, Any]) -> Draft202012Validator:
    # An empty reference registry: a schema from a mover must not make us fetch anything.
    return Draft202012Validator(schema, registry=References())


def _refusal(error: ValidationError) -> Refused:
    path = [str(part) for part in error.absolute_path]
    if error.validator == "required":
        missing = next(name for name in error.validator_value if name not in error.instance)
        path.append(missing)
        message, hint = f"{missing} is missing", f"give {missing}"
    else:
        name = path[-1] if path else "the object"
        message = f"{name} is not what the provider asks for"
        hint = _expectation(error)
    return Refused(Code.INVALID, message, field=".".join(["details", *path]), hint=hint)


def _expectation(error: ValidationError) -> str:
    """The rule that was broken, in words; from the schema only, never from the value."""
    rule = error.validator_value
    if error.validator in {"anyOf", "oneOf"}:
        kinds = [str(part.get("type", part.get("enum", "other"))) for part in rule]
        return f"must be one of: {', '.join(kinds)}"
    words = {
        "type": f"must be of type {rule}",
        "enum": f"must be one of: {rule}",
        "const": f"must be {rule}",
        "minimum": f"must be at least {rule}",
        "maximum": f"must be at most {rule}",
        "exclusiveMinimum": f"must be more than {rule}",
        "exclusiveMaximum": f"must be less than {rule}",
        "minLength": f"must have at least {rule} characters",
        "maxLength": f"must have at most {rule} characters",
        "pattern": f"must match {rule}",
        "additionalProperties": "must have no other fields than the schema names",
    }
    return words.get(str(error.validator), f"breaks the rule {error.validator}: {rule}")


def _normal(value: Any) -> Any:
    """One spelling per place: case and default port of URLs, doubled and trailing slashes."""
    if not isinstance(value, str):
        return value
    if "://" in value:
        parts = urlsplit(value)
        host = parts.netloc.lower().removesuffix(_PORTS.get(parts.scheme.lower(), "\0"))
        return f"{parts.scheme.lower()}://{host}{_squeezed(parts.path)}"
    return _squeezed(value)


def _squeezed(path: str) -> str:
    squeezed = "/".join(part for part in path.split("/") if part not in ("", "."))
    return f"/{squeezed}" if path.startswith("/") and squeezed else squeezed
