"""From exceptions to the problem that FinishWork carries."""

from entrepot_contracts.errors import Code, Problem, Refused
from entrepot_plugin.errors import StoreError


class Fenced(Exception):
    """The lease is lost: somebody else may hold the work, nothing more may be touched."""


def problem_from(error: BaseException) -> Problem:
    """Stable code, and whether another attempt can help; unknown errors tell nothing."""
    if isinstance(error, Refused):
        return error.problem
    if isinstance(error, StoreError):
        return Problem(
            code=error.code,
            message=str(error),
            hint=error.hint,
            retryable=error.retryable,
            facts={"key": error.key} if error.key else {},
        )
    return Problem(
        code=Code.INTERNAL,
        message="the mover failed; its log has the reason under the transfer's id",
        hint="try again; if it stays, give the transfer's id to the operator",
        retryable=True,
    )


def stalled(seconds: float, phase: str) -> Problem:
    return Problem(
        code=Code.STORE_ERROR,
        message=f"no byte moved for {seconds:.0f} s while {phase}",
        hint="see whether the store answers (its probe says)",
        retryable=True,
        facts={"phase": phase},
    )


CANCELLED = Problem(
    code=Code.CANCELLED,
    message="stopped because somebody asked for it",
    hint="ask again if it was stopped by mistake",
)
