"""The engine on the fakes, in virtual time: here seconds can be asserted."""

import asyncio
from contextlib import AsyncExitStack

import msgspec
import pytest

from entrepot_chassis.ports import OutboxEvent
from entrepot_contracts.calls import ask
from entrepot_contracts.catalog import command_of, event_of
from entrepot_contracts.errors import Code, Problem, problem_of
from entrepot_contracts.motion import ClaimWork, FinishWork, RenewLease
from entrepot_contracts.registry import MotionRequested, SealCredentials, SealedCredentials
from entrepot_testkit import sim_loop
from entrepot_testkit.memory_bus import MemoryBroker
from entrepot_testkit.memory_database import MemoryDatabase
from entrepot_testkit.memory_ledger import MemoryLedger
from entrepot_testkit.motion_asks import Asks
from entrepot_testkit.sim_clock import SimClock
from motion_engine import ledger as words
from motion_engine.app import serving
from motion_engine.engine import Engine
from motion_engine.rows import Transfer
from motion_engine.settings import Policy
from motion_engine.strategies.direct import DIRECT

SOFT = Problem(code=Code.STORE_ERROR, message="503", retryable=True)
NEVER = 3600.0


class Stage:
    """Engines over one broker and one database, and the hand that plays all others."""

    def __init__(self):
        self.broker = MemoryBroker()
        self.database = MemoryDatabase(service="motion-engine")
        self.bus = self.broker.connection()
        self.asks = Asks()
        self.seals = 0
        self.registry_silent = False

    def engine(self, policy=None):
        engine = Engine(
            database=self.database.connection(),
            bus=self.broker.connection(),
            ledger=MemoryLedger(words),
            clock=SimClock(),
            policy=policy or Policy(),
            strategies=(DIRECT,),
        )
        return serving(engine, source="sim")

    def registry(self):
        async def seal(message):
            self.seals += 1
            if self.registry_silent:
                await asyncio.sleep(NEVER)
            return SealedCredentials(items={})

        entry = command_of(SealCredentials)
        return self.bus.answer(
            entry.subject, entry.message, seal, queue="store-registry", failure=problem_of
        )

    async def do(self, command):
        return await ask(self.bus, command, timeout_s=30)

    async def claim(self, mover, wait_s=0.0):
        return (
            await self.do(
                ClaimWork(
                    mover_id=mover.mover_id, boot_id=mover.boot_id, free_slots=4, wait_s=wait_s
                )
            )
        ).grants

    async def request(self, one):
        message = MotionRequested(ask=one)
        subject = event_of(MotionRequested).subject_for(message)
        data = msgspec.json.encode(message)
        await self.bus.publish_events(
            [OutboxEvent(msg_id=one.transfer_id, subject=subject, data=data)]
        )
        while self.transfer(one.transfer_id) is None:  # noqa: ASYNC110 - polled as a client would
            await asyncio.sleep(0.01)
        return one.transfer_id

    def transfer(self, transfer_id):
        rows = self.database.rows(Transfer)
        return next((one for one in rows if one.transfer_id == transfer_id), None)


@pytest.fixture
def play():
    """Run a scene in virtual time: `play(scene)`, where scene is a coroutine function of Stage."""

    def run(scene, *, policy=None, engines=1, seed=1):
        async def main():
            stage = Stage()
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(stage.registry())
                for _ in range(engines):
                    await stack.enter_async_context(stage.engine(policy))
                return await scene(stage)

        return sim_loop.run(seed, main, until_s=10_000).result

    return run


def now_s():
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize("engines", [1, 2])
def test_the_bell_wakes_a_waiting_mover_at_once_whichever_engine_it_asked(play, engines):
    async def scene(stage):
        mover = stage.asks.mover()
        await stage.do(mover)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(stage.claim(mover, wait_s=10))
            await asyncio.sleep(1)
            asked_s = now_s()
            await stage.request(stage.asks.download(stage.asks.s3()))
            await waiting
        return now_s() - asked_s, len(waiting.result())

    quiet = Policy(recheck_s=NEVER, announce_s=NEVER)
    for seed in range(12):
        took_s, granted = play(scene, policy=quiet, engines=engines, seed=seed)
        assert took_s < 2, f"seed {seed}: nobody rang"
        assert granted == 1


