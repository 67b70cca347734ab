"""The whole engine on a real NATS and a real PostgreSQL, with a mover and a registry played."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import msgspec
import pytest

from entrepot_chassis import bus, outbox, postgres
from entrepot_chassis.clock import SystemClock, uuid7
from entrepot_chassis.ports import OutboxEvent, Unanswered
from entrepot_contracts.calls import ask
from entrepot_contracts.catalog import command_of, event_of, telemetry_of
from entrepot_contracts.errors import Code, Problem, Refused, problem_of
from entrepot_contracts.fleet import LoadSample
from entrepot_contracts.motion import (
    CancelTransfer,
    Checkpoint,
    ClaimWork,
    FinishWork,
    GetTransfer,
    ListMovers,
    ListTransfers,
    MoverRegistered,
    PartRecord,
    ReadParts,
    ReleaseWork,
    RenewLease,
    TransferFailed,
    TransferSucceeded,
)  # fmt: skip
from entrepot_contracts.registry import (
    MotionCancelled,
    MotionRequested,
    SealCredentials,
    SealedCredentials,
)
from entrepot_contracts.values import Actor, Role, Sealed
from entrepot_testkit.motion_asks import copied, part
from motion_engine.app import serving
from motion_engine.engine import Engine
from motion_engine.handlers.work import retry_delay_s
from motion_engine.ledger_sql import PostgresLedger
from motion_engine.planner import load_strategies
from motion_engine.settings import Policy

ADMIN = Actor(account_id="00000000-0000-7000-8000-00000000000a", role=Role.ADMIN)
QUICK = Policy(
    retry_base_s=0.05, sweep_s=0.1, recheck_s=0.2, announce_s=0.3, load_s=0.3, seal_timeout_s=0.4
)
SOFT = Problem(code=Code.STORE_ERROR, message="503", retryable=True)
HARD = Problem(
    code=Code.CHECKSUM_MISMATCH, message="other bytes", facts={"actual": "0", "expected": "1"}
)

SCHEMA = "motion_engine"


class World:
    """Everybody around the engine: registry, mover, operator, and an ear on the stream."""

    def __init__(self, nats, database_url, asks):
        self.nats, self.database_url, self.asks = nats, database_url, asks
        self.client = None
        self.heard = []
        self.sealed = []
        self.refuses = {}  # store id -> Problem
        self.registry_silent = False
        self.sent = 0

    # --- the engine -----------------------------------------------------------------------------

    @asynccontextmanager
    async def engine(self, policy=QUICK, name="motion-engine"):
        async with AsyncExitStack() as stack:
            database = await stack.enter_async_context(
                postgres.open_database(self.database_url, service=name, schema=SCHEMA)
            )
            client = await stack.enter_async_context(
                bus.connect(self.nats.url, name=name, drain_s=3)
            )
            await stack.enter_async_context(outbox.relaying(database, client, clock=SystemClock()))
            engine = Engine(
                database=database, bus=client, ledger=PostgresLedger(), clock=SystemClock(),
                policy=policy, strategies=load_strategies(policy.strategies),
            )  # fmt: skip
            await stack.enter_async_context(serving(engine, source="test"))
            yield engine

    # --- the registry ---------------------------------------------------------------------------

    async def seal(self, message: SealCredentials):
        self.sealed.append(message)
        if self.registry_silent:
            await asyncio.sleep(5)
        for store in message.store_ids:
            if store in self.refuses:
                raise Refused.of(self.refuses[store])
        return SealedCredentials(
            items={
                store: Sealed(recipient=message.recipient, box=store.encode())
                for store in message.store_ids
            }
        )

    async def tell(self, message, times=1, msg_id=None):
        """An event of the registry, as its relay publishes it; again under its own id."""
        self.sent += 1
        entry = event_of(type(message))
        event = OutboxEvent(
            msg_id=msg_id or f"store-registry:motion:{self.sent}",
            subject=entry.subject_for(message),
            data=msgspec.json.encode(message),
        )
        for _ in range(times):
            await self.client.publish_events([event])

    async def request(self, one, **how):
        await self.tell(MotionRequested(ask=one), **how)
        return one.transfer_id

    # --- others ---------------------------------------------------------------------------------

    async def do(self, command, timeout_s=15):
        return await ask(self.client, command, timeout_s=timeout_s)

    async def claim(self, mover, wait_s=8.0, free_slots=4):
        found = await self.do(
            ClaimWork(
                mover_id=mover.mover_id, boot_id=mover.boot_id, free_slots=free_slots, wait_s=wait_s
            )
        )
        return found.grants

    async def see(self, transfer_id, actor=ADMIN):
        return await self.do(GetTransfer(actor=actor, transfer_id=transfer_id))

    async def until(self, transfer_id, state):
        async with asyncio.timeout(20):
            while True:
                try:
                    if (view := await self.see(transfer_id)).state == state:
                        return view
                except Refused:
                    pass
                await asyncio.sleep(0.05)

    async def reaches(self, condition):
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 - many things may make it true
                await asyncio.sleep(0.05)

    async def event_about(self, one_id, kind):
        async with asyncio.timeout(20):
            while True:
                for message in self.heard:
                    if isinstance(message, kind) and one_id in {
                        getattr(message, "transfer_id", None), getattr(message, "mover_id", None),
                    }:  # fmt: skip
                        return message
                await asyncio.sleep(0.05)

    def events_about(self, one_id):
        return [one for one in self.heard if getattr(one, "transfer_id", None) == one_id]

    async def hear(self, batch):
        seen = {one.msg_id for one in batch}
        assert len(seen) == len(batch)
        self.heard.extend(one.message for one in batch)


@pytest.fixture
async def world(own_nats, database_url, asks):
    await postgres.Migrations(package="motion_engine", schema=SCHEMA).apply(database_url)
    world = World(own_nats, database_url, asks)
    async with AsyncExitStack() as stack:
        world.client = await stack.enter_async_context(
            bus.connect(own_nats.url, name="world", drain_s=1)
        )
        seal = command_of(SealCredentials)
        await stack.enter_async_context(
            world.client.answer(
                seal.subject, seal.message, world.seal, queue="store-registry", failure=problem_of
            )
        )
        await stack.enter_async_context(
            world.client.consume(
                durable="ear",
                subjects=["evt.motion.>"],
                messages=[MoverRegistered, TransferSucceeded, TransferFailed],
                handler=world.hear,
                undecodable=None,
            )
        )
        yield world


@pytest.fixture
async def engine(world):
    async with world.engine() as engine:
        yield engine


@pytest.fixture
async def mover(world, engine, asks):
    announced = asks.mover()
    await world.do(announced)
    return announced


# --- from request to end --------------------------------------------------------------------------


async def test_a_requested_transfer_is_claimed_checkpointed_and_finished(world, mover, asks):
    store = asks.s3()
    transfer_id = await world.request(asks.download(store))
    (grant,) = await world.claim(mover)
    assert (grant.ask.transfer_id, grant.epoch, grant.attempt, grant.strategy) == (
        transfer_id, 1, 1, "direct",
    )  # fmt: skip
    assert grant.credentials[store.store_id].box == store.store_id.encode()
    assert grant.credentials[store.store_id].recipient == mover.public_key
    note = Checkpoint(
        transfer_id=transfer_id, epoch=1, key="k", resume="up", parts=(part(1), part(2)),
        bytes_done=32 << 20, bytes_total=64 << 20,
    )  # fmt: skip
    await world.do(note)
    assert (await world.do(RenewLease(transfer_id=transfer_id, epoch=1))).cancel is False
    await world.do(
        Checkpoint(
            transfer_id=transfer_id, epoch=1, key="", resume=None, facts={"phase": "verifying"}
        )
    )
    assert (await world.see(transfer_id)).state == "verifying"
    await world.do(FinishWork(transfer_id=transfer_id, epoch=1, result=copied(64 << 20)))
    event = await world.event_about(transfer_id, TransferSucceeded)
    assert (event.job_id, event.epoch, event.result) == (grant.ask.job_id, 1, copied(64 << 20))
    view = await world.see(transfer_id)
    assert (view.state, view.parts_done, view.mover_id) == ("done", 2, mover.mover_id)
    assert [bid.strategy for bid in view.bids if bid.chosen] == ["direct"]
    assert len(view.story) == 4


async def test_the_secret_of_a_source_is_asked_for_beside_those_of_the_stores(world, mover, asks):
    store, plain = asks.s3(), asks.download(asks.s3())
    ask = asks.download(store)
    template_id = asks.ids.new()
    source = msgspec.structs.replace(ask.work.source, secret_id=template_id)
    work = msgspec.structs.replace(ask.work, source=source)
    await world.request(msgspec.structs.replace(ask, work=work))
    (grant,) = await world.claim(mover)
    assert set(world.sealed[-1].store_ids) == {store.store_id, template_id}
    assert set(grant.credentials) == {store.store_id, template_id}
    assert grant.ask.work.source.secret_id == template_id
    await world.request(plain)
    (grant,) = await world.claim(mover)
    assert set(grant.credentials) == {plain.work.target.store.store_id}


async def test_a_waiting_claim_is_woken_by_new_work(world, asks):
    """Re-check and sweep are beyond the wait; that it is at once is shown in virtual time."""
    async with world.engine(msgspec.structs.replace(QUICK, recheck_s=60, announce_s=600)):
        mover = asks.mover()
        await world.do(mover)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(world.claim(mover, wait_s=10))
            await asyncio.sleep(0.3)
            transfer_id = await world.request(asks.download(asks.s3()))
        assert [one.ask.transfer_id for one in waiting.result()] == [transfer_id]


async def test_engines_side_by_side_wake_each_others_movers_and_grant_once(world, asks):
    slow = msgspec.structs.replace(QUICK, recheck_s=60, announce_s=600)
    movers = [asks.mover(slots=50) for _ in range(8)]
    async with world.engine(slow), world.engine(slow):
        for mover in movers:
            await world.do(mover)
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(world.claim(mover, wait_s=9)) for mover in movers]
            await asyncio.sleep(0.3)
            wanted = [await world.request(asks.download(asks.s3())) for _ in range(8)]
        granted = [one.ask.transfer_id for task in waiting for one in task.result()]
        for mover in movers:
            more = await world.claim(mover, wait_s=0, free_slots=8)
            granted += [one.ask.transfer_id for one in more]
    assert sorted(granted) == wanted


async def test_an_empty_queue_answers_empty_when_the_wait_is_over(world, mover):
    assert await world.claim(mover, wait_s=0) == ()
    assert await world.claim(mover, wait_s=0.3) == ()


async def test_a_request_delivered_many_times_is_one_transfer(world, mover, asks, database_url):
    one = asks.download(asks.s3())
    await world.request(one, times=3)
    await world.request(one)  # the same ask under another event id
    assert len(await world.claim(mover)) == 1
    await world.do(FinishWork(transfer_id=one.transfer_id, epoch=1, result=copied(1)))
    await world.request(one)
    assert await world.claim(mover, wait_s=0.6) == ()
    await world.event_about(one.transfer_id, TransferSucceeded)
    assert (await world.see(one.transfer_id)).attempts == 1


async def test_a_request_for_what_has_ended_repeats_its_end(world, mover, asks):
    one = asks.download(asks.s3())
    await world.request(one)
    await world.claim(mover)
    await world.do(FinishWork(transfer_id=one.transfer_id, epoch=1, result=copied(1)))
    first = await world.event_about(one.transfer_id, TransferSucceeded)
    world.heard.clear()
    await world.request(one)
    assert await world.event_about(one.transfer_id, TransferSucceeded) == first
    assert await world.claim(mover, wait_s=0.6) == ()


async def test_the_end_said_twice_is_announced_once(world, mover, asks):
    transfer_id = await world.request(asks.download(asks.s3()))
    await world.claim(mover)
    end = FinishWork(transfer_id=transfer_id, epoch=1, problem=HARD)
    assert await world.do(end) == await world.do(end)
    other = FinishWork(transfer_id=transfer_id, epoch=1, result=copied(1))
    await world.do(other)
    event = await world.event_about(transfer_id, TransferFailed)
    assert (event.state, event.problem) == ("failed", HARD)
    marker = await world.request(asks.download(asks.s3()))
    await world.claim(mover)
    await world.do(FinishWork(transfer_id=marker, epoch=1, result=copied(1)))
    await world.event_about(marker, TransferSucceeded)
    assert len(world.events_about(transfer_id)) == 1
    assert (await world.see(transfer_id)).state == "failed"


async def test_a_retryable_problem_comes_back_until_the_attempts_are_spent(
    world, mover, asks, database_url
):
    transfer_id = await world.request(asks.download(asks.s3(), attempts_max=3))
    for attempt in (1, 2, 3):
        (grant,) = await world.claim(mover)
        assert (grant.epoch, grant.attempt) == (attempt, attempt)
        await world.do(FinishWork(transfer_id=transfer_id, epoch=attempt, problem=SOFT))
    event = await world.event_about(transfer_id, TransferFailed)
    assert (event.state, event.problem.code) == ("quarantined", Code.STORE_ERROR)
    connection = await asyncpg.connect(database_url, server_settings={"search_path": SCHEMA})
    try:
        letter = await connection.fetchrow("SELECT * FROM dead_letter")
    finally:
        await connection.close()
    assert letter["msg_id"] == f"quarantined:{transfer_id}"
    story = msgspec.json.decode(letter["body"])["story"]
    assert sum("claimed by" in line for line in story) == 3
    assert b"images.example" not in letter["body"], "no URL: it may hold secrets"


async def test_a_takeover_finds_the_checkpoint_and_fences_the_one_before(world, mover, asks):
    transfer_id = await world.request(asks.download(asks.s3()))
    await world.claim(mover)
    note = Checkpoint(
        transfer_id=transfer_id,
        epoch=1,
        key="k",
        resume="up",
        parts=(part(1),),
        facts={"etag": "x"},
    )
    await world.do(note)
    await world.do(ReleaseWork(transfer_id=transfer_id, epoch=1))
    second = asks.mover()
    await world.do(second)
    (grant,) = await world.claim(second)
    assert (grant.epoch, grant.attempt) == (2, 1), "a hand-back does not count as an attempt"
    assert (grant.checkpoint.key, grant.checkpoint.resume) == ("k", "up")
    assert (grant.checkpoint.parts, grant.checkpoint.facts) == ((part(1),), {"etag": "x"})
    before = await world.see(transfer_id)
    for late in (
        note,
        RenewLease(transfer_id=transfer_id, epoch=1),
        FinishWork(transfer_id=transfer_id, epoch=1, result=copied(1)),
        FinishWork(transfer_id=transfer_id, epoch=1, problem=HARD),
        ReleaseWork(transfer_id=transfer_id, epoch=1),
    ):
        with pytest.raises(Refused) as refused:
            await world.do(late)
        assert refused.value.problem.code == Code.FENCED
    assert await world.see(transfer_id) == before


async def test_a_takeover_finds_every_part_however_many_are_on_record(world, mover, asks):
    """A terabyte has thousands of parts, and all of them are more than one message carries."""
    transfer_id = await world.request(asks.download(asks.s3()))
    await world.claim(mover)
    leaves = bytes(range(256)) * 2  # of a part of 64 MiB
    parts = tuple(
        PartRecord(number=n, offset=n, length=1, receipt="e" * 34, leaves=leaves)
        for n in range(1, 2501)
    )
    for first in range(0, len(parts), 500):
        few = parts[first : first + 500]
        await world.do(
            Checkpoint(transfer_id=transfer_id, epoch=1, key="k", resume="up", parts=few)
        )
    await world.do(ReleaseWork(transfer_id=transfer_id, epoch=1))
    (grant,) = await world.claim(mover)
    found, more = grant.checkpoint.parts, grant.checkpoint.more
    while more:
        page = await world.do(ReadParts(transfer_id=transfer_id, epoch=2, after=found[-1].number))
        found, more = found + page.parts, page.more
    assert found == parts
    with pytest.raises(Refused) as refused:
        await world.do(ReadParts(transfer_id=transfer_id, epoch=1, after=0))
    assert refused.value.problem.code == Code.FENCED


async def test_work_of_a_mover_that_fell_silent_is_taken_over(world, asks):
    async with world.engine(msgspec.structs.replace(QUICK, lease_s=0.4)):
        first, second = asks.mover(), asks.mover()
        await world.do(first)
        await world.do(second)
        transfer_id = await world.request(asks.download(asks.s3(), attempts_max=2))
        await world.claim(first)
        (grant,) = await world.claim(second)
        assert (grant.ask.transfer_id, grant.epoch, grant.attempt) == (transfer_id, 2, 2)
        event = await world.event_about(transfer_id, TransferFailed)
    assert (event.state, event.problem.code) == ("quarantined", Code.ATTEMPTS_EXHAUSTED)


# --- movers ---------------------------------------------------------------------------------------


async def test_a_new_boot_under_the_same_name_frees_the_claims_at_once(world, mover, asks):
    transfer_id = await world.request(asks.download(asks.s3()))
    await world.claim(mover)
    again = msgspec.structs.replace(mover, boot_id=asks.ids.new())
    await world.do(again)
    with pytest.raises(Refused) as refused:
        await world.do(RenewLease(transfer_id=transfer_id, epoch=1))
    assert refused.value.problem.code == Code.FENCED
    with pytest.raises(Refused, match="fenced"):
        await world.claim(mover, wait_s=0)
    (grant,) = await world.claim(again)
    assert (grant.epoch, grant.attempt) == (2, 2)


async def test_an_earlier_boot_that_comes_back_takes_nothing_from_the_living_one(world, asks):
    """A process that was thought dead announces itself again every 15 s, and each eviction costs
    an attempt.
    """
    mover = asks.mover()
    first, second = [
        msgspec.structs.replace(mover, boot_id=uuid7(ms, bytes(10))) for ms in (1_000, 2_000)
    ]
    async with world.engine(msgspec.structs.replace(QUICK, mover_silent_s=2)):
        await world.do(first)
        await world.do(second)
        transfer_id = await world.request(asks.download(asks.s3()))
        await world.claim(second)
        with pytest.raises(Refused) as refused:
            await world.do(first)
        assert refused.value.problem.code == Code.FENCED
        await world.do(RenewLease(transfer_id=transfer_id, epoch=1))
        await asyncio.sleep(2.1)  # the second fell silent: whoever is there may work
        await world.do(first)


async def test_the_registry_hears_of_a_mover_only_when_its_facts_change(world, engine, asks):
    one = asks.mover()
    for _ in range(3):
        await world.do(one)
    again = msgspec.structs.replace(one, boot_id=asks.ids.new(), slots=9)
    await world.do(again)
    changed = msgspec.structs.replace(again, providers=one.providers[:1])
    await world.do(changed)
    await world.reaches(lambda: len(world.heard) >= 2)
    assert [len(event.providers) for event in world.heard] == [2, 1]


async def test_an_unknown_mover_is_told_to_register(world, engine, asks):
    with pytest.raises(Refused) as refused:
        await world.claim(asks.mover(), wait_s=0)
    assert (refused.value.problem.code, refused.value.problem.field) == (Code.NOT_FOUND, "mover_id")


async def test_work_that_nobody_reaches_waits_with_its_reason_for_a_mover_that_does(
    world, mover, asks
):
    ask_ = asks.restore(asks.s3(), asks.pool(zone_id=asks.ids.new(), host="h2"))
    transfer_id = await world.request(ask_)
    view = await world.until(transfer_id, "queued")
    assert (view.problem.code, view.strategy) == (Code.NO_MOVER, "")
    assert "lacks label path-host:h2" in view.bids[0].reason
    assert await world.claim(mover, wait_s=0.4) == ()
    able = asks.mover(labels={"path-host": "h2"})
    await world.do(able)
    (grant,) = await world.claim(able)
    assert grant.ask.transfer_id == transfer_id
    assert (await world.see(transfer_id)).problem is None
    assert await world.claim(mover, wait_s=0) == ()


async def test_a_mover_gets_no_more_than_its_free_slots_and_slots(world, engine, asks):
    mover = asks.mover(slots=3)
    await world.do(mover)
    for _ in range(5):
        last = await world.request(asks.download(asks.s3()))
    await world.until(last, "queued")
    assert len(await world.claim(mover, free_slots=2)) == 2
    assert len(await world.claim(mover, free_slots=8)) == 1
    assert await world.claim(mover, free_slots=8, wait_s=0.3) == ()
    listed = await world.do(ListMovers(actor=ADMIN))
    assert [(one.mover_id, one.running, one.alive) for one in listed.items] == [
        (mover.mover_id, 3, True)
    ]


async def test_only_an_administrator_sees_the_movers(world, engine, asks):
    with pytest.raises(Refused, match="forbidden"):
        await world.do(ListMovers(actor=Actor(account_id=asks.ids.new(), role=Role.USER)))


# --- credentials ----------------------------------------------------------------------------------


async def test_a_silent_registry_costs_no_attempt_and_gives_no_work(world, mover, asks):
    world.registry_silent = True
    transfer_id = await world.request(asks.download(asks.s3(), attempts_max=1))
    assert await world.claim(mover, wait_s=1.5) == ()
    view = await world.see(transfer_id)
    assert (view.state, view.attempts) == ("queued", 0)
    assert view.epoch >= 1
    world.registry_silent = False
    (grant,) = await world.claim(mover)
    assert grant.attempt == 1


async def test_a_store_the_registry_refuses_fails_its_transfer_and_no_other(world, mover, asks):
    bad, good = asks.s3(), asks.s3()
    problem = Problem(code=Code.NOT_FOUND, message="no such store", field="store_ids")
    world.refuses[bad.store_id] = problem
    lost = await world.request(asks.download(bad))
    fine = await world.request(asks.download(good))
    await world.until(fine, "queued")
    assert [one.ask.transfer_id for one in await world.claim(mover)] == [fine]
    event = await world.event_about(lost, TransferFailed)
    assert (event.state, event.problem) == ("failed", problem)


# --- cancelling -----------------------------------------------------------------------------------


async def test_waiting_work_is_cancelled_by_an_event(world, engine, asks):
    transfer_id = await world.request(asks.download(asks.s3()))
    await world.tell(MotionCancelled(transfer_id=transfer_id, reason="job failed"), times=2)
    event = await world.event_about(transfer_id, TransferFailed)
    assert (event.state, event.problem.code) == ("cancelled", Code.CANCELLED)
    assert event.problem.message == "job failed"


async def test_a_cancellation_before_its_request_stops_the_request(world, mover, asks):
    one = asks.download(asks.s3())
    await world.tell(MotionCancelled(transfer_id=one.transfer_id, reason="changed my mind"))
    await world.request(one)
    event = await world.event_about(one.transfer_id, TransferFailed)
    assert event.state == "cancelled"
    assert await world.claim(mover, wait_s=0.3) == ()


async def test_a_holder_learns_of_a_cancellation_at_its_renewal(world, mover, asks):
    one = asks.download(asks.s3())
    await world.request(one)
    await world.claim(mover)
    owner = Actor(account_id=one.account_id, role=Role.USER)
    await world.do(CancelTransfer(actor=owner, transfer_id=one.transfer_id))
    assert (await world.do(RenewLease(transfer_id=one.transfer_id, epoch=1))).cancel is True
    stop = Problem(code=Code.CANCELLED, message="stopped")
    await world.do(FinishWork(transfer_id=one.transfer_id, epoch=1, problem=stop))
    assert (await world.event_about(one.transfer_id, TransferFailed)).state == "cancelled"


# --- people ---------------------------------------------------------------------------------------


async def test_a_user_sees_the_own_transfers_and_an_administrator_all(world, engine, asks):
    mine, theirs = (asks.download(asks.s3()) for _ in range(2))
    for one in (mine, theirs):
        await world.request(one)
    await world.until(theirs.transfer_id, "queued")
    me = Actor(account_id=mine.account_id, role=Role.USER)
    listed = await world.do(ListTransfers(actor=me))
    assert [one.transfer_id for one in listed.items] == [mine.transfer_id]
    everything = await world.do(ListTransfers(actor=ADMIN))
    assert [one.transfer_id for one in everything.items] == [theirs.transfer_id, mine.transfer_id]
    page = await world.do(ListTransfers(actor=ADMIN, before=theirs.transfer_id, limit=1))
    assert [one.transfer_id for one in page.items] == [mine.transfer_id]
    of_job = await world.do(ListTransfers(actor=ADMIN, job_id=mine.job_id))
    assert [one.transfer_id for one in of_job.items] == [mine.transfer_id]
    assert (await world.do(ListTransfers(actor=me, job_id=theirs.job_id))).items == ()
    for command in (GetTransfer, CancelTransfer):
        with pytest.raises(Refused) as refused:
            await world.do(command(actor=me, transfer_id=theirs.transfer_id))
        assert refused.value.problem.code == Code.NOT_FOUND
    assert (await world.see(theirs.transfer_id)).state == "queued"


async def test_an_end_must_be_a_result_or_a_problem(world, mover, asks):
    transfer_id = await world.request(asks.download(asks.s3()))
    await world.claim(mover)
    for both in ({}, {"result": copied(1), "problem": HARD}):
        with pytest.raises(Refused) as refused:
            await world.do(FinishWork(transfer_id=transfer_id, epoch=1, **both))
        assert (refused.value.problem.code, refused.value.problem.field) == (Code.INVALID, "result")


# --- surviving ------------------------------------------------------------------------------------


async def test_an_engine_that_was_away_finds_the_requests_of_that_time(world, asks):
    mover = asks.mover()
    async with world.engine():
        await world.do(mover)
    transfer_id = await world.request(asks.download(asks.s3()))
    async with world.engine():
        (grant,) = await world.claim(mover)
        assert grant.ask.transfer_id == transfer_id


async def test_leaving_answers_the_waiting_movers_before_it_goes(world, asks):
    mover = asks.mover()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(world.engine())
        await world.do(mover)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(world.claim(mover, wait_s=10))
            await asyncio.sleep(0.3)
            await stack.aclose()
        assert waiting.result() == ()
    with pytest.raises(Unanswered):
        await world.do(mover, timeout_s=0.3)


async def test_an_event_that_makes_no_sense_is_parked_and_holds_up_nothing(
    world, mover, asks, database_url
):
    subject = f"evt.registry.motion.{asks.ids.new()}.requested"
    body = b'{"type":"registry.motion.requested.v9"}'
    await world.client.publish_events([OutboxEvent(msg_id="odd", subject=subject, data=body)])
    transfer_id = await world.request(asks.download(asks.s3()))
    assert [one.ask.transfer_id for one in await world.claim(mover)] == [transfer_id]
    connection = await asyncpg.connect(database_url, server_settings={"search_path": SCHEMA})
    try:
        assert (
            await connection.fetchval("SELECT body FROM dead_letter WHERE msg_id = 'odd'") == body
        )
    finally:
        await connection.close()


async def test_measured_rates_enter_the_next_bid(world, mover, asks):
    store = asks.s3()
    first = await world.request(asks.download(store))
    await world.claim(mover)
    await world.do(FinishWork(transfer_id=first, epoch=1, result=copied(1 << 30)))
    second = await world.request(asks.download(store))
    view = await world.until(second, "queued")
    assert "measured for url->s3" in view.bids[0].reason


async def test_load_samples_tell_the_queue_and_the_movers_of_each_zone(world, engine, asks):
    samples = []

    async def hear(sample):
        samples.append(sample)

    zone = asks.ids.new()
    mover = asks.mover(zone_ids=(zone,), slots=7)
    async with world.client.listen(telemetry_of(LoadSample).subject, LoadSample, hear):
        await world.do(mover)
        await world.request(asks.restore(asks.s3(), asks.pool(zone_id=zone), size_bytes=1000))
        await world.reaches(lambda: any(one.by_class for one in samples))
    sample = next(one for one in samples if one.by_class)
    (load,) = sample.by_class
    assert (sample.zone_id, load.queued_n, load.queued_bytes, load.unknown_n) == (zone, 1, 1000, 0)
    assert sum(bucket.bytes for bucket in load.due) == 1000
    assert [(one.mover_id, one.slots, one.running) for one in sample.workers] == [
        (mover.mover_id, 7, 0)
    ]
    assert [one.seq for one in samples] == sorted(one.seq for one in samples)


def test_delays_double_differ_and_end_at_the_cap():
    delays = [retry_delay_s(Policy(), transfer_id="t", attempts=n) for n in range(1, 40)]
    for number, delay_s in enumerate(delays):
        assert min(600, 5 * 2**number * 0.5) <= delay_s <= min(600, 5 * 2**number * 1.5)
    assert len({retry_delay_s(Policy(), transfer_id=str(n), attempts=1) for n in range(9)}) == 9
