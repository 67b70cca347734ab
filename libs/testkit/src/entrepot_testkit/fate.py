"""What goes wrong in a run, and when: decided by the seed, counted, printed when a run fails."""

import random
from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

import msgspec
from msgspec import Struct

from entrepot_testkit.sim_loop import note

T = TypeVar("T")

SLOW_STATEMENTS = 0.1
FAIR, STORM, ZOMBIES = "fair", "storm", "zombies"


class Odds(Struct, frozen=True, kw_only=True):
    """Probabilities per opportunity, and delays. All zero: a calm run with shuffled order only."""

    request_lost: float = 0  # the command never arrives
    request_twice: float = 0  # it arrives two times
    reply_lost: float = 0  # handled, but the asker hears nothing
    publish_lost: float = 0  # telemetry and bells
    events_stored_unsaid: float = 0  # publish_events stored them and raised
    events_refused: float = 0  # publish_events raised and stored nothing
    event_reordered: float = 0  # a batch is delivered in another order
    event_again: float = 0  # an acknowledged event comes back (F8)
    ack_lost: float = 0  # handled, committed, delivered again after ack_wait
    dedupe_forgotten: float = 0  # a message id inside the window is stored a second time (F6)
    wipe_at_store: float = 0  # the whole event store is lost just after events were stored
    commit_unsaid: float = 0  # committed, but the caller gets an error
    crash_at_commit: float = 0  # the process dies just before or just after a commit
    crash_at_effect: float = 0  # the mover dies just after a store took an effect
    pause_at_effect: float = 0  # the mover is stopped there for longer than its lease
    commit_failed: float = 0  # rolled back by a failure at commit
    session_lost: float = 0  # an advisory lock is lost with its session
    store_fails: float = 0  # a store operation fails before its effect
    store_unsaid: float = 0  # a store operation takes effect and then fails
    write_rots: float = 0  # a part is stored with a wrong bit, and acknowledged
    delay_s_max: float = 0.02  # of messages and statements
    delay_long: float = 0  # probability that a delay is a long one
    delay_long_s: float = 3.0
    crash_every_steps: int = 0  # mean loop steps between two crashes of one process; 0: never
    pause_every_s: float = 0  # mean seconds between two pauses of a mover; 0: never
    wipe_every_s: float = 0  # mean seconds between two losses of the whole event store; 0: never


CALM = Odds()

_FAULTS: dict[str, tuple[float, float]] = {
    "request_lost": (0.005, 0.05),
    "request_twice": (0.01, 0.1),
    "reply_lost": (0.005, 0.05),
    "publish_lost": (0.05, 0.5),
    "events_stored_unsaid": (0.02, 0.2),
    "events_refused": (0.02, 0.2),
    "event_reordered": (0.05, 0.5),
    "event_again": (0.02, 0.2),
    "ack_lost": (0.02, 0.2),
    "dedupe_forgotten": (0.05, 0.5),
    "wipe_at_store": (0.02, 0.2),
    "commit_unsaid": (0.002, 0.02),
    "crash_at_commit": (0.005, 0.05),
    "crash_at_effect": (0.01, 0.1),
    "pause_at_effect": (0.02, 0.2),
    "commit_failed": (0.002, 0.02),
    "session_lost": (0.001, 0.01),
    "store_fails": (0.005, 0.03),
    "store_unsaid": (0.005, 0.03),
    "write_rots": (0.05, 0.3),
    "delay_long": (0.001, 0.01),
}