def test_an_expired_lease_rings_no_bell_but_is_found_within_a_second(play):
    async def scene(stage):
        mover = stage.asks.mover()
        await stage.do(mover)
        transfer_id = await stage.request(stage.asks.download(stage.asks.s3()))
        assert len(await stage.claim(mover, wait_s=5)) == 1
        over = stage.transfer(transfer_id).lease_until
        await asyncio.sleep(4)  # so that no wait ends when the lease does
        while not (grants := await stage.claim(mover, wait_s=10)):
            pass
        return (SimClock().now() - over).total_seconds(), grants[0].epoch

    late_s, epoch = play(scene)
    assert 0 <= late_s < 2
    assert epoch == 2


def test_a_mover_that_appears_gets_what_waited_for_it_at_once(play):
    async def scene(stage):
        transfer_id = await stage.request(stage.asks.download(stage.asks.s3()))
        assert stage.transfer(transfer_id).problem.code == Code.NO_MOVER
        await asyncio.sleep(1)
        mover, came_s = stage.asks.mover(), now_s()
        await stage.do(mover)
        (grant,) = await stage.claim(mover, wait_s=10)
        return now_s() - came_s, grant.ask.transfer_id == transfer_id

    took_s, same = play(scene, policy=Policy(recheck_s=NEVER, announce_s=NEVER))
    assert took_s < 2
    assert same


def test_a_lease_that_is_renewed_is_never_taken_over(play):
    async def scene(stage):
        first, second = stage.asks.mover(), stage.asks.mover()
        for mover in (first, second):
            await stage.do(mover)
        transfer_id = await stage.request(stage.asks.download(stage.asks.s3()))
        await stage.claim(first, wait_s=5)
        for _ in range(30):
            await stage.do(RenewLease(transfer_id=transfer_id, epoch=1))
            assert await stage.claim(second, wait_s=10) == ()
            for mover in (first, second):
                await stage.do(mover)

    play(scene)


def test_a_retry_waits_its_doubling_delay(play):
    async def scene(stage):
        mover = stage.asks.mover()
        waits = []
        ask_ = stage.asks.download(stage.asks.s3(), attempts_max=4)
        await stage.do(mover)
        transfer_id = await stage.request(ask_)
        for epoch in (1, 2, 3):
            while not await stage.claim(mover, wait_s=10):
                pass
            await stage.do(FinishWork(transfer_id=transfer_id, epoch=epoch, problem=SOFT))
            failed_s = now_s()
            while stage.transfer(transfer_id).state != "queued":  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.1)
            waits.append(now_s() - failed_s)
        return waits

    for number, waited_s in enumerate(play(scene)):
        assert 2.5 * 2**number <= waited_s <= 7.5 * 2**number + 2


def test_a_silent_registry_is_asked_less_and_less_and_costs_no_attempt(play):
    async def scene(stage):
        mover = stage.asks.mover()
        await stage.do(mover)
        stage.registry_silent = True
        transfer_id = await stage.request(stage.asks.download(stage.asks.s3(), attempts_max=1))
        for _ in range(12):
            assert await stage.claim(mover, wait_s=5) == ()
        asked, stage.registry_silent = stage.seals, False
        while not (grants := await stage.claim(mover, wait_s=5)):
            await stage.do(mover)
        return asked, stage.transfer(transfer_id).attempts, grants[0].attempt

    asked, attempts, attempt = play(scene)
    assert asked <= 10, "60 s of silence with growing pauses"
    assert (attempts, attempt) == (1, 1)


def test_work_whose_only_mover_fell_silent_says_so_and_goes_on_when_it_is_back(play):
    async def scene(stage):
        mover = stage.asks.mover()
        await stage.do(mover)
        transfer_id = await stage.request(stage.asks.download(stage.asks.s3()))
        planned = stage.transfer(transfer_id)
        await asyncio.sleep(60)
        stranded = stage.transfer(transfer_id)
        await stage.do(mover)
        (grant,) = await stage.claim(mover, wait_s=5)
        return planned, stranded, grant.epoch

    planned, stranded, epoch = play(scene)
    assert (planned.strategy, planned.problem) == ("direct", None)
    assert (stranded.state, stranded.problem.code) == ("queued", Code.NO_MOVER)
    assert "no mover is alive" in stranded.bids[0].reason
    assert epoch == 1
