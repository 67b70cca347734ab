"""One simulated installation: broker, databases, processes, a nemesis; and how a seed is judged.

A scenario is a coroutine function over a World. It sets up in calm, calls `unleash()`, drives
clients while the nemesis strikes (the safety phase), calls `heal()` (the liveness phase), waits
with `settle`, and asserts its invariants. `judge` runs one seed; a failure tells the options of
the run and the line that replays it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import structlog
from msgspec import Struct

from entrepot_testkit.fate import Fate, Odds
from entrepot_testkit.memory_bus import MemoryBroker
from entrepot_testkit.memory_database import MemoryDatabase
from entrepot_testkit.memory_transaction import DeadLetter, Guard, Unique
from entrepot_testkit.sim_clock import SeededIds, SimClock
from entrepot_testkit.sim_loop import Deadlock, Livelock, OutOfTime, Run, run, running_loop
from entrepot_testkit.sim_process import Incarnation, SimProcess

POLL_S = 1.0
SILENT = 50


class Unsettled(AssertionError):
    """Liveness: what must come true after healing did not, in time."""


class World:
    """Everything that outlives processes, and the processes."""

    def __init__(self, seed: int, odds: Odds | None = None) -> None:
        self.seed = seed
        self.fate = Fate(seed, odds)
        self.clock = SimClock()
        self.broker = MemoryBroker(self.fate)
        self.databases: dict[str, MemoryDatabase] = {}
        self.processes: dict[str, SimProcess] = {}
        self.pausable: list[str] = []
        self._nemesis: list[asyncio.Task[None]] = []

    def ids(self, owner: str) -> SeededIds:
        return SeededIds(self.seed, owner)

    def database(
        self,
        service: str,
        *,
        unique: Mapping[str, Sequence[Unique]] | None = None,
        guards: Mapping[str, Guard] | None = None,
    ) -> MemoryDatabase:
        made = MemoryDatabase(self.fate, service=service, unique=unique, guards=guards)
        self.databases[service] = made
        return made

    def process(
        self,
        name: str,
        main: Callable[[Incarnation], Awaitable[None]],
        *,
        restart_s: float = 2.0,
        pausable: bool = False,
    ) -> SimProcess:
        """Make and start it."""
        made = self.processes[name] = SimProcess(name, main, fate=self.fate, restart_s=restart_s)
        if pausable:
            self.pausable.append(name)
        made.start()
        return made

    # --- the nemesis ------------------------------------------------------------------------------

    def unleash(self) -> None:
        """Faults begin. Crashes need no task: each life carries its doom."""
        self.fate.unleash()
        for process in self.processes.values():
            process.doom()
        odds = self.fate.odds
        if odds.wipe_every_s:
            self._nemesis.append(asyncio.ensure_future(self._wipes(odds.wipe_every_s)))
        if odds.pause_every_s and self.pausable:
            self._nemesis.append(asyncio.ensure_future(self._pauses(odds.pause_every_s)))

    async def _wipes(self, mean_s: float) -> None:
        while True:
            await asyncio.sleep(self.fate.about("wipe", mean_s))
            self.fate.happened("wipe")
            self.broker.wipe()

    async def _pauses(self, mean_s: float) -> None:
        while True:
            await asyncio.sleep(self.fate.about("pause", mean_s))
            process = self.processes[self.fate.pick("paused", self.pausable)]
            process.pause_for(self.fate.stream("pause").uniform(1, 60))

    async def heal(self) -> None:
        """Faults end; everybody who is down or paused comes back in time, and stays."""
        for task in self._nemesis:
            task.cancel()
        await asyncio.gather(*self._nemesis, return_exceptions=True)
        self.fate.heal()
        for process in self.processes.values():
            process.spare()

    async def settle(self, done: Callable[[], str | None], *, within_s: float) -> float:
        """Wait until `done()` has no complaint left; returns how long it took."""
        clock = running_loop()
        began = clock.time()
        while (complaint := done()) is not None:
            if clock.time() - began > within_s:
                raise Unsettled(f"{within_s} s after healing: {complaint}")
            await asyncio.sleep(POLL_S)
        return clock.time() - began

    # --- what must hold of any installation -----------------------------------------------------

    def check(
        self,
        *,
        expected: tuple[type[BaseException], ...] = (),
        may_park: Callable[[DeadLetter], bool] = lambda _letter: False,
    ) -> None:
        """Event versions without gap, nothing parked, no error but those that were meant."""
        for name, database in self.databases.items():
            _check_versions(name, database)
            parked = [letter for letter in database.dead_letters if not may_park(letter)]
            assert not parked, f"{name} parked {parked[:3]}"
        for error in self.broker.surprises:
            assert isinstance(error, expected), f"a handler raised {error!r}"
        for process in self.processes.values():
            for error in process.crashes:
                assert isinstance(error, expected), f"{process.name} exited with {error!r}"
        assert not running_loop().complaints, running_loop().complaints[:3]

    def unpublished(self) -> str | None:
        """For `settle`: which service still has events that no stream has."""
        for name, database in self.databases.items():
            left = [entry for entry in database.log.values() if entry.published_at is None]
            if left:
                return f"{name} has {len(left)} unpublished events, first {left[0].event.msg_id}"
        return None


Scenario = Callable[[World], Awaitable[None]]


class Verdict(Struct, frozen=True, kw_only=True):
    """Outcome of one seed. `failure` is None for a seed that held."""

    seed: int
    trace: str
    steps: int
    virtual_s: float
    struck: dict[str, int]
    failure: BaseException | None = None


def judge(
    scenario: Scenario, seed: int, *, until_s: float, odds: Odds | None = None, replay: str = ""
) -> Verdict:
    """Run one seed; raises what failed, with options and replay line attached."""
    worlds: list[World] = []

    async def main() -> None:
        world = World(seed, odds)
        worlds.append(world)
        await scenario(world)

    try:
        with _logs_quiet():
            outcome: Run[None] = run(seed, main, until_s=until_s)
    except BaseException as error:
        error.add_note(worlds[0].fate.dump() if worlds else f"seed {seed}")
        if replay:
            error.add_note(f"replay: {replay.format(seed=seed)}")
        raise
    return Verdict(
        seed=seed,
        trace=outcome.trace,
        steps=outcome.steps,
        virtual_s=outcome.now_s,
        struck=dict(worlds[0].fate.struck),
    )


def caught_by(  # a mutation is as good as caught when `enough` seeds fail
    scenario: Scenario,
    seeds: Iterable[int],
    *,
    until_s: float,
    enough: int,
    odds: Odds | None = None,
) -> tuple[list[int], int]:
    """Seeds that fail a scenario with a planted bug, until `enough` do; how many were tried."""
    caught: list[int] = []
    tried = 0
    for seed in seeds:
        tried += 1
        try:
            judge(scenario, seed, until_s=until_s, odds=odds)
        except (AssertionError, Deadlock, Livelock, OutOfTime):
            caught.append(seed)
        if len(caught) == enough:
            break
    return caught, tried


@contextmanager
def _logs_quiet() -> Iterator[None]:
    """Thousands of injected faults would be logged with their tracebacks."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(SILENT))
    try:
        yield
    finally:
        structlog.configure(**before)


def _check_versions(name: str, database: MemoryDatabase) -> None:
    versions: dict[str, list[int]] = {}
    for entry in database.log.values():
        versions.setdefault(entry.aggregate, []).append(entry.agg_version)
    for aggregate, held in versions.items():
        assert sorted(held) == list(range(1, len(held) + 1)), f"{name} {aggregate}: {sorted(held)}"
