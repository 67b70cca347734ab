"""What only a real PostgreSQL can show: rival claimers, triggers, plans of queries."""

import asyncio
import random
from collections import Counter

import asyncpg
import pytest

from entrepot_testkit.motion_asks import copied
from motion_engine.dispatch import Caps, choose, full
from motion_engine.ledger import Holder, Reach
from motion_engine.stimuli import Succeeded

WIDE = Reach(has=(), zones=())


@pytest.fixture
async def plain(sql, database_url):
    """A connection past all of our code."""
    connection = await asyncpg.connect(
        database_url, server_settings={"search_path": "motion_engine"}
    )
    yield connection
    await connection.close()


@pytest.fixture
async def done(sql, asks):
    """The id of a finished transfer."""
    transfer_id = await sql.queue(asks.download(asks.s3()))
    await sql.claim(transfer_id, mover_id=asks.ids.new(), boot_id=asks.ids.new())
    async with sql.tx() as tx:
        now = await tx.now()
    await sql.apply(transfer_id, Succeeded(epoch=1, result=copied(1), now=now))
    return transfer_id


async def test_two_claims_never_share_an_epoch_however_many_claim_at_once(sql, asks, plain):
    """Expired leases and no lock around the round: SKIP LOCKED and the epoch alone must hold."""
    ids = [await sql.queue(asks.download(asks.s3(), attempts_max=20)) for _ in range(4)]
    movers = [(asks.ids.new(), asks.ids.new()) for _ in range(12)]
    got = []

    async def claimer(number):
        rng = random.Random(number)
        mover_id, boot_id = movers[number]
        while len(got) < 4 * 20:
            wanted = rng.sample(ids, len(ids))
            claimed = await sql.claim(*wanted, mover_id=mover_id, boot_id=boot_id, lease_s=-1)
            got.extend((one.transfer_id, one.epoch, one.mover_id) for one in claimed)

    async with asyncio.TaskGroup() as group:
        for number in range(len(movers)):
            group.create_task(claimer(number))
    assert len(got) == 4 * 20, "every attempt was claimed, none twice"
    assert len({(transfer_id, epoch) for transfer_id, epoch, _ in got}) == len(got)
    history = await plain.fetch(
        "SELECT transfer_id, epoch, why FROM transfer_history WHERE why LIKE 'claimed by %'"
    )
    told = {
        (row["transfer_id"], row["epoch"], row["why"].removeprefix("claimed by "))
        for row in history
    }
    assert told == set(got), "each claimer was told the epoch that the history names"


async def test_caps_hold_between_rivals_of_several_engines(sql, asks):
    """Every rival reaches other work of the account, so only the lock of the round is between."""
    account = asks.ids.new()
    for number in range(8):
        for _ in range(3):
            ask = asks.download(asks.s3(), account_id=account)
            await sql.queue(ask, needs=(f"provider:p{number}",))
    caps = Caps(account=3, store=99, zone=99)
    everybody_is_in = asyncio.Barrier(8)

    async def engine(number):
        mover_id, boot_id = asks.ids.new(), asks.ids.new()
        reach = Reach(has=(f"provider:p{number}",), zones=())
        async with sql.tx() as tx:
            await everybody_is_in.wait()
            held = await sql.ledger.held(tx)
            ready = await sql.ledger.ready(tx, reach, full=full(held, caps), per_account=5)
            choice = choose(ready, held, {}, mover_id=mover_id, slots=5, free_slots=5, caps=caps)
            holder = Holder(mover_id=mover_id, boot_id=boot_id, lease_s=30)
            return len(await sql.ledger.claim(tx, choice.transfer_ids, holder))

    granted = await asyncio.gather(*(engine(number) for number in range(8)))
    assert sum(granted) == 3, granted


