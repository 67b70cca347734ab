"""Exit codes, and the failures that end a command with one of them."""

from enum import IntEnum
from typing import Any


class Exit(IntEnum):
    OK = 0
    OTHER = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    RETRYABLE = 5
    DENIED = 6
    WAIT_TIMED_OUT = 8
    INTERRUPTED = 130


_BY_CODE = {
    "invalid": Exit.USAGE,
    "method_not_allowed": Exit.OTHER,
    "unauthenticated": Exit.DENIED,
    "forbidden": Exit.DENIED,
    "not_found": Exit.NOT_FOUND,
    "object_missing": Exit.NOT_FOUND,
    "conflict": Exit.CONFLICT,
    "in_use": Exit.CONFLICT,
    "provider_mixing": Exit.CONFLICT,
    "idempotency_mismatch": Exit.CONFLICT,
    "no_store": Exit.CONFLICT,
}


class Failure(Exception):
    """What to print on stderr, and how to exit."""

    def __init__(
        self,
        exit_code: Exit,
        code: str,
        message: str,
        *,
        field: str | None = None,
        hint: str = "",
        facts: dict[str, str] | None = None,
        correlation_id: str = "",
    ) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.code = code
        self.message = message
        self.field = field
        self.hint = hint
        self.facts = facts or {}
        self.correlation_id = correlation_id

    @classmethod
    def of_problem(cls, problem: dict[str, Any]) -> "Failure":
        """From a problem document (`detail`), or from the `error` of a job (`message`)."""
        code = str(problem.get("code", "internal"))
        fallback = Exit.RETRYABLE if problem.get("retryable") else Exit.OTHER
        return cls(
            fallback if problem.get("retryable") else _BY_CODE.get(code, fallback),
            code,
            str(problem.get("detail") or problem.get("message") or code),
            field=problem.get("field"),
            hint=problem.get("hint") or "",
            facts=problem.get("facts") or {},
            correlation_id=problem.get("correlation_id") or "",
        )

    def lines(self) -> list[str]:
        said = [f"error: {self.code}: {self.message}"]
        said += [f"  field: {self.field}"] if self.field else []
        said += [f"  {name}: {value}" for name, value in self.facts.items()]
        said += [f"  hint: {self.hint}"] if self.hint else []
        said += [f"  correlation id: {self.correlation_id}"] if self.correlation_id else []
        return said
