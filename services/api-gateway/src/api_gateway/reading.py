"""Turns what arrived over HTTP into an operation's request; whatever is wrong names its field."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from api_gateway.problems import invalid
from entrepot_contracts.errors import Code, Refused

BODY_BYTES_MAX = 1 << 20


def request_of(
    kind: type[Struct],
    *,
    path: Mapping[str, str],
    query: Iterable[tuple[str, str]] | None,
    body: bytes | None,
) -> Struct:
    """Exactly one of query and body is read: a GET has no body, a POST no query."""
    if body is not None:
        said: dict[str, Any] = _object(body)
        strict = True
    else:
        said = _once_each(query or ())
        strict = False  # query parameters are text: "25" is the number it looks like
    for name in path:
        if name in said:
            raise Refused(
                Code.INVALID,
                f"{name}: it is given in the path already",
                field=name,
                hint="leave it out of the body and the query",
            )
    try:
        return msgspec.convert({**said, **path}, kind, strict=strict)
    except msgspec.ValidationError as error:
        raise invalid(error, kind=kind, fields=_writable(kind, path)) from error


def _writable(kind: type[Struct], path: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(name for name in kind.__struct_fields__ if name not in path)


def _object(body: bytes) -> dict[str, Any]:
    if not body:
        return {}
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _not_an_object("it is not JSON") from error
    if not isinstance(said, dict):
        raise _not_an_object("it is not a JSON object")
    return said


def _not_an_object(why: str) -> Refused:
    return Refused(Code.INVALID, f"body: {why}", field="body", hint="send one JSON object")


def _once_each(query: Iterable[tuple[str, str]]) -> dict[str, str]:
    said: dict[str, str] = {}
    for name, value in query:
        if name in said:
            raise Refused(
                Code.INVALID, f"{name}: given more than once", field=name, hint="give it once"
            )
        said[name] = value
    return said
