"""Errors on the wire: one struct with a stable code; one table maps codes to HTTP."""

from enum import StrEnum
from http import HTTPStatus

import msgspec
from msgspec import Struct


class Code(StrEnum):
    """Stable error codes; never renamed, only added."""

    INVALID = "invalid"  # a field is missing, malformed or out of range
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"  # said by the gateway only
    CONFLICT = "conflict"
    IN_USE = "in_use"
    IDEMPOTENCY_MISMATCH = "idempotency_mismatch"
    PROVIDER_MIXING = "provider_mixing"
    UNKNOWN_PROVIDER = "unknown_provider"
    NO_STORE = "no_store"  # no image store serves the wanted scope
    NO_MOVER = "no_mover"  # no mover can reach the ends
    QUOTA_EXCEEDED = "quota_exceeded"
    STORE_FULL = "store_full"
    PROBE_FAILED = "probe_failed"
    ADDRESS_REFUSED = "address_refused"  # the URL leads to an address users may not reach
    SOURCE_UNREACHABLE = "source_unreachable"
    SOURCE_STATUS = "source_status"  # the URL answered, but not with the bytes
    SOURCE_LENGTH = "source_length"  # more or fewer bytes than it promised
    SOURCE_STALLED = "source_stalled"
    SOURCE_TOO_LARGE = "source_too_large"
    SOURCE_CHANGED = "source_changed"
    CHECKSUM_MISMATCH = "checksum_mismatch"
    DIGEST_MISMATCH = "digest_mismatch"  # stored bytes are not the bytes that were read
    UNSAFE_IMAGE = "unsafe_image"
    FORMAT_MISMATCH = "format_mismatch"
    OBJECT_MISSING = "object_missing"
    STORE_ERROR = "store_error"
    STORE_DENIED = "store_denied"
    FENCED = "fenced"
    CANCELLED = "cancelled"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    RATE_LIMITED = "rate_limited"
    TOO_LARGE = "too_large"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


_STATUS: dict[Code, HTTPStatus] = {
    Code.INVALID: HTTPStatus.BAD_REQUEST,
    Code.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    Code.FORBIDDEN: HTTPStatus.FORBIDDEN,
    Code.NOT_FOUND: HTTPStatus.NOT_FOUND,
    Code.METHOD_NOT_ALLOWED: HTTPStatus.METHOD_NOT_ALLOWED,
    Code.OBJECT_MISSING: HTTPStatus.NOT_FOUND,
    Code.CONFLICT: HTTPStatus.CONFLICT,
    Code.IN_USE: HTTPStatus.CONFLICT,
    Code.PROVIDER_MIXING: HTTPStatus.CONFLICT,
    Code.FENCED: HTTPStatus.CONFLICT,
    Code.CANCELLED: HTTPStatus.CONFLICT,
    Code.RATE_LIMITED: HTTPStatus.TOO_MANY_REQUESTS,
    Code.TOO_LARGE: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    Code.STORE_FULL: HTTPStatus.INSUFFICIENT_STORAGE,
    Code.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.INTERNAL: HTTPStatus.INTERNAL_SERVER_ERROR,
}

_RETRYABLE = frozenset(
    {
        Code.SOURCE_UNREACHABLE,
        Code.SOURCE_STALLED,
        Code.STORE_ERROR,
        Code.RATE_LIMITED,
        Code.UNAVAILABLE,
        Code.INTERNAL,
        Code.NO_MOVER,
    }
)


class Problem(Struct, frozen=True, kw_only=True, tag="problem.v1"):
    """A refusal or failure. `field` names what was wrong, `hint` what to do about it."""

    code: Code
    message: str
    field: str | None = None
    hint: str = ""
    retryable: bool = False
    facts: dict[str, str] = {}


class Refused(Exception):
    """Raise with fields; the text is derived. Travels as a `Problem`."""

    is_answer = True  # the bus logs a refusal as an answer, not as a failure of the service

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        field: str | None = None,
        hint: str = "",
        facts: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.problem = Problem(
            code=code,
            message=message,
            field=field,
            hint=hint,
            retryable=code in _RETRYABLE,
            facts=facts or {},
        )

    @classmethod
    def of(cls, problem: Problem) -> "Refused":
        refused = cls(problem.code, problem.message)
        refused.problem = problem
        return refused

    def __str__(self) -> str:
        problem = self.problem
        parts = [f"{problem.code}: {problem.message}"]
        if problem.field:
            parts.append(f"field {problem.field}")
        if problem.hint:
            parts.append(problem.hint)
        return "; ".join(parts)


def http_status(code: Code) -> HTTPStatus:
    """Status for a code; codes not in the table are refusals of a well-formed request (422)."""
    return _STATUS.get(code, HTTPStatus.UNPROCESSABLE_ENTITY)


def problem_of(error: BaseException) -> Problem:
    """A wire problem for any exception; unknown ones say nothing about our inside."""
    if isinstance(error, Refused):
        return error.problem
    if isinstance(error, msgspec.DecodeError):  # a command of the wrong shape; names its field
        return Problem(
            code=Code.INVALID,
            message=f"the command cannot be read: {error}",
            field="body",
            hint="docs/wire.md names the shape of every command",
        )
    return Problem(
        code=Code.INTERNAL,
        message="the service failed to answer; its log has the reason under the correlation id",
        hint="try again; if it stays, give the correlation id to the operator",
        retryable=True,
    )
