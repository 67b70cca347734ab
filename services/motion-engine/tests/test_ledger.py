"""What every Ledger promises, over PostgreSQL and over memory."""

from datetime import timedelta

import pytest
from msgspec.structs import replace

from entrepot_contracts.errors import Code, Problem
from entrepot_contracts.values import WorkClass
from entrepot_testkit.motion_asks import copied, part
from motion_engine.dispatch import Full
from motion_engine.ledger import NotHeld, Progress
from motion_engine.machine import step
from motion_engine.planner import new_transfer
from motion_engine.stimuli import (
    CancelAsked,
    Claimed,
    Evicted,
    Faltered,
    Released,
    RetryDue,
    Succeeded,
    Unplannable,
)

GONE = -1.0  # a lease that has run out the moment it is given


@pytest.fixture
def mover(asks):
    return {"mover_id": asks.ids.new(), "boot_id": asks.ids.new()}


@pytest.fixture
def other(asks):
    return {"mover_id": asks.ids.new(), "boot_id": asks.ids.new()}


@pytest.fixture
async def queued(desk, asks):
    return await desk.queue(asks.download(asks.s3()))


async def checkpoint(desk, transfer_id, epoch, **progress):
    given = {"key": "k", "resume": "up-1"} | progress
    async with desk.tx() as tx:
        await desk.ledger.checkpoint(tx, transfer_id, epoch, Progress(**given))


async def parts_of(desk, transfer_id):
    async with desk.tx() as tx:
        return (await desk.ledger.parts(tx, [transfer_id])).get(transfer_id, ())


async def renew(desk, transfer_id, epoch, lease_s=30.0):
    async with desk.tx() as tx:
        return await desk.ledger.renew(tx, transfer_id, epoch, lease_s=lease_s)


async def held(desk):
    async with desk.tx() as tx:
        return list(await desk.ledger.held(tx))


async def due(desk):
    async with desk.tx() as tx:
        return list(await desk.ledger.due(tx, limit=10))


# --- enqueue ------------------------------------------------------------------------------------


async def test_a_transfer_comes_back_as_it_was_enqueued(desk, asks):
    ask = asks.restore(asks.s3(), asks.pool(zone_id=asks.ids.new()), work_class=WorkClass.BATCH)
    async with desk.tx() as tx:
        transfer = new_transfer(ask, now=await tx.now())
        await desk.ledger.enqueue(tx, transfer)
    assert await desk.get(ask.transfer_id) == transfer


async def test_an_ask_enqueued_twice_is_one(desk, asks, queued, mover):
    await desk.claim(queued, **mover)
    before = await desk.get(queued)
    async with desk.tx() as tx:
        again = new_transfer(before.ask, now=await tx.now())
        assert await desk.ledger.enqueue(tx, again) is False
    assert await desk.get(queued) == before


# --- ready --------------------------------------------------------------------------------------


async def test_only_queued_planned_work_is_ready(desk, asks, queued, mover):
    await desk.queue(asks.download(asks.s3()), strategy="")
    assert await desk.ready() == [queued]
    await desk.claim(queued, **mover)
    assert await desk.ready() == []


async def test_work_is_ready_only_for_a_mover_that_offers_what_it_needs(desk, asks):
    needs = ("label:path-host:local", "provider:file")
    here, there = asks.ids.new(), asks.ids.new()
    one = await desk.queue(asks.download(asks.s3()), needs=needs, zones=(here,))
    assert await desk.ready(has=("provider:file",), zones=(here,)) == []
    assert await desk.ready(has=needs, zones=(there,)) == []
    assert await desk.ready(has=needs, zones=(here, there)) == [one]
    assert await desk.ready(has=(*needs, "provider:s3"), zones=()) == [one]


async def test_ready_shows_the_first_of_every_account_and_class_however_long_one_line_is(
    desk, asks
):
    crowd, lone = asks.ids.new(), asks.ids.new()
    store = asks.s3()
    first = [await desk.queue(asks.download(store, account_id=crowd)) for _ in range(6)]
    batch = await desk.queue(asks.download(store, account_id=crowd, work_class=WorkClass.BATCH))
    other = await desk.queue(asks.download(store, account_id=lone))
    found = await desk.ready(per_account=2)
    assert set(found) == {*first[:2], batch, other}


async def test_a_due_time_goes_before_age(desk, asks):
    account, store = asks.ids.new(), asks.s3()
    old = await desk.queue(asks.download(store, account_id=account))
    async with desk.tx() as tx:
        soon = await tx.now() + timedelta(seconds=1)
    urgent = await desk.queue(asks.download(store, account_id=account, due_at=soon))
    assert await desk.ready(per_account=1) == [urgent]
    assert await desk.ready(per_account=2) == [urgent, old]


