"""Settings of a service: read from the environment once, everything wrong reported together."""

import types
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import Struct

from entrepot_chassis.ports import Misconfigured

S = TypeVar("S", bound=Struct)


class Secret:
    """A credential; prints as `***`, msgspec refuses to encode it. `reveal()` gives the text."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> Any:
        raise TypeError("a Secret is never pickled or copied out of the process")


class SettingsError(Misconfigured):
    """All that is missing, wrong or unknown, one line each."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        self.problems = dict(problems)
        lines = "\n".join(f"  {key}: {why}" for key, why in sorted(self.problems.items()))
        super().__init__(f"settings are wrong:\n{lines}")


def load(kind: type[S], *, prefix: str, environ: Mapping[str, str]) -> S:
    """Fields come from `<prefix><FIELD>`; a key with our prefix that is no field is an error.

    Numbers and booleans are converted, tuples and lists are comma-separated, dicts and structs
    are JSON; an empty value counts as absent.
    """
    assert prefix.endswith("_"), prefix
    problems: dict[str, str] = {}
    values: dict[str, Any] = {}
    known: set[str] = set()
    for field in msgspec.structs.fields(kind):
        key = prefix + field.name.upper()
        known.add(key)
        text = environ.get(key, "")
        if text == "":
            if field.required:
                problems[key] = "missing"
            continue
        try:
            values[field.name] = _read(text, field.type)
        except (msgspec.ValidationError, msgspec.DecodeError) as err:
            problems[key] = _without_value(err, field.type)
    for key in environ:
        if key.startswith(prefix) and key not in known:
            problems[key] = "unknown setting"
    if problems:
        raise SettingsError(problems)
    try:
        return kind(**values)
    except (ValueError, TypeError) as err:  # __post_init__ checks several fields together
        raise SettingsError({prefix + "*": str(err)}) from err


def _read(text: str, kind: Any) -> Any:
    shape = _bare(kind)
    if shape is Secret:
        return Secret(text)
    origin = get_origin(shape) or shape
    if origin in {tuple, list, set, frozenset}:
        items = [item.strip() for item in text.split(",") if item.strip()]
        return msgspec.convert(items, shape, strict=False)
    if origin is dict or (isinstance(shape, type) and issubclass(shape, Struct)):
        return msgspec.json.decode(text.encode(), type=shape)
    return msgspec.convert(text, kind, strict=False)


def _bare(kind: Any) -> Any:
    """The type without `| None` and without Annotated around it."""
    if get_origin(kind) is Annotated:
        return _bare(get_args(kind)[0])
    if get_origin(kind) in {Union, types.UnionType}:
        kinds = [one for one in get_args(kind) if one is not type(None)]
        if len(kinds) == 1:
            return _bare(kinds[0])
    return kind


def _without_value(err: Exception, kind: Any) -> str:
    """Validation errors name what it expected, never what they got; for a Secret say even less."""
    return "unreadable" if _bare(kind) is Secret else str(err)
