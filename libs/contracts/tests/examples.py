"""A filled example of any wire struct, built from its own type: deterministic, nothing random."""

import types
from datetime import UTC, datetime
from enum import Enum
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
_PLAIN: dict[Any, Any] = {
    int: 7,
    float: 1.5,
    bool: True,
    str: "text",
    bytes: b"\x00\x01\x02",
    datetime: datetime(2026, 11, 20, 12, 0, tzinfo=UTC),
    Any: "any",
}


def example(kind: Any) -> Any:
    """An instance of `kind`; of a union the first member, so every optional field is filled."""
    if kind in _PLAIN:
        return _PLAIN[kind]
    if isinstance(kind, type) and issubclass(kind, Struct):
        hints = get_type_hints(kind, include_extras=True)
        return kind(**{name: example(hints[name]) for name in kind.__struct_fields__})
    if isinstance(kind, type) and issubclass(kind, Enum):
        return next(iter(kind))
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _annotated(args)
    if origin in (Union, types.UnionType):
        return example(next(arg for arg in args if arg is not type(None)))
    if origin is tuple:
        return (example(args[0]),)
    if origin is dict:
        return {example(args[0]): example(args[1])}
    raise TypeError(f"no example for {kind!r}")


def _annotated(args: tuple[Any, ...]) -> Any:
    meta = next((arg for arg in args[1:] if isinstance(arg, Meta)), None)
    if args[0] is str and meta is not None and meta.pattern:
        return ID if "{8}" in meta.pattern else "abcdef"
    value = example(args[0])
    if meta is not None and isinstance(value, int) and meta.ge is not None:
        value = max(value, int(meta.ge))
    return value


def roundtrip(message: Struct) -> Struct:
    return msgspec.json.decode(msgspec.json.encode(message), type=type(message))
