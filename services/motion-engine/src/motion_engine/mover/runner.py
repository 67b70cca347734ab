"""The life of a mover: announce, claim, run under leases, tell, drain. Talks only to ports.

The same code runs in production and in the simulation, so there is no clock, no id, no thread and
no socket here that was not given to it.
"""

import asyncio
from collections.abc import Mapping

from msgspec import Struct

from entrepot_chassis import logs
from entrepot_chassis.ports import Bus, Clock, Ids, Unanswered
from entrepot_contracts.calls import ask
from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.motion import (
    ClaimWork,
    Grant,
    Granted,
    MoverWelcome,
    RegisterMover,
)
from entrepot_plugin.plugin import StorePlugin
from motion_engine.mover.copying import Tools
from motion_engine.mover.fetch import Fetch
from motion_engine.mover.job import Job, Surroundings
from motion_engine.mover.lease import ASK_S, LOST_AFTER_S, RENEW_S, End
from motion_engine.mover.stores import Keys, Stores, WrapObjects, WrapVolumes
from motion_engine.mover.works import Seal, SmallWorks

ANNOUNCE_S = 15.0
CLAIM_WAIT_S = 5.0
AGAIN_S = 0.5  # pause after an unanswered claim
NEARLY_DONE_S = 10.0  # what needs less than this is finished before we go
DRAIN_STEP_S = 0.2

_log = logs.get("mover")


class Identity(Struct, frozen=True, kw_only=True):
    """Who this mover is. `mover_id` survives restarts, the boot does not."""

    mover_id: str
    zone_ids: tuple[str, ...] = ()
    labels: Mapping[str, str] = {}
    slots: int = 4
    version: str = "0.1.0"


class World(Struct, frozen=True, kw_only=True):
    """Everything outside a runner."""

    bus: Bus
    clock: Clock
    ids: Ids
    plugins: Mapping[str, StorePlugin]
    keys: Keys
    seal: Seal
    fetch: Fetch
    tools: Tools
    wrap_objects: WrapObjects = lambda store: store
    wrap_volumes: WrapVolumes = lambda store: store
    stall_s: float = 60.0
    drain_s: float = 20.0


