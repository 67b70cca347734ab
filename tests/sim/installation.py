"""The installation under simulation: registry, motion-engine and movers as they are, on the fakes.

Only what their composition roots would open is replaced; `Seams` lets a test wrap it, which is how
protocol bugs are planted without a switch in the product.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

from msgspec import Struct

from entrepot_chassis import outbox
from entrepot_contracts.motion import Checkpoint, FinishWork, ReleaseWork, RenewLease
from entrepot_contracts.values import JobState
from entrepot_testkit import planted
from entrepot_testkit.memory_ledger import MemoryLedger
from entrepot_testkit.memory_transaction import Unique
from entrepot_testkit.sim_clock import SimClock
from entrepot_testkit.sim_process import Incarnation
from entrepot_testkit.sim_stores import SimDisk, SimSources, sim_plugin
from entrepot_testkit.sim_world import World
from motion_engine import app as engine_app
from motion_engine import ledger as ledger_words
from motion_engine.engine import Engine
from motion_engine.mover.copying import Tools
from motion_engine.mover.fetch import Fetched
from motion_engine.mover.runner import Identity, Runner
from motion_engine.mover.runner import World as MoverWorld
from motion_engine.mover.threads import run_inline
from motion_engine.rows import TERMINAL, Transfer
from motion_engine.settings import Policy as EnginePolicy
from motion_engine.strategies.direct import DIRECT
from store_registry import app as registry_app
from store_registry.registry import Registry
from store_registry.settings import Policy as RegistryPolicy

BUCKET = "images"


def same(port: Any) -> Any:
    return port


class Seams(Struct, frozen=True, kw_only=True):
    """What each process gets is what these make of the fakes."""

    registry_bus: Callable[[Any], Any] = same
    registry_database: Callable[[Any], Any] = same
    engine_bus: Callable[[Any], Any] = same
    engine_database: Callable[[Any], Any] = same
    engine_policy: EnginePolicy = EnginePolicy(
        retry_base_s=2, retry_cap_s=20, sweep_s=2, recheck_s=2
    )
    ledger: Callable[[Any], Any] = MemoryLedger
    mover_bus: Callable[[Any], Any] = same
    mover_tools: Tools = Tools(run_blocking=run_inline, parts_in_flight=2)
    mover_world: Mapping[str, Any] = {}


class SuspendedClock(SimClock):
    """Monotonic time as a suspended machine sees it: it stands still meanwhile, so a mover in it
    does not notice that its lease ran out, and only the ledger's epochs are in its way.
    """

    def __init__(self, life: Incarnation) -> None:
        super().__init__()
        self._life = life

    def monotonic(self) -> float:
        return super().monotonic() - self._life.suspended_s


class SimKeys:
    """Sealing that keeps nothing secret and is the same in every run."""

    def __init__(self, name: str) -> None:
        self.public_key = name

    def open(self, box: bytes) -> bytes:
        recipient, _, data = box.partition(b"|")
        assert recipient.decode() == self.public_key, "sealed to somebody else"
        return data

    def seal(self, recipient: str, data: bytes) -> bytes:
        return recipient.encode() + b"|" + data

    def encrypt(self, data: bytes, aad: str) -> bytes:
        return aad.encode() + b"|" + data

    def decrypt(self, box: bytes, aad: str) -> bytes:
        return SimKeys(aad).open(box)


def _job_ends_once(before: Any, after: Any) -> None:
    """Trigger job_ends_once."""
    assert before.state is JobState.RUNNING, f"job {before.job_id} has ended as {before.state}"
    assert (after.state is JobState.RUNNING) == (after.finished_at is None)
    assert (after.state is JobState.FAILED) == (after.error is not None)


def _transfer_guard(before: Any, after: Any) -> None:
    """Trigger transfer_guard and the checks of the table."""
    assert before.state not in TERMINAL, f"transfer {before.transfer_id} is {before.state}"
    assert after.epoch >= before.epoch, "an epoch may not fall"
    assert after.attempts <= after.attempts_max
    assert (after.state in TERMINAL) == (after.finished_at is not None)


def _live(row: Any) -> bool:
    return row.state in ("probing", "up", "degraded")


UNIQUE: dict[str, list[Unique]] = {
    "zone": [Unique(columns=("name",))],
    "image_store": [
        Unique(columns=("name",), where=_live),
        Unique(columns=("place",), where=_live),
    ],
    "storage_pool": [
        Unique(columns=("name",), where=_live),
        Unique(columns=("place",), where=_live),
    ],
    "template_store_ref": [Unique(columns=("template_id", "store_id"))],
    "snapshot_store_ref": [Unique(columns=("snapshot_id", "store_id"))],
    "volume_store_ref": [Unique(columns=("volume_id", "store_id"))],
    "hold": [Unique(columns=("resource_id",), where=lambda hold: hold.exclusive)],
}


class Fences(planted.Around):
    """Watches the engine's door: who spoke under an epoch that was over, and was believed (I12)."""

    def __init__(self, inner: Any, installation: "Installation") -> None:
        super().__init__(inner)
        self._installation = installation

    def answer(self, subject: str, message: Any, handler: Any, **options: Any) -> Any:
        if message not in (Checkpoint, FinishWork, ReleaseWork, RenewLease):
            return self.inner.answer(subject, message, handler, **options)

        async def watched(spoken: Any) -> Any:
            row = self._installation.transfer(spoken.transfer_id)
            stale = row is not None and row.epoch > spoken.epoch
            if stale:
                self._installation.world.fate.happened("stale", type(spoken).__name__)
            reply = await handler(spoken)
            if row is not None and stale:
                self._installation.believed.append(
                    f"{type(spoken).__name__} under epoch {spoken.epoch} of {row.epoch}"
                )
            return reply

        return self.inner.answer(subject, message, watched, **options)


