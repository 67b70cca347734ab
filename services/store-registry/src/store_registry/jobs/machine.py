"""The saga machine: pure `step(saga, stimulus) -> (saga, instructions)` and its tables.

A saga is an ordered list of steps, each a set of transfers that run side by side. When one fails
the rest are stopped first, so that nothing writes any more when the cleanup begins; then what the
steps left behind is undone; then the saga ends with the first problem, whatever the cleanup said.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from entrepot_contracts.errors import Code, Problem
from entrepot_contracts.motion import Copied, Probed, Result, TransferAsk
from store_registry.rules.probes import probe_problem

HISTORY_MAX = 64


class Phase(StrEnum):
    NEW = "new"
    MOVING = "moving"
    STOPPING = "stopping"
    CLEANING = "cleaning"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Step(Struct, frozen=True, kw_only=True):
    """`undo` removes what the asks may have left, done or half done. A step of best effort may
    fail without failing the saga.
    """

    name: str
    asks: tuple[TransferAsk, ...]
    undo: tuple[TransferAsk, ...] = ()
    best_effort: bool = False
    agree: bool = False


class Outcome(Struct, frozen=True, kw_only=True):
    epoch: int
    result: Result


class Saga(Struct, frozen=True, kw_only=True):
    steps: tuple[Step, ...]
    phase: Phase = Phase.NEW
    at: int = 0
    open: tuple[str, ...] = ()  # transfers without an answer
    outcomes: dict[str, Outcome] = {}
    spoiled: tuple[str, ...] = ()  # cleanup or best-effort transfers that failed
    problem: Problem | None = None
    history: tuple[str, ...] = ()

    @property
    def step_name(self) -> str:
        """What runs now, for people."""
        match self.phase:
            case Phase.MOVING:
                return self.steps[self.at].name
            case Phase.STOPPING | Phase.CLEANING:
                return self.phase.value
            case _:
                return ""

    @property
    def open_asks(self) -> tuple[TransferAsk, ...]:
        asks = (ask for step in self.steps for ask in (*step.asks, *step.undo))
        return tuple(ask for ask in asks if ask.transfer_id in self.open)


# --- stimuli --------------------------------------------------------------------------------


class Start(Struct, frozen=True, kw_only=True):
    """The rows are written: begin."""


class Succeeded(Struct, frozen=True, kw_only=True):
    transfer_id: str
    epoch: int
    result: Result


class Failed(Struct, frozen=True, kw_only=True):
    transfer_id: str
    problem: Problem


class Quiet(Struct, frozen=True, kw_only=True):
    """No answer for long: ask again with the same ids."""


Stimulus = Start | Succeeded | Failed | Quiet


# --- instructions ---------------------------------------------------------------------------


class Ask(Struct, frozen=True, kw_only=True):
    """Tell motion-engine about a transfer; `again` when it may know it already."""

    ask: TransferAsk
    again: bool = False


class Stop(Struct, frozen=True, kw_only=True):
    transfer_id: str


class Spoiled(Struct, frozen=True, kw_only=True):
    """A cleanup or best-effort transfer failed; somebody should know."""

    transfer_id: str
    problem: Problem


class Finish(Struct, frozen=True, kw_only=True):
    """The saga has ended; without a problem, well."""

    problem: Problem | None = None


Instruction = Ask | Stop | Spoiled | Finish
Stepped = tuple[Saga, tuple[Instruction, ...]]


class IllegalTransition(Exception):
    """A mistake of ours: this stimulus can't meet this phase."""

    def __init__(self, saga: Saga, stimulus: Stimulus) -> None:
        super().__init__(
            f"{type(stimulus).__name__} in phase {saga.phase}; history: {' '.join(saga.history)}"
        )
        self.saga = saga
        self.stimulus = stimulus


def step(saga: Saga, stimulus: Stimulus) -> Stepped:
    """The saga after the stimulus, and what the runner has to do. Pure."""
    key = (saga.phase, type(stimulus))
    if key in IGNORED:
        return saga, ()
    move = TRANSITIONS.get(key)
    if move is None:
        raise IllegalTransition(saga, stimulus)
    after, instructions = move(saga, stimulus)
    if after is saga and not instructions:
        return saga, ()
    note = f"{saga.phase}+{type(stimulus).__name__.lower()}>{after.phase}"
    return replace(after, history=(*saga.history, note)[-HISTORY_MAX:]), instructions


def _start(saga: Saga, _: Start) -> Stepped:
    return _enter(saga, 0)


def _enter(saga: Saga, index: int) -> Stepped:
    """Go to the first step from `index` on that has anything to do; past the last, the end."""
    while index < len(saga.steps) and not saga.steps[index].asks:
        index += 1
    if index == len(saga.steps):
        return replace(saga, phase=Phase.SUCCEEDED, open=()), (Finish(),)
    asks = saga.steps[index].asks
    opened = tuple(ask.transfer_id for ask in asks)
    after = replace(saga, phase=Phase.MOVING, at=index, open=opened)
    return after, tuple(Ask(ask=ask) for ask in asks)


def _succeeded(saga: Saga, stimulus: Succeeded) -> Stepped:
    if stimulus.transfer_id not in saga.open:
        return saga, ()
    if isinstance(stimulus.result, Probed):
        problem = probe_problem(stimulus.result.report)
        if problem is not None:
            return _failed(saga, Failed(transfer_id=stimulus.transfer_id, problem=problem))
    return _advance(_answered(saga, stimulus), ())