async def test_what_is_full_is_left_out_and_hides_nothing_behind_it(desk, asks):
    account, full, free = asks.ids.new(), asks.s3(), asks.s3(zone_id=asks.ids.new())
    blocked = await desk.queue(asks.download(full, account_id=account))
    behind = await desk.queue(asks.download(free, account_id=account))
    stores = Full(stores=frozenset({full.store_id}))
    assert await desk.ready(full=stores, per_account=1) == [behind]
    zones = Full(zones=frozenset({free.zone_id}))
    assert await desk.ready(full=zones, per_account=5) == [blocked]
    assert await desk.ready(full=Full(accounts=frozenset({account}))) == []


async def test_an_expired_lease_is_ready_at_once_and_a_live_one_is_not(desk, asks, mover):
    live = await desk.queue(asks.download(asks.s3()))
    dead = await desk.queue(asks.download(asks.s3()))
    await desk.claim(live, **mover)
    await desk.claim(dead, **mover, lease_s=GONE)
    assert await desk.ready() == [dead]
    assert len(await held(desk)) == 1


# --- claim --------------------------------------------------------------------------------------


async def test_a_claim_does_what_the_machine_says(desk, queued, mover):
    before = await desk.get(queued)
    (claimed,) = await desk.claim(queued, **mover)
    told, _ = step(before, Claimed(now=claimed.claimed_at, lease_s=30.0, **mover))
    assert claimed == replace(told, lease_until=claimed.lease_until)
    assert abs(claimed.lease_until - told.lease_until) < timedelta(seconds=1)
    assert await desk.get(queued) == claimed


async def test_a_takeover_gets_a_new_epoch_and_counts(desk, queued, mover, other):
    await desk.claim(queued, **mover, lease_s=GONE)
    (second,) = await desk.claim(queued, **other)
    assert (second.epoch, second.attempts, second.mover_id) == (2, 2, other["mover_id"])


async def test_what_cannot_be_claimed_is_left_out_of_the_answer(desk, asks, mover):
    held_now = await desk.queue(asks.download(asks.s3()))
    await desk.claim(held_now, **mover)
    ended = await desk.queue(asks.download(asks.s3()))
    async with desk.tx() as tx:
        now = await tx.now()
    await desk.apply(ended, CancelAsked(reason="", now=now))
    spent = await desk.queue(asks.download(asks.s3(), attempts_max=1))
    await desk.claim(spent, **mover, lease_s=GONE)
    unplanned = await desk.queue(asks.download(asks.s3()), strategy="")
    asked = await desk.queue(asks.download(asks.s3()))
    await desk.claim(asked, **mover, lease_s=GONE)
    await desk.apply(asked, CancelAsked(reason="", now=now))
    free = [await desk.queue(asks.download(asks.s3())) for _ in range(2)]
    wanted = [held_now, free[1], ended, spent, unplanned, asked, free[0], asks.ids.new()]
    claimed = await desk.claim(*wanted, **mover)
    assert [one.transfer_id for one in claimed] == [free[1], free[0]]


# --- holders ------------------------------------------------------------------------------------


async def test_a_renewal_moves_the_lease_and_tells_of_a_cancellation(desk, queued, mover):
    await desk.claim(queued, **mover, lease_s=GONE)
    assert await renew(desk, queued, 1) is False
    assert await desk.ready() == []
    async with desk.tx() as tx:
        now = await tx.now()
    await desk.apply(queued, CancelAsked(reason="", now=now))
    assert await renew(desk, queued, 1) is True


async def test_a_zombie_with_an_old_epoch_changes_nothing(desk, queued, mover, other):
    await desk.claim(queued, **mover, lease_s=GONE)
    await checkpoint(desk, queued, 1, parts=(part(1),))
    await desk.claim(queued, **other)
    before, parts = await desk.get(queued), await parts_of(desk, queued)
    with pytest.raises(NotHeld):
        await renew(desk, queued, 1)
    with pytest.raises(NotHeld):
        await checkpoint(desk, queued, 1, parts=(part(1, receipt="evil"), part(2)), bytes_done=9)
    assert (await desk.get(queued), await parts_of(desk, queued)) == (before, parts)


