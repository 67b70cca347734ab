"""The life of a transfer: states, transitions, and `step`, which is pure.

A stimulus that carries an epoch speaks for the holder of that epoch. If the epoch is not the
transfer's, or its work was taken away, `step` raises Fenced: nothing a zombie says changes
anything. A repeat of what was settled already is in IGNORED and changes nothing either.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import replace

from entrepot_contracts.errors import Code, Problem
from entrepot_contracts.motion import TransferFailed, TransferState, TransferSucceeded
from motion_engine.rows import HELD, TERMINAL, Transfer
from motion_engine.stimuli import (
    Announce,
    CancelAsked,
    Claimed,
    Evicted,
    Faltered,
    LeaseExpired,
    Outcome,
    Park,
    Planned,
    Released,
    RetryDue,
    Ring,
    Stimulus,
    Succeeded,
    Unplannable,
    Verifying,
)

QUEUED, RUNNING, VERIFYING, RETRY_WAIT, DONE, FAILED, QUARANTINED, CANCELLED = TransferState


# --- errors -----------------------------------------------------------------------------------


class Fenced(Exception):
    """The speaker does not hold this transfer (any more)."""

    def __init__(self, transfer: Transfer, epoch: int) -> None:
        super().__init__(
            f"transfer {transfer.transfer_id} is {transfer.state} under epoch {transfer.epoch}, "
            f"not held under epoch {epoch}"
        )
        self.transfer_id = transfer.transfer_id
        self.state = transfer.state
        self.epoch = transfer.epoch
        self.claimed_epoch = epoch


class IllegalTransition(Exception):
    """A pair of state and stimulus that no table knows: our own mistake."""

    def __init__(
        self, transfer: Transfer, stimulus: Stimulus, history: tuple[str, ...] = ()
    ) -> None:
        name = type(stimulus).__name__
        super().__init__(f"{name} in state {transfer.state}; history: {'; '.join(history) or '-'}")
        self.transfer = transfer
        self.stimulus = stimulus
        self.history = history


# --- step -------------------------------------------------------------------------------------


def step(transfer: Transfer, stimulus: Stimulus) -> Outcome:
    """The transfer after the stimulus, and what must be done about it. Raises Fenced."""
    pair = (transfer.state, type(stimulus))
    epoch = getattr(stimulus, "epoch", None)
    if epoch is not None and (epoch != transfer.epoch or pair in FENCED):
        raise Fenced(transfer, epoch)
    if pair in IGNORED:
        return transfer, ()
    rule = TRANSITIONS.get(pair)
    if rule is None:
        raise IllegalTransition(transfer, stimulus)
    after, instructions = rule(transfer, stimulus)
    if after is transfer:
        return transfer, ()
    return replace(after, version=transfer.version + 1), instructions


def gave_up(transfer: Transfer, last: Problem | None) -> Problem:
    """Why a transfer is quarantined: the last problem it met, or that its movers fell silent."""
    facts = {"attempts": str(transfer.attempts)}
    if last is None:
        return Problem(
            code=Code.ATTEMPTS_EXHAUSTED,
            message=f"its mover fell silent in {transfer.attempts} of "
            f"{transfer.attempts_max} attempts",
            hint="look at the movers' logs under the transfer id before asking again",
            facts=facts,
        )
    return replace(
        last,
        message=f"{last.message} (gave up after {transfer.attempts} attempts)",
        retryable=False,
        facts={**last.facts, **facts},
    )


# --- transitions ------------------------------------------------------------------------------


def _plan(transfer: Transfer, stimulus: Planned) -> Outcome:
    after = replace(
        transfer,
        strategy=stimulus.strategy,
        bids=stimulus.bids,
        legs=stimulus.legs,
        needs=stimulus.needs,
        zones=stimulus.zones,
        problem=None,
    )
    return after, (Ring(),)


def _unplannable(transfer: Transfer, stimulus: Unplannable) -> Outcome:
    if not transfer.strategy and transfer.problem == stimulus.problem:
        return transfer, ()
    return replace(transfer, strategy="", bids=stimulus.bids, problem=stimulus.problem), ()


def _claim(transfer: Transfer, stimulus: Claimed) -> Outcome:
    """Counted before work starts: what kills its mover is counted too."""
    assert transfer.attempts < transfer.attempts_max, "exhausted work is never claimed"
    assert not transfer.cancel_requested, "cancelled work is never claimed"
    assert transfer.strategy, "unplanned work is never claimed"
    after = replace(
        transfer,
        state=RUNNING,
        epoch=transfer.epoch + 1,
        attempts=transfer.attempts + 1,
        mover_id=stimulus.mover_id,
        boot_id=stimulus.boot_id,
        claimed_at=stimulus.now,
        lease_until=stimulus.now + timedelta(seconds=stimulus.lease_s),
        not_before=None,
    )
    return after, ()


def _verify(transfer: Transfer, _: Verifying) -> Outcome:
    return replace(transfer, state=VERIFYING), ()


def _succeed(transfer: Transfer, stimulus: Succeeded) -> Outcome:
    after = replace(
        _let_go(transfer),
        state=DONE,
        mover_id=transfer.mover_id,
        result=stimulus.result,
        problem=None,
        finished_at=stimulus.now,
    )
    return after, (Announce(event=outcome(after)), Ring())


def _falter(transfer: Transfer, stimulus: Faltered) -> Outcome:
    problem = stimulus.problem
    if transfer.cancel_requested or problem.code == Code.CANCELLED:
        return _end(transfer, CANCELLED, problem, stimulus.now)
    if not problem.retryable:
        return _end(transfer, FAILED, problem, stimulus.now)
    if transfer.attempts >= transfer.attempts_max:
        return _end(transfer, QUARANTINED, gave_up(transfer, problem), stimulus.now)
    after = replace(
        _let_go(transfer),
        state=RETRY_WAIT,
        problem=problem,
        not_before=stimulus.now + timedelta(seconds=stimulus.delay_s),
    )
    return after, (Ring(),)


def _release(transfer: Transfer, stimulus: Released) -> Outcome:
    if transfer.cancel_requested:
        return _end(transfer, CANCELLED, _cancelled("cancelled"), stimulus.now)
    after = replace(_let_go(transfer), state=QUEUED, attempts=transfer.attempts - 1)
    return after, (Ring(),)


def _evict(transfer: Transfer, stimulus: Evicted) -> Outcome:
    if transfer.boot_id != stimulus.boot_id:
        return transfer, ()
    if transfer.cancel_requested or transfer.attempts >= transfer.attempts_max:
        return _expire(transfer, LeaseExpired(now=stimulus.now))
    return replace(_let_go(transfer), state=QUEUED), (Ring(),)


def _expire(transfer: Transfer, stimulus: LeaseExpired) -> Outcome:
    if transfer.cancel_requested:
        return _end(transfer, CANCELLED, _cancelled("cancelled"), stimulus.now)
    if transfer.attempts < transfer.attempts_max:
        return transfer, ()  # anybody may claim it
    return _end(transfer, QUARANTINED, gave_up(transfer, None), stimulus.now)


def _retry(transfer: Transfer, _: RetryDue) -> Outcome:
    return replace(transfer, state=QUEUED, not_before=None), (Ring(),)


def _cancel(transfer: Transfer, stimulus: CancelAsked) -> Outcome:
    return _end(transfer, CANCELLED, _cancelled(stimulus.reason), stimulus.now)


def _cancel_held(transfer: Transfer, _: CancelAsked) -> Outcome:
    """The holder learns it at its next renewal and stops by itself."""
    if transfer.cancel_requested:
        return transfer, ()
    return replace(transfer, cancel_requested=True), ()


def _end(transfer: Transfer, state: TransferState, problem: Problem, now: datetime) -> Outcome:
    after = replace(
        _let_go(transfer),
        state=state,
        mover_id=transfer.mover_id,
        problem=problem,
        finished_at=now,
    )
    parked = (Park(why=problem.message),) if state == QUARANTINED else ()
    return after, (Announce(event=outcome(after)), *parked, Ring())


def outcome(transfer: Transfer) -> TransferSucceeded | TransferFailed:
    """What is said of a transfer that has ended; the same however often it is said."""
    if transfer.result is not None:
        return TransferSucceeded(
            transfer_id=transfer.transfer_id,
            job_id=transfer.job_id,
            epoch=transfer.epoch,
            result=transfer.result,
        )
    assert transfer.problem is not None, "a transfer ends with a result or a problem"
    return TransferFailed(
        transfer_id=transfer.transfer_id,
        job_id=transfer.job_id,
        state=transfer.state,
        problem=transfer.problem,
    )


def _let_go(transfer: Transfer) -> Transfer:
    return replace(transfer, mover_id=None, boot_id=None, lease_until=None, not_before=None)


def _cancelled(reason: str) -> Problem:
    return Problem(
        code=Code.CANCELLED,
        message=reason or "cancelled",
        hint="ask again if it was stopped by mistake",
    )


# --- tables -----------------------------------------------------------------------------------

Pair = tuple[TransferState, type]

TRANSITIONS: dict[Pair, Callable[[Transfer, Any], Outcome]] = {
    (QUEUED, Planned): _plan,
    (QUEUED, Unplannable): _unplannable,
    (QUEUED, Claimed): _claim,
    (QUEUED, CancelAsked): _cancel,
    (RETRY_WAIT, RetryDue): _retry,
    (RETRY_WAIT, CancelAsked): _cancel,
    (RUNNING, Verifying): _verify,
    **{
        (state, stimulus): rule
        for state in HELD
        for stimulus, rule in (
            (Claimed, _claim),
            (Succeeded, _succeed),
            (Faltered, _falter),
            (Released, _release),
            (Evicted, _evict),
            (LeaseExpired, _expire),
            (CancelAsked, _cancel_held),
        )
    },
}

# Repeats, and messages about a time that has passed: they change nothing.
IGNORED: frozenset[Pair] = frozenset(
    {
        (VERIFYING, Verifying),
        (QUEUED, Faltered),
        (QUEUED, Released),
        (QUEUED, Evicted),
        (QUEUED, LeaseExpired),
        (QUEUED, RetryDue),
        (RETRY_WAIT, Faltered),
        (RETRY_WAIT, Evicted),
        (RETRY_WAIT, LeaseExpired),
        *((state, RetryDue) for state in HELD),
        *((state, Planned) for state in (RETRY_WAIT, *HELD, *TERMINAL)),
        *((state, Unplannable) for state in (RETRY_WAIT, *HELD, *TERMINAL)),
        *((state, late) for state in TERMINAL for late in (Succeeded, Faltered, Released)),
        *((state, late) for state in TERMINAL for late in (Evicted, LeaseExpired, RetryDue)),
        *((state, CancelAsked) for state in TERMINAL),
    }
)

# Right epoch, but the work was handed back or taken away since: the speaker holds nothing.
FENCED: frozenset[Pair] = frozenset(
    {(QUEUED, kind) for kind in (Verifying, Succeeded)}
    | {(RETRY_WAIT, kind) for kind in (Verifying, Succeeded, Released)}
    | {(state, Verifying) for state in TERMINAL}
)