class Installation:
    """Durable state and processes; what clients know of it they learn over the bus."""

    def __init__(self, world: World, seams: Seams) -> None:
        self.world = world
        self.seams = seams
        self.registry = world.database(
            "store-registry", unique=UNIQUE, guards={"job": _job_ends_once}
        )
        self.engine = world.database("motion-engine", guards={"transfer": _transfer_guard})
        self.disks = {name: SimDisk(name) for name in (BUCKET, "pool-1", "pool-2")}
        self.sources = SimSources(Fetched)
        self.believed: list[str] = []  # what a fenced mover said and the engine took
        self._ids = {name: world.ids(name) for name in ("registry", "engine", "mover")}
        self._mover_ids = {name: world.ids(name).new() for name in ("mover-1", "mover-2")}

    def transfer(self, transfer_id: str) -> Transfer | None:
        body = self.engine.tables[Transfer.TABLE.name].get(transfer_id)
        return None if body is None else self.engine.glance(Transfer, body)

    def start(self) -> None:
        self.world.process("registry", self._run_registry, pausable=True)
        self.world.process("engine", self._run_engine, pausable=True)
        self.add_mover("mover-1")

    def add_mover(self, name: str) -> None:
        self.world.process(name, lambda life: self._run_mover(name, life), pausable=True)

    async def _run_registry(self, life: Incarnation) -> None:
        clock = self.world.clock
        database = self.seams.registry_database(self.registry.connection(life))
        bus = self.seams.registry_bus(self.world.broker.connection(life))
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(outbox.relaying(database, bus, clock=clock))
            registry = Registry.over(
                database, clock=clock, ids=self._ids["registry"], keys=SimKeys("registry")
            )
            await stack.enter_async_context(registry_app.serving(registry, bus, RegistryPolicy()))
            await clock.sleep(10**7)

    async def _run_engine(self, life: Incarnation) -> None:
        clock = self.world.clock
        database = self.seams.engine_database(self.engine.connection(life))
        bus = self.seams.engine_bus(Fences(self.world.broker.connection(life), self))
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(outbox.relaying(database, bus, clock=clock))
            engine = Engine(
                database=database,
                bus=bus,
                ledger=self.seams.ledger(ledger_words),
                clock=clock,
                policy=self.seams.engine_policy,
                strategies=(DIRECT,),
            )
            source = self._ids["engine"].new()
            await stack.enter_async_context(engine_app.serving(engine, source=source))
            await clock.sleep(10**7)

    async def _run_mover(self, name: str, life: Incarnation) -> None:
        world = MoverWorld(
            bus=self.seams.mover_bus(self.world.broker.connection(life)),
            clock=SuspendedClock(life),
            ids=self._ids["mover"],
            plugins={"sim": sim_plugin(self.disks, self.world.fate, life)},
            keys=SimKeys(name),
            seal=SimKeys(name).seal,
            fetch=self.sources.fetch(self.world.fate, life),
            tools=self.seams.mover_tools,
            **self.seams.mover_world,
        )
        identity = Identity(mover_id=self._mover_ids[name], slots=2)
        await Runner(identity, world).run(asyncio.Event())
