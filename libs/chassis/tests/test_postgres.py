import asyncio
from datetime import UTC, datetime
from enum import StrEnum
from typing import ClassVar

import pytest
from msgspec import Struct

from entrepot_chassis import logs, postgres
from entrepot_chassis.pg_sessions import PgHint
from entrepot_chassis.ports import DatabaseUnavailable, Row, Table, TransactionConflict


class State(StrEnum):
    A = "a"
    B = "b"


class Inner(Struct, frozen=True, kw_only=True):
    size_bytes: int
    at: datetime
    raw: bytes


class Thing(Row, kw_only=True):
    TABLE: ClassVar[Table] = Table(name="thing", key="id")

    id: str
    n: int = 0
    state: State = State.A
    inner_part: Inner | None = None
    tags: tuple[str, ...] = ()
    blob: bytes = b""
    at: datetime | None = None
    note: str | None = None


class Happened(Struct, frozen=True, kw_only=True, tag="t.happened.v1"):
    n: int


NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
FULL = Thing(
    id="x",
    n=2**40,
    state=State.B,
    inner_part=Inner(size_bytes=1, at=NOW, raw=b"\x00\xff"),
    tags=("a", "b"),
    blob=b"\x00\x01",
    at=NOW,
    note="ü",
)


async def test_a_row_comes_back_as_it_was_put(database):
    async with database.transaction() as tx:
        await tx.put(FULL)
        assert await tx.get(Thing, "x", lock=True) == FULL
        await tx.put(Thing(id="x"))
        assert await tx.get(Thing, "x") == Thing(id="x")
        await tx.remove(Thing, "x")
        assert await tx.get(Thing, "x") is None


async def test_add_refuses_a_taken_key_and_a_taken_unique_column(database):
    async with database.transaction() as tx:
        assert await tx.add(Thing(id="a", note="n"))
        assert not await tx.add(Thing(id="a"))
        assert not await tx.add(Thing(id="b", note="n"))
        assert await tx.add(Thing(id="b", note="m"))


async def test_find_filters_orders_and_pages(database):
    async with database.transaction() as tx:
        for number, name in enumerate("dbcae"):
            await tx.put(Thing(id=name, n=number, state=State.B if number % 2 else State.A))

        async def ids(**options) -> str:
            return "".join(thing.id for thing in await tx.find(Thing, **options))

        assert await ids() == "abcde"
        assert await ids(descending=True, limit=2) == "ed"
        assert await ids(after="b", limit=2) == "cd"
        assert await ids(after="d", descending=True) == "cba"
        assert await ids(where={"state": State.B}) == "ab"
        assert await ids(where={"id": {"a", "c", "z"}, "state": [State.A, State.B]}) == "ac"
        assert await ids(where={"id": ()}) == ""
        assert await ids(where={"at": None}, lock=True) == "abcde"
        with pytest.raises(AssertionError):
            await ids(where={"id; DROP TABLE thing": 1})


async def test_a_block_that_raises_leaves_nothing(database):
    with pytest.raises(KeyError):
        async with database.transaction() as tx:
            await tx.put(FULL)
            await tx.emit("a", "evt.t.a", Happened(n=1))
            raise KeyError
    async with database.transaction() as tx:
        assert await tx.get(Thing, "x") is None
    assert await database.events.unpublished(10) == []


async def test_versions_of_an_aggregate_have_no_gap_under_concurrency(database):
    async def emit(number: int) -> None:
        async with database.transaction() as tx:
            await tx.emit(f"agg-{number % 2}", "evt.t.x", Happened(n=number))
            await asyncio.sleep(0.001)
            if number % 5 == 0:
                raise KeyError

    await asyncio.gather(*(emit(number) for number in range(60)), return_exceptions=True)
    events = [event for _, event in await database.events.unpublished(100)]
    for aggregate in ("agg-0", "agg-1"):
        ids = [event.msg_id for event in events if f":{aggregate}:" in event.msg_id]
        assert ids == [f"svc:{aggregate}:{version}" for version in range(1, 25)]


async def test_an_event_carries_its_trace_and_its_exact_body(database):
    with logs.bind(corr="c", cause="m"):
        async with database.transaction() as tx:
            await tx.emit("a", "evt.t.a", Happened(n=1))
    [(number, event)] = await database.events.unpublished(10)
    assert (event.subject, event.data) == ("evt.t.a", b'{"type":"t.happened.v1","n":1}')
    assert event.headers["x-corr"] == "c"
    assert event.headers["x-cause"] == "m"
    assert event.headers["ce-id"] == event.msg_id == "svc:a:1"
    assert event.headers["ce-type"] == "t.happened.v1"
    await database.events.mark_published([number])
    assert await database.events.unpublished(10) == []
    assert await database.events.unpublish_since(3600) == 1
    assert len(await database.events.unpublished(10)) == 1


async def test_a_message_is_seen_first_only_once_and_only_if_committed(database):
    with pytest.raises(KeyError):
        async with database.transaction() as tx:
            assert await tx.first_sight("c", "m")
            raise KeyError
    async with database.transaction() as tx:
        assert await tx.first_sight("c", "m")
    async with database.transaction() as tx:
        assert not await tx.first_sight("c", "m")
        assert await tx.first_sight("other", "m")


async def test_a_deadlock_is_a_conflict_that_can_be_tried_again(database):
    async with database.transaction() as tx:
        await tx.put(Thing(id="a"))
        await tx.put(Thing(id="b"))
    both = asyncio.Barrier(2)

    async def lock(first: str, second: str) -> None:
        async with database.transaction() as tx:
            await tx.get(Thing, first, lock=True)
            await both.wait()
            await tx.get(Thing, second, lock=True)

    results = await asyncio.gather(lock("a", "b"), lock("b", "a"), return_exceptions=True)
    assert sorted(type(result) for result in results if result) == [TransactionConflict]