async def test_a_transfer_being_claimed_is_skipped_and_not_waited_for(sql, asks):
    ids = [await sql.queue(asks.download(asks.s3())) for _ in range(2)]
    holders = [
        Holder(mover_id=asks.ids.new(), boot_id=asks.ids.new(), lease_s=30) for _ in range(2)
    ]
    async with sql.tx() as first:
        assert len(await sql.ledger.claim(first, ids[:1], holders[0])) == 1
        async with asyncio.timeout(10), sql.tx() as second:
            claimed = await sql.ledger.claim(second, ids, holders[1])
    assert [one.transfer_id for one in claimed] == ids[1:]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE transfer SET state = 'queued', finished_at = NULL",
        "UPDATE transfer SET epoch = epoch + 1",
        "UPDATE transfer SET bytes_done = 0",
        "DELETE FROM transfer",
    ],
)
async def test_a_finished_transfer_is_immutable_for_everybody(plain, done, change):
    before = await plain.fetchrow("SELECT * FROM transfer WHERE transfer_id = $1", done)
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await plain.execute(f"{change} WHERE transfer_id = '{done}'")
    assert await plain.fetchrow("SELECT * FROM transfer WHERE transfer_id = $1", done) == before


@pytest.mark.parametrize(
    "change", ["UPDATE transfer_history SET why = 'x'", "DELETE FROM transfer_history"]
)
async def test_history_is_append_only(plain, done, change):
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await plain.execute(change)


@pytest.mark.parametrize(
    "change",
    [
        "attempts = attempts_max + 1",
        "epoch = epoch - 1",
        "state = 'running'",
        "state = 'done'",
        "state = 'lost'",
    ],
)
async def test_the_database_refuses_states_that_cannot_be(sql, plain, asks, change):
    """Without holder, lease or end; with a falling epoch; with too many attempts."""
    transfer_id = await sql.queue(asks.download(asks.s3()))
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await plain.execute(f"UPDATE transfer SET {change} WHERE transfer_id = '{transfer_id}'")


async def test_history_is_numbered_without_gaps_and_follows_the_states(plain, done):
    rows = await plain.fetch("SELECT * FROM transfer_history ORDER BY n")
    assert [row["n"] for row in rows] == [1, 2, 3]
    assert [row["to_state"] for row in rows] == ["queued", "running", "done"]
    assert [row["from_state"] for row in rows[1:]] == [row["to_state"] for row in rows[:-1]]


async def test_the_cost_of_looking_for_work_does_not_grow_with_the_queue(sql, plain, asks):
    """The plan reads the first of each account from the index, not the whole line."""
    one = await sql.queue(asks.download(asks.s3()))
    await plain.execute(
        """
        INSERT INTO transfer (transfer_id, account_id, job_id, kind, work_class, ask, attempts_max,
                              created_at, order_at, state, strategy)
        SELECT gen_random_uuid()::text, 'account' || n % 10, job_id, kind, work_class, ask, 5,
               created_at, order_at + n * interval '1 second', 'queued', 'direct'
        FROM transfer, generate_series(1, 20000) n WHERE transfer_id = $1
        """,
        one,
    )
    await plain.execute("ANALYZE transfer")
    async with sql.tx() as tx:
        await tx.connection.execute("SET LOCAL track_io_timing = off")
        before = await tx.connection.fetchval(
            "SELECT idx_tup_fetch + seq_tup_read FROM pg_stat_xact_user_tables "
            "WHERE relname = 'transfer' AND schemaname = current_schema()"
        )
        found = await sql.ledger.ready(
            tx, WIDE, full=full((), Caps(account=9, store=9, zone=9)), per_account=4
        )
        after = await tx.connection.fetchval(
            "SELECT idx_tup_fetch + seq_tup_read FROM pg_stat_xact_user_tables "
            "WHERE relname = 'transfer' AND schemaname = current_schema()"
        )
    assert Counter(candidate.account_id for candidate in found).most_common(1)[0][1] == 4
    assert after - (before or 0) < 500, "rows read must follow accounts, not the queue"
