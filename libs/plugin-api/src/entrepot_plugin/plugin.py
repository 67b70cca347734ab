"""The `PLUGIN` value of a store distribution. Importing it must not import the SDK."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from entrepot_plugin.errors import BadConfig
from entrepot_plugin.ports import ObjectStore, VolumeStore
from entrepot_plugin.secret import Secret
from entrepot_plugin.traits import StoreTraits

API_VERSION = 1
C = TypeVar("C", bound=Struct)


class StorePlugin(Struct, frozen=True, kw_only=True):
    """One provider. `config` is a frozen Struct whose secret fields have type Secret.

    `open_objects` and `open_volumes` take a config and give an async context manager; a provider
    that does not serve a role leaves it None.
    """

    name: str
    version: str
    config: type[Struct]
    traits: StoreTraits
    open_objects: Callable[[Any], AbstractAsyncContextManager[ObjectStore]] | None = None
    open_volumes: Callable[[Any], AbstractAsyncContextManager[VolumeStore]] | None = None
    api: int = API_VERSION

    def parse(self, config: dict[str, Any], secrets: dict[str, Any]) -> Any:
        """The typed config from its public and secret halves. Raises BadConfig naming the field."""
        try:
            return msgspec.convert({**config, **secrets}, self.config, dec_hook=_decode_secret)
        except msgspec.ValidationError as err:
            raise BadConfig(f"{self.name}: {err}") from err

    def schema(self) -> dict[str, Any]:
        """JSON Schema of the config: secret fields carry `"x-secret": true`."""
        schema = msgspec.json.schema(self.config, schema_hook=_secret_schema)
        return _inline(schema)


def secret_fields(schema: dict[str, Any]) -> frozenset[str]:
    """Names of the config fields that must be sealed, from a provider's schema."""
    properties: dict[str, Any] = schema.get("properties", {})
    return frozenset(name for name, rule in properties.items() if _is_secret(rule))


def _is_secret(rule: dict[str, Any]) -> bool:
    return bool(rule.get("x-secret")) or any(_is_secret(part) for part in rule.get("anyOf", ()))


def _decode_secret(kind: type, value: Any) -> Any:
    if kind is Secret and isinstance(value, str):
        return Secret(value)
    raise msgspec.ValidationError(f"expected text, got {type(value).__name__}")


def _secret_schema(kind: type) -> dict[str, Any]:
    if kind is Secret:
        return {"type": "string", "x-secret": True, "writeOnly": True}
    raise NotImplementedError(kind)


def _inline(schema: dict[str, Any]) -> dict[str, Any]:
    """The top-level definition in place of a `$ref` to it; nested `$defs` stay beside it."""
    reference = schema.get("$ref", "")
    if not reference.startswith("#/$defs/"):
        return schema
    definitions = dict(schema["$defs"])
    top = dict(definitions.pop(reference.removeprefix("#/$defs/")))
    if definitions:
        top["$defs"] = definitions
    return top
