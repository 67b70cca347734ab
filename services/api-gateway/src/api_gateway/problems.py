"""Refusals and failures as problem documents (RFC 9457), the same for every face and route."""

import re
from http import HTTPStatus
from typing import Any

import msgspec
from msgspec import Struct

from entrepot_chassis.ports import Retryable, Unanswered
from entrepot_contracts.errors import Code, Problem, Refused, http_status, problem_of
from entrepot_contracts.ids import Id
from entrepot_contracts.values import Name

PROBLEM_JSON = "application/problem+json"
TYPE_PREFIX = "urn:entrepot:problem:"
RETRY_AFTER_S = 1


class ProblemDocument(Struct, frozen=True, kw_only=True):
    """RFC 9457 with our fields. Clients decide by `code` and `retryable`, never by texts."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    field: str | None = None
    hint: str = ""
    retryable: bool = False
    facts: dict[str, str] = {}
    correlation_id: str = ""


def document_of(problem: Problem, *, correlation_id: str) -> ProblemDocument:
    code = str(problem.code)
    return ProblemDocument(
        type=TYPE_PREFIX + code,
        title=code.replace("_", " ").capitalize(),
        status=http_status(problem.code).value,
        code=code,
        detail=problem.message,
        field=problem.field,
        hint=problem.hint,
        retryable=problem.retryable,
        facts=problem.facts,
        correlation_id=correlation_id,
    )


def problem_for(error: BaseException) -> Problem:
    """The problem of anything an operation can raise; unknown errors say nothing of our inside."""
    if isinstance(error, Unanswered | Retryable | TimeoutError | ConnectionError):
        return Refused(
            Code.UNAVAILABLE,
            "a service behind the gateway did not answer; the request may have been carried out",
            hint="send it again with the same Idempotency-Key",
        ).problem
    return problem_of(error)


def headers_for(problem: Problem) -> dict[str, str]:
    if problem.code is Code.UNAUTHENTICATED:
        return {"WWW-Authenticate": 'Bearer realm="entrepot"'}
    in_progress = problem.code is Code.CONFLICT and problem.retryable
    if in_progress or http_status(problem.code) in (
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.TOO_MANY_REQUESTS,
    ):
        return {"Retry-After": str(RETRY_AFTER_S)}
    return {}


# --- what is wrong with a request, in words -----------------------------------------------------

_PATH = re.compile(r" - at `(?:key in )?\$\.?(?P<path>[^`]*)`\Z")
_MISSING = re.compile(r"Object missing required field `(?P<name>[^`]*)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*)`", re.DOTALL)


def _pattern_of(annotated: Any) -> str:
    return next(str(meta.pattern) for meta in annotated.__metadata__ if meta.pattern)


_IN_WORDS = {
    _pattern_of(Name): "expected 1 to 255 characters, none of them a control character",
    _pattern_of(Id): "expected a UUID in lower-case text",
}


def invalid(
    error: msgspec.ValidationError, *, kind: type[Struct], fields: tuple[str, ...]
) -> Refused:
    """Names the field and what is expected; never repeats the value."""
    text = str(error)
    path = _PATH.search(text)
    where = path["path"] if path else ""
    said = text[: path.start()] if path else text
    if missing := _MISSING.match(said):
        return _refused(_join(where, missing["name"]), "this field is required")
    if unknown := _UNKNOWN.match(said):
        name = unknown["name"][:100]
        known = f"; known here: {', '.join(fields)}" if not where and fields else ""
        return _refused(_join(where, name), f"there is no such field{known}")
    if said.startswith("Invalid enum value"):
        return _refused(where, f"expected one of {', '.join(choices(kind, where))}")
    words = next((words for pattern, words in _IN_WORDS.items() if repr(pattern) in said), None)
    return _refused(where or "body", words or said[:1].lower() + said[1:])


def choices(kind: type[Struct], where: str) -> tuple[str, ...]:
    """What the enum at this place of a request may be."""
    part = msgspec.inspect.type_info(kind)
    for step in (re.sub(r"\[[^]]*\]", "", name) for name in where.split(".")):
        part = _struct_in(part)
        part = next(field.type for field in part.fields if field.encode_name == step)
    found = next(each for each in _within(part) if isinstance(each, msgspec.inspect.EnumType))
    return tuple(str(member.value) for member in found.cls)


def _struct_in(part: msgspec.inspect.Type) -> msgspec.inspect.StructType:
    return next(each for each in _within(part) if isinstance(each, msgspec.inspect.StructType))


def _within(part: msgspec.inspect.Type) -> tuple[msgspec.inspect.Type, ...]:
    """A type, or what a union, tuple or list of it holds."""
    if isinstance(part, msgspec.inspect.UnionType):
        return tuple(each for one in part.types for each in _within(one))
    if isinstance(part, msgspec.inspect.ListType | msgspec.inspect.VarTupleType):
        return _within(part.item_type)
    return (part,)


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _refused(field: str, expected: str) -> Refused:
    shown = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", "?", field)
    return Refused(Code.INVALID, f"{shown}: {expected}", field=shown, hint="correct this field")