def _failed(saga: Saga, stimulus: Failed) -> Stepped:
    if stimulus.transfer_id not in saga.open:
        return saga, ()
    if saga.steps[saga.at].best_effort:
        return _advance(*_spoil(saga, stimulus))
    after = replace(_closed(saga, stimulus.transfer_id), problem=stimulus.problem)
    if after.open:
        stops = tuple(Stop(transfer_id=open_id) for open_id in after.open)
        return replace(after, phase=Phase.STOPPING), stops
    return _clean(after)


def _advance(saga: Saga, told: tuple[Instruction, ...]) -> Stepped:
    if saga.open:
        return saga, told
    problem = _disagreement(saga)
    if problem is not None:
        return _clean(replace(saga, problem=problem))
    after, instructions = _enter(saga, saga.at + 1)
    return after, (*told, *instructions)


def _disagreement(saga: Saga) -> Problem | None:
    """Copies of one thing that are not the same bytes: the source changed between the reads."""
    current = saga.steps[saga.at]
    if not current.agree:
        return None
    results = [saga.outcomes[ask.transfer_id].result for ask in current.asks]
    roots = sorted({result.digest.root for result in results if isinstance(result, Copied)})
    if len(roots) <= 1:
        return None
    return Problem(
        code=Code.SOURCE_CHANGED,
        message="the source gave different bytes to different copies",
        field="url",
        hint="register an URL whose bytes do not change, and give its checksum",
        facts={"digests": ", ".join(roots)},
    )


def _stopped(saga: Saga, stimulus: Succeeded | Failed) -> Stepped:
    """Another transfer of the failed step has ended, either way; clean up after the last."""
    if stimulus.transfer_id not in saga.open:
        return saga, ()
    after = _closed(saga, stimulus.transfer_id)
    return (after, ()) if after.open else _clean(after)


def _clean(saga: Saga) -> Stepped:
    """Undo the step that failed and those before it."""
    undo = tuple(ask for done in saga.steps[: saga.at + 1] for ask in done.undo)
    if not undo:
        return _give_up(saga, ())
    opened = tuple(ask.transfer_id for ask in undo)
    after = replace(saga, phase=Phase.CLEANING, open=opened)
    return after, tuple(Ask(ask=ask) for ask in undo)


def _cleaned(saga: Saga, stimulus: Succeeded | Failed) -> Stepped:
    if stimulus.transfer_id not in saga.open:
        return saga, ()
    if isinstance(stimulus, Failed):
        after, told = _spoil(saga, stimulus)
    else:
        after, told = _answered(saga, stimulus), ()
    return (after, told) if after.open else _give_up(after, told)


def _give_up(saga: Saga, told: tuple[Instruction, ...]) -> Stepped:
    assert saga.problem is not None, "a saga gives up only over a problem"
    after = replace(saga, phase=Phase.FAILED, open=())
    return after, (*told, Finish(problem=saga.problem))


def _again(saga: Saga, _: Quiet) -> Stepped:
    return saga, tuple(Ask(ask=ask, again=True) for ask in saga.open_asks)


def _stop_again(saga: Saga, _: Quiet) -> Stepped:
    """Ask first: a stop for a transfer nobody knows would be lost."""
    asks = tuple(Ask(ask=ask, again=True) for ask in saga.open_asks)
    return saga, (*asks, *(Stop(transfer_id=open_id) for open_id in saga.open))


def _answered(saga: Saga, stimulus: Succeeded) -> Saga:
    outcome = Outcome(epoch=stimulus.epoch, result=stimulus.result)
    after = _closed(saga, stimulus.transfer_id)
    return replace(after, outcomes={**saga.outcomes, stimulus.transfer_id: outcome})


def _spoil(saga: Saga, stimulus: Failed) -> Stepped:
    after = _closed(saga, stimulus.transfer_id)
    after = replace(after, spoiled=(*saga.spoiled, stimulus.transfer_id))
    return after, (Spoiled(transfer_id=stimulus.transfer_id, problem=stimulus.problem),)


def _closed(saga: Saga, transfer_id: str) -> Saga:
    return replace(saga, open=tuple(open_id for open_id in saga.open if open_id != transfer_id))


Move = Callable[[Saga, Any], Stepped]

TRANSITIONS: dict[tuple[Phase, type[Struct]], Move] = {
    (Phase.NEW, Start): _start,
    (Phase.MOVING, Succeeded): _succeeded,
    (Phase.MOVING, Failed): _failed,
    (Phase.MOVING, Quiet): _again,
    (Phase.STOPPING, Succeeded): _stopped,
    (Phase.STOPPING, Failed): _stopped,
    (Phase.STOPPING, Quiet): _stop_again,
    (Phase.CLEANING, Succeeded): _cleaned,
    (Phase.CLEANING, Failed): _cleaned,
    (Phase.CLEANING, Quiet): _again,
}

# Late and repeated answers: the ledger's and the broker's, each harmless once the saga has ended.
IGNORED: frozenset[tuple[Phase, type[Struct]]] = frozenset(
    (phase, stimulus)
    for phase in (Phase.SUCCEEDED, Phase.FAILED)
    for stimulus in (Succeeded, Failed, Quiet)
)