class Runner:
    """Runs until `stop` is set, then drains."""

    def __init__(self, identity: Identity, world: World) -> None:
        self._identity = identity
        self._world = world
        self._boot_id = world.ids.new()
        self._stores = Stores(
            world.plugins,
            world.keys,
            wrap_objects=world.wrap_objects,
            wrap_volumes=world.wrap_volumes,
        )
        self._around = Surroundings(
            mover_id=identity.mover_id,
            bus=world.bus,
            clock=world.clock,
            stores=self._stores,
            small=SmallWorks(self._stores, world.seal),
            fetch=world.fetch,
            tools=world.tools,
            stall_s=world.stall_s,
        )
        self._renew_s = RENEW_S
        self._jobs: dict[str, Job] = {}
        self._stopping = False
        self._welcome = asyncio.Event()  # set once the ledger knows us: it seals for our key
        self._room = asyncio.Event()
        self._room.set()

    @property
    def running(self) -> int:
        return len(self._jobs)

    async def run(self, stop: asyncio.Event) -> None:
        """Returns when everything claimed was finished or handed back."""
        async with asyncio.TaskGroup() as group:
            announcer = group.create_task(self._announce_for_ever(), name="announce")
            claimer = group.create_task(self._claim_for_ever(group), name="claim")
            await stop.wait()
            self._stopping = True
            self._room.set()
            self._welcome.set()
            await self._drain()
            await asyncio.wait([claimer])  # a claim under way may still be granted
            announcer.cancel()

    # --- announce -----------------------------------------------------------------------------

    async def _announce_for_ever(self) -> None:
        while True:
            pause_s = ANNOUNCE_S if await self.announce() else AGAIN_S
            await self._world.clock.sleep(pause_s)

    async def announce(self) -> bool:
        identity = self._identity
        message = RegisterMover(
            mover_id=identity.mover_id,
            boot_id=self._boot_id,
            zone_ids=identity.zone_ids,
            labels=dict(identity.labels),
            slots=identity.slots,
            public_key=self._world.keys.public_key,
            providers=self._stores.facts(),
            version=identity.version,
        )
        try:
            welcome = await ask(self._world.bus, message, timeout_s=ASK_S)
        except Unanswered:
            return False
        except Refused as refused:
            _log.warning("mover.not_welcome", problem=str(refused))
            return False
        if isinstance(welcome, MoverWelcome):
            self._renew_s = min(welcome.renew_s, LOST_AFTER_S / 2)
        self._welcome.set()
        return True

    # --- claim --------------------------------------------------------------------------------

    async def _claim_for_ever(self, group: asyncio.TaskGroup) -> None:
        """Ends once stopping: a claim that is under way then is answered first, and handed back,
        because its grants would otherwise stay ours until their leases expire.
        """
        await self._welcome.wait()
        while True:
            await self._room.wait()
            if self._stopping:
                return
            for grant in await self._claim():
                self._start(grant, group)

    async def _claim(self) -> tuple[Grant, ...]:
        message = ClaimWork(
            mover_id=self._identity.mover_id,
            boot_id=self._boot_id,
            free_slots=self._identity.slots - len(self._jobs),
            wait_s=CLAIM_WAIT_S,
        )
        try:
            granted = await ask(self._world.bus, message, timeout_s=CLAIM_WAIT_S + ASK_S)
        except Unanswered:
            await self._world.clock.sleep(AGAIN_S)
            return ()
        except Refused as refused:
            if refused.problem.code in {Code.NOT_FOUND, Code.CONFLICT, Code.FENCED}:
                await self.announce()  # the ledger has not heard of this boot
            await self._world.clock.sleep(AGAIN_S)
            return ()
        assert isinstance(granted, Granted)
        return granted.grants

    def _start(self, grant: Grant, group: asyncio.TaskGroup) -> None:
        transfer_id = grant.ask.transfer_id
        past = self._jobs.get(transfer_id)
        if past is not None:
            past.hold.stop(End.FENCED)  # a later epoch of the same work: ours was lost
        job = Job(grant, self._around, renew_s=self._renew_s)
        if self._stopping:
            job.hold.stop(End.DRAINED)
        self._jobs[transfer_id] = job
        self._update_room()
        group.create_task(self._run(job), name=f"job-{transfer_id}")

    async def _run(self, job: Job) -> None:
        transfer_id = job.hold.grant.ask.transfer_id
        with logs.bind(
            transfer_id=transfer_id, epoch=job.hold.grant.epoch, corr=job.hold.grant.ask.job_id
        ):
            try:
                await job.run()
            except Exception:  # noqa: BLE001 - one job's failure is not the mover's
                _log.exception("job.crashed")
            finally:
                if self._jobs.get(transfer_id) is job:
                    del self._jobs[transfer_id]
                self._update_room()

    def _update_room(self) -> None:
        if len(self._jobs) < self._identity.slots:
            self._room.set()
        else:
            self._room.clear()

    # --- drain --------------------------------------------------------------------------------

    async def _drain(self) -> None:
        """Let nearly finished work finish, hand the rest back at once."""
        clock = self._world.clock
        deadline = clock.monotonic() + min(self._world.drain_s, NEARLY_DONE_S)
        _log.info("mover.draining", jobs=len(self._jobs))
        for job in list(self._jobs.values()):
            if not job.nearly_done(NEARLY_DONE_S):
                job.hold.stop(End.DRAINED)
        while self._jobs:
            await clock.sleep(DRAIN_STEP_S)
            if clock.monotonic() > deadline:
                for job in list(self._jobs.values()):
                    job.hold.stop(End.DRAINED)
