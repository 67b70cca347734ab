"""What a probe's report means for the store that was added."""

from entrepot_contracts.errors import Code, Problem
from entrepot_contracts.values import ProbeReport


def probe_problem(report: ProbeReport) -> Problem | None:
    """The first failing check with its remedy; None when every check passed."""
    first = report.first_failure
    if first is None:
        return None
    failing = [check.name for check in report.checks if not check.ok]
    return Problem(
        code=Code.PROBE_FAILED,
        message=f"the store failed its check {first.name}: {first.detail or 'no detail given'}",
        field="details",
        hint=first.hint or "correct the store or its details and add it again",
        facts={"check": first.name, "failing": ", ".join(failing)},
    )