@pytest.mark.parametrize("away", ["released", "evicted", "done", "never"])
async def test_whoever_holds_nothing_is_refused_under_the_right_epoch_too(
    desk, queued, mover, away
):
    async with desk.tx() as tx:
        now = await tx.now()
    epoch = 0 if away == "never" else 1
    if away != "never":
        await desk.claim(queued, **mover)
        stimulus = {
            "released": Released(epoch=1, now=now),
            "evicted": Evicted(boot_id=mover["boot_id"], now=now),
            "done": Succeeded(epoch=1, result=copied(1), now=now),
        }[away]
        await desk.apply(queued, stimulus)
    before = await desk.get(queued)
    with pytest.raises(NotHeld):
        await renew(desk, queued, epoch)
    with pytest.raises(NotHeld):
        await checkpoint(desk, queued, epoch, parts=(part(1),))
    assert await desk.get(queued) == before
    assert await parts_of(desk, queued) == ()


# --- checkpoints --------------------------------------------------------------------------------


async def test_parts_come_back_in_order_with_progress_and_merged_facts(desk, queued, mover):
    await desk.claim(queued, **mover)
    await checkpoint(
        desk, queued, 1, parts=(part(2), part(1)), bytes_done=5, facts={"a": 1, "b": 1}
    )
    await checkpoint(
        desk, queued, 1, parts=(part(3),), bytes_done=9, bytes_total=99, facts={"b": 2}
    )
    await checkpoint(desk, queued, 1, bytes_done=9)
    assert await parts_of(desk, queued) == (part(1), part(2), part(3))
    one = await desk.get(queued)
    assert (one.upload_key, one.resume, one.facts) == ("k", "up-1", {"a": 1, "b": 2})
    assert (one.bytes_done, one.bytes_total, one.parts_done, one.bytes_resent) == (9, 99, 3, 0)


async def test_the_same_checkpoint_twice_is_once(desk, queued, mover):
    await desk.claim(queued, **mover)
    for _ in range(2):
        await checkpoint(desk, queued, 1, parts=(part(1), part(1)), bytes_done=5)
    one = await desk.get(queued)
    assert (one.parts_done, one.bytes_resent) == (1, 0)


async def test_a_part_sent_again_is_counted(desk, queued, mover):
    await desk.claim(queued, **mover, lease_s=GONE)
    await checkpoint(desk, queued, 1, parts=(part(1), part(2, length=7)))
    await checkpoint(desk, queued, 1, parts=(part(2, length=7, receipt="new"),))
    assert (await desk.get(queued)).bytes_resent == 7
    await desk.claim(queued, **mover)
    await checkpoint(desk, queued, 2, parts=(part(1), part(3)))
    assert (await desk.get(queued)).bytes_resent == 7 + (16 << 20)
    assert len(await parts_of(desk, queued)) == 3


async def test_another_upload_offers_nothing_of_the_one_before(desk, queued, mover):
    await desk.claim(queued, **mover, lease_s=GONE)
    await checkpoint(desk, queued, 1, parts=(part(1), part(2)), facts={"etag": "old", "x": 1})
    await desk.claim(queued, **mover)
    await checkpoint(desk, queued, 2, key="k2", resume="up-2", facts={"etag": "new"})
    assert (await desk.get(queued)).facts == {"etag": "new"}
    assert await parts_of(desk, queued) == ()
    await checkpoint(desk, queued, 2, key="k2", resume="up-2", parts=(part(1),))
    assert await parts_of(desk, queued) == (part(1),)
    one = await desk.get(queued)
    assert (one.parts_done, one.bytes_resent) == (1, 16 << 20)


async def test_a_note_without_an_upload_keeps_the_upload(desk, queued, mover):
    await desk.claim(queued, **mover)
    await checkpoint(desk, queued, 1, parts=(part(1),))
    await checkpoint(desk, queued, 1, key="", resume=None, facts={"phase": "verifying"})
    one = await desk.get(queued)
    assert (one.upload_key, one.resume) == ("k", "up-1")
    assert await parts_of(desk, queued) == (part(1),)


# --- transitions --------------------------------------------------------------------------------


async def test_a_transition_is_saved_with_its_line_of_history(desk, queued, mover):
    await desk.claim(queued, **mover)
    async with desk.tx() as tx:
        now = await tx.now()
    problem = Problem(code=Code.STORE_ERROR, message="503", retryable=True)
    await desk.apply(queued, Faltered(epoch=1, problem=problem, now=now, delay_s=1), why="503")
    one = await desk.get(queued)
    assert (one.state, one.problem, one.mover_id) == ("retry_wait", problem, None)
    async with desk.tx() as tx:
        story = await desk.ledger.story(tx, queued)
    assert [line.split(": ", 1)[1] for line in story] == [
        "queued -> queued (planned)",
        f"queued -> running (claimed by {mover['mover_id']})",
        "running -> retry_wait (503)",
    ]