async def test_a_commit_under_way_is_not_cancelled(database, eventually):
    """A deferred constraint makes COMMIT wait for a lock; the cancel comes while it waits."""
    async with database.transaction() as tx:
        await tx.connection.execute(
            "ALTER TABLE thing ADD CONSTRAINT thing_n_once UNIQUE (n) DEFERRABLE INITIALLY DEFERRED"
        )
    blocked = asyncio.Event()

    async def second() -> None:
        async with database.transaction() as tx:
            await tx.put(Thing(id="mine", n=1))
            blocked.set()

    with pytest.raises(KeyError):
        async with database.transaction() as tx:
            await tx.put(Thing(id="theirs", n=1))
            waiting = asyncio.ensure_future(second())
            await blocked.wait()

            async def it_waits() -> bool:
                return await tx.connection.fetchval(
                    "SELECT count(*) > 0 FROM pg_stat_activity"
                    " WHERE query = 'COMMIT;' AND wait_event_type = 'Lock'"
                )

            await eventually(it_waits)
            waiting.cancel()
            await asyncio.sleep(0.05)
            assert not waiting.done()
            raise KeyError
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with database.transaction() as tx:
        assert await tx.get(Thing, "mine") is not None


async def test_the_pool_recovers_from_a_kill_of_the_server(own_postgres):
    own_postgres.ensure_database("e")
    url = own_postgres.dsn(database="e")
    await postgres.Migrations(package="entrepot_testkit", schema="svc").apply(url)
    async with postgres.open_database(url, service="svc", schema="svc", patience_s=15) as database:

        async def emit(number: int) -> None:
            async with database.transaction() as tx:
                await tx.emit("a", "evt.t.a", Happened(n=number))

        await asyncio.gather(*(emit(number) for number in range(8)))  # a full pool
        own_postgres.kill()
        own_postgres.start()
        await asyncio.gather(*(emit(number) for number in range(8)))
        assert len(await database.events.unpublished(100)) == 16


async def test_a_server_that_is_away_is_told_by_type_in_every_place(own_postgres):
    own_postgres.ensure_database("e")
    url = own_postgres.dsn(database="e")
    await postgres.Migrations(package="entrepot_testkit", schema="svc").apply(url)
    async with postgres.open_database(url, service="svc", schema="svc", patience_s=0.3) as database:
        with pytest.raises(DatabaseUnavailable):
            async with database.transaction() as tx:
                await tx.now()
                own_postgres.kill()
                await tx.now()
        with pytest.raises(DatabaseUnavailable):
            async with database.transaction():
                pass
        with pytest.raises(Exception, match=r".*"):
            await database.ping()
        own_postgres.start()
        async with database.transaction() as tx:
            await tx.emit("a", "evt.t.a", Happened(n=1))
        with pytest.raises(DatabaseUnavailable):
            async with database.transaction() as tx:
                await tx.emit("a", "evt.t.a", Happened(n=2))
                own_postgres.kill()
        own_postgres.start()
        assert len(await database.events.unpublished(10)) == 1


async def test_an_error_of_the_block_itself_is_not_taken_for_a_lost_database(database):
    with pytest.raises(FileNotFoundError):
        async with database.transaction():
            raise FileNotFoundError


async def test_an_advisory_lock_has_one_holder_and_ends_with_its_session(database, eventually):
    order = []

    async def second() -> None:
        async with database.advisory_lock("l") as held:
            order.append(("second", held()))

    async with asyncio.TaskGroup() as group:
        async with database.advisory_lock("l") as held:
            waiting = group.create_task(second())
            await asyncio.sleep(0.1)
            order.append(("first", held()))
            async with database.transaction() as tx:
                await tx.connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
                    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
                )
            await eventually(lambda: not held())
        await waiting
    assert order == [("first", True), ("second", True)]


async def test_a_notification_is_heard_also_after_its_session_was_lost(database, eventually):
    rung = 0

    async with database.event_hint() as hint:

        async def count() -> None:
            nonlocal rung
            while True:
                await hint.wait(3600)
                rung += 1

        counting = asyncio.ensure_future(count())
        await eventually(lambda: rung == 1)  # it listens
        async with database.transaction() as tx:
            await tx.emit("a", "evt.t.a", Happened(n=1))
        await eventually(lambda: rung == 2)
        async with database.transaction() as tx:
            await tx.connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE query LIKE 'LISTEN%' AND datname = current_database()"
            )
        await eventually(lambda: rung == 3)  # it listens again
        async with database.transaction() as tx:
            await tx.emit("a", "evt.t.a", Happened(n=2))
        await eventually(lambda: rung == 4)
        counting.cancel()


async def test_a_hint_that_comes_with_a_cancel_does_not_swallow_it():
    async def forever(hint):
        while True:
            await hint.wait(3600)

    for turns in range(5):
        hint = PgHint()
        waiting = asyncio.ensure_future(forever(hint))
        await asyncio.sleep(0.01)
        hint.ring()
        for _ in range(turns):
            await asyncio.sleep(0)
        waiting.cancel()
        for _ in range(20):
            await asyncio.sleep(0)
        assert waiting.cancelled()


async def test_a_cancel_while_it_begins_leaves_a_clean_connection(database, caplog):
    for turns in range(12):
        beginning = asyncio.ensure_future(database.events.unpublished(1))
        for _ in range(turns):
            await asyncio.sleep(0)
        beginning.cancel()
        await asyncio.wait({beginning})
    assert await database.events.unpublished(1) == []
    assert "active transaction" not in caplog.text