class Fate:
    """Decisions of one run. Each kind of fault has its own stream, so adding one moves no other.

    Nothing goes wrong before `unleash()`; `heal()` ends all faults: the liveness phase.
    """

    def __init__(self, seed: int, odds: Odds | None = None) -> None:
        self.seed = seed
        self.drawn = drawn_odds(seed) if odds is None else odds
        self.odds = Odds(delay_s_max=self.drawn.delay_s_max)
        self.struck: Counter[str] = Counter()
        self._streams: dict[str, random.Random] = {}

    def stream(self, name: str) -> random.Random:
        """A source of randomness of that name, independent of all others."""
        found = self._streams.get(name)
        if found is None:
            found = self._streams[name] = random.Random(f"{self.seed}:{name}")  # noqa: S311
        return found

    def strikes(self, fault: str, what: str = "") -> bool:
        odds: float = getattr(self.odds, fault)
        if not odds or self.stream(fault).random() >= odds:
            return False
        self.struck[fault] += 1
        note(f"fate: {fault} {what}")
        return True

    def happened(self, fault: str, what: str = "") -> None:
        """Count a fault that somebody else timed (crash, pause, wipe)."""
        self.struck[fault] += 1
        note(f"fate: {fault} {what}")

    def delay_s(self) -> float:
        """Time a message or statement takes."""
        odds, stream = self.odds, self.stream("delay")
        if odds.delay_long and stream.random() < odds.delay_long:
            self.struck["delay_long"] += 1
            return stream.random() * odds.delay_long_s
        return stream.random() * odds.delay_s_max

    def statement_s(self) -> float:
        """Time of one database statement: mostly none, so only the order is random; at times as
        long as a message takes, so that lock waits and lease ends meet it.
        """
        stream = self.stream("statement")
        return self.delay_s() if stream.random() < SLOW_STATEMENTS else 0.0

    def pick(self, stream: str, choices: Sequence[T]) -> T:
        return choices[int(self.stream(stream).random() * len(choices))]

    def shuffled(self, stream: str, items: Sequence[T]) -> list[T]:
        copy = list(items)
        self.stream(stream).shuffle(copy)
        return copy

    def about(self, stream: str, mean: float) -> float:
        """An exponential waiting time of that mean, never zero."""
        return max(1e-6, self.stream(stream).expovariate(1 / mean))

    def unleash(self) -> None:
        self.odds = self.drawn
        note("fate: unleashed")

    def heal(self) -> None:
        self.odds = Odds(delay_s_max=self.drawn.delay_s_max)
        note("fate: healed")

    def dump(self) -> str:
        """Options of this run, for the report of a failure."""
        options = {
            name: value for name, value in msgspec.structs.asdict(self.drawn).items() if value
        }
        text = ", ".join(f"{name}={value:.4g}" for name, value in options.items())
        struck = ", ".join(f"{name}={count}" for name, count in sorted(self.struck.items()))
        return f"seed {self.seed}\noptions: {text}\nstruck: {struck or 'nothing'}"


def drawn_odds(seed: int, *, weather: str = FAIR) -> Odds:
    """Each fault is on in about half of all runs, with odds within its bounds, so some runs are
    nearly calm, some terrible, and every pair of faults meets somewhere. In a storm four of five
    are on; zombies stop movers in the middle of things, and little else: for shorter hunts.
    """
    draw = random.Random(f"{seed}:odds")  # noqa: S311
    often = {FAIR: 0.5, STORM: 0.8, ZOMBIES: 0.1}[weather]
    drawn: dict[str, float] = {}
    for fault, (low, high) in _FAULTS.items():
        on, odds = draw.random() < often, draw.uniform(low, high)
        if on:
            drawn[fault] = odds
    chances = {
        "crash_every_steps": (0.6, int(10 ** draw.uniform(2, 3.6))),
        "pause_every_s": (0.4, draw.uniform(8, 40)),
        "wipe_every_s": (0.3, draw.uniform(20, 60)),
    }
    drawn |= {name: value for name, (odds, value) in chances.items() if draw.random() < odds}
    if weather == ZOMBIES:
        drawn |= {"pause_at_effect": draw.uniform(0.1, 0.4), "crash_every_steps": 0}
    return Odds(delay_s_max=draw.choice((0.002, 0.02, 0.2)), **drawn)  # type: ignore[arg-type]