async def test_a_result_and_its_end_survive(desk, queued, mover):
    await desk.claim(queued, **mover)
    async with desk.tx() as tx:
        now = await tx.now()
    await desk.apply(queued, Succeeded(epoch=1, result=copied(77), now=now))
    one = await desk.get(queued)
    assert (one.state, one.result, one.finished_at) == ("done", copied(77), now)


async def test_a_save_over_a_changed_transfer_is_refused(desk, queued, mover):
    before = await desk.get(queued)
    await desk.claim(queued, **mover)
    async with desk.tx() as tx:
        now = await tx.now()
    cancelled, _ = step(before, CancelAsked(reason="", now=now))
    with pytest.raises(NotHeld):
        async with desk.tx() as tx:
            await desk.ledger.save(tx, cancelled, before=before, why="late")
    assert (await desk.get(queued)).state == "running"


async def test_a_transition_leaves_progress_alone(desk, queued, mover):
    (stale,) = await desk.claim(queued, **mover)
    await checkpoint(desk, queued, 1, parts=(part(1),), bytes_done=5)
    async with desk.tx() as tx:
        after, _ = step(stale, CancelAsked(reason="", now=await tx.now()))
        await desk.ledger.save(tx, after, before=stale, why="cancel")
    one = await desk.get(queued)
    assert (one.bytes_done, one.parts_done, one.cancel_requested) == (5, 1, True)


# --- sweeping and load --------------------------------------------------------------------------


async def test_due_names_ripe_retries_and_leases_that_nobody_may_take_over(desk, asks, mover):
    ids = [await desk.queue(asks.download(asks.s3(), attempts_max=2)) for _ in range(5)]
    ripe, unripe, spent, cancelled, open_again = ids
    async with desk.tx() as tx:
        now = await tx.now()
    problem = Problem(code=Code.STORE_ERROR, message="503", retryable=True)
    for one, delay_s in ((ripe, -1), (unripe, 60)):
        await desk.claim(one, **mover)
        await desk.apply(one, Faltered(epoch=1, problem=problem, now=now, delay_s=delay_s))
    for one, claims in ((spent, 2), (cancelled, 1), (open_again, 1)):
        for _ in range(claims):
            await desk.claim(one, **mover, lease_s=GONE)
    await desk.apply(cancelled, CancelAsked(reason="", now=now))
    assert set(await due(desk)) == {ripe, spent, cancelled}
    await desk.apply(ripe, RetryDue())
    assert set(await desk.ready()) == {ripe, open_again}


async def test_load_is_told_by_zone_class_and_due_time_with_unknown_sizes_apart(desk, asks, mover):
    zone = asks.ids.new()
    pool, images = asks.pool(zone_id=zone), asks.s3()
    async with desk.tx() as tx:
        due_at = await tx.now() + timedelta(seconds=100)
    known = {"size_bytes": 1000, "work_class": WorkClass.BATCH, "due_at": due_at}
    waiting = [await desk.queue(asks.restore(images, pool, **known)) for _ in range(2)]
    await desk.queue(asks.download(images))
    await desk.claim(waiting[0], **mover)
    await checkpoint(desk, waiting[0], 1, bytes_done=400)
    async with desk.tx() as tx:
        lines = await desk.ledger.load(tx)
    told = {
        (line.zone_id, line.work_class, line.held): (
            line.due_in_s, line.count, line.remaining_bytes, line.unknown_n,
        )
        for line in lines
    }  # fmt: skip
    assert told == {
        (zone, WorkClass.BATCH, False): (128.0, 1, 1000, 0),
        (zone, WorkClass.BATCH, True): (128.0, 1, 600, 0),
        (None, WorkClass.INTERACTIVE, False): (64.0, 1, 0, 1),
    }


async def test_ended_work_is_no_load(desk, queued):
    async with desk.tx() as tx:
        now = await tx.now()
    await desk.apply(queued, CancelAsked(reason="", now=now))
    async with desk.tx() as tx:
        assert list(await desk.ledger.load(tx)) == []


async def test_unplannable_work_keeps_its_reason(desk, asks):
    one = await desk.queue(asks.download(asks.s3()), strategy="")
    problem = Problem(code=Code.NO_MOVER, message="nobody", hint="start one", retryable=True)
    await desk.apply(one, Unplannable(bids=(), problem=problem))
    assert (await desk.get(one)).problem == problem
    assert await desk.ready() == []
