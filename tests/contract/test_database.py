"""What every Database promises: rows, locks, events, inbox, and nothing left of a rollback."""

import asyncio
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar

import pytest
from msgspec import Struct, json

from entrepot_chassis.ports import Row, Table, TransactionConflict

NOON = datetime(2030, 5, 17, 12, 0, 0, 123456, tzinfo=UTC)
SUBJECT = "evt.contract.thing.x.happened"


class Shade(StrEnum):
    RED = "red"
    GREEN = "green"


class Part(Struct, frozen=True, kw_only=True):
    number: int
    shade: Shade = Shade.RED


class Thing(Row, kw_only=True):
    TABLE: ClassVar[Table] = Table(name="thing", key="thing_id")
    thing_id: str
    name: str = ""
    shade: Shade = Shade.RED
    size: int = 0
    rate: float = 0.0
    live: bool = True
    at: datetime | None = None
    data: bytes = b""
    parts: tuple[Part, ...] = ()
    facts: dict[str, Any] = {}  # noqa: RUF012
    best: Part | None = None


class Token(Row, kw_only=True):
    TABLE: ClassVar[Table] = Table(name="token", key="token_id")
    token_id: str
    account_id: str
    token: str | None


class Happened(Struct, frozen=True, kw_only=True, tag="contract.happened.v1"):
    number: int


@pytest.fixture
async def database(databases):
    return await databases()


async def stored(database, kind, key):
    async with database.transaction() as tx:
        return await tx.get(kind, key)


async def put_things(database, *names: str) -> None:
    async with database.transaction() as tx:
        for name in names:
            await tx.put(Thing(thing_id=name))


# --- rows -------------------------------------------------------------------------------------


async def test_a_row_comes_back_as_it_was_put_whatever_its_columns(database):
    thing = Thing(
        thing_id="a",
        name='quotes " \\ and ü',
        shade=Shade.GREEN,
        size=1 << 46,
        rate=0.1,
        live=False,
        at=NOON,
        data=bytes(range(256)),
        parts=(Part(number=1), Part(number=2, shade=Shade.GREEN)),
        facts={"list": [1, "two", None], "nested": {"x": 1.5}},
        best=Part(number=3),
    )
    async with database.transaction() as tx:
        await tx.put(thing)
    assert await stored(database, Thing, "a") == thing
    assert await stored(database, Thing, "b") is None


async def test_empty_columns_come_back_empty(database):
    await put_things(database, "a")
    assert await stored(database, Thing, "a") == Thing(thing_id="a")


async def test_a_transaction_sees_its_own_writes_and_others_do_not_until_it_ends(databases):
    one, two = await databases(), await databases()
    async with one.transaction() as tx:
        await tx.put(Thing(thing_id="a", name="mine"))
        assert (await tx.get(Thing, "a")).name == "mine"
        assert [row.thing_id for row in await tx.find(Thing)] == ["a"]
        assert await stored(two, Thing, "a") is None
    assert (await stored(two, Thing, "a")).name == "mine"


async def test_changing_a_row_without_putting_it_changes_nothing(database):
    await put_things(database, "a")
    async with database.transaction() as tx:
        (await tx.get(Thing, "a")).name = "changed"
        assert (await tx.get(Thing, "a")).name == ""


async def test_put_replaces_and_remove_removes_and_removing_nothing_is_fine(database):
    await put_things(database, "a")
    async with database.transaction() as tx:
        await tx.put(Thing(thing_id="a", name="second"))
    assert (await stored(database, Thing, "a")).name == "second"
    async with database.transaction() as tx:
        await tx.remove(Thing, "a")
        await tx.remove(Thing, "never")
        assert await tx.get(Thing, "a") is None
    assert await stored(database, Thing, "a") is None


async def test_add_inserts_once_by_key(database):
    async with database.transaction() as tx:
        assert await tx.add(Thing(thing_id="a", name="first"))
        assert not await tx.add(Thing(thing_id="a", name="second"))
    async with database.transaction() as tx:
        assert not await tx.add(Thing(thing_id="a", name="third"))
    assert (await stored(database, Thing, "a")).name == "first"


async def test_add_inserts_once_by_unique_columns_and_nulls_are_never_equal(database):
    async with database.transaction() as tx:
        assert await tx.add(Token(token_id="1", account_id="a", token="t"))
    async with database.transaction() as tx:
        assert not await tx.add(Token(token_id="2", account_id="a", token="t"))
        assert await tx.add(Token(token_id="3", account_id="b", token="t"))
        assert await tx.add(Token(token_id="4", account_id="a", token=None))
        assert await tx.add(Token(token_id="5", account_id="a", token=None))
        assert [row.token_id for row in await tx.find(Token)] == ["1", "3", "4", "5"]


async def test_of_two_that_add_the_same_at_once_one_inserts(databases):
    async def adds(name: str) -> bool:
        database = await databases()
        async with database.transaction() as tx:
            added = await tx.add(Thing(thing_id="a", name=name))
            await asyncio.sleep(0.05)
            return added

    assert sorted(await asyncio.gather(adds("one"), adds("two"))) == [False, True]


# --- find ---------------------------------------------------------------------------------------


async def keys(database, **options) -> list[str]:
    async with database.transaction() as tx:
        return [row.thing_id for row in await tx.find(Thing, **options)]


async def test_find_orders_by_key_pages_after_and_limits(database):
    await put_things(database, "c", "a", "d", "b")
    assert await keys(database) == ["a", "b", "c", "d"]
    assert await keys(database, after="b") == ["c", "d"]
    assert await keys(database, after="aa", limit=1) == ["b"]
    assert await keys(database, descending=True) == ["d", "c", "b", "a"]
    assert await keys(database, descending=True, after="c", limit=1) == ["b"]
    assert await keys(database, limit=0) == []


async def test_find_by_columns_equal_one_of_and_null(database):
    async with database.transaction() as tx:
        await tx.put(Thing(thing_id="a", shade=Shade.RED, size=1, at=NOON))
        await tx.put(Thing(thing_id="b", shade=Shade.GREEN, size=2))
        await tx.put(Thing(thing_id="c", shade=Shade.GREEN, size=3, live=False))
    assert await keys(database, where={"shade": Shade.GREEN}) == ["b", "c"]
    assert await keys(database, where={"shade": Shade.GREEN, "size": 3}) == ["c"]
    assert await keys(database, where={"size": (1, 3)}) == ["a", "c"]
    assert await keys(database, where={"size": {2}}) == ["b"]
    assert await keys(database, where={"size": []}) == []
    assert await keys(database, where={"shade": [Shade.RED, Shade.GREEN]}) == ["a", "b", "c"]
    assert await keys(database, where={"at": None}) == ["b", "c"]
    assert await keys(database, where={"at": NOON}) == ["a"]
    assert await keys(database, where={"live": False}) == ["c"]


async def test_find_sees_own_writes_and_own_removals(database):
    await put_things(database, "a", "b")
    async with database.transaction() as tx:
        await tx.remove(Thing, "a")
        await tx.put(Thing(thing_id="c"))
        assert [row.thing_id for row in await tx.find(Thing)] == ["b", "c"]


# --- locks --------------------------------------------------------------------------------------


async def test_increments_under_lock_lose_no_update(databases):
    first = await databases()
    await put_things(first, "a")

    async def increments() -> None:
        database = await databases()
        for _turn in range(5):
            async with database.transaction() as tx:
                row = await tx.get(Thing, "a", lock=True)
                await asyncio.sleep(0.002)
                row.size += 1
                await tx.put(row)

    await asyncio.gather(*(increments() for _ in range(4)))
    assert (await stored(first, Thing, "a")).size == 20


async def test_who_waited_for_a_lock_reads_what_was_committed_meanwhile(databases):
    one, two = await databases(), await databases()
    await put_things(one, "a")
    locked = asyncio.Event()

    async def holder() -> None:
        async with one.transaction() as tx:
            row = await tx.get(Thing, "a", lock=True)
            locked.set()
            await asyncio.sleep(0.1)
            row.shade = Shade.GREEN
            await tx.put(row)

    async def waiter() -> list[str]:
        await locked.wait()
        async with two.transaction() as tx:
            return [r.thing_id for r in await tx.find(Thing, where={"shade": "red"}, lock=True)]

    _held, found = await asyncio.gather(holder(), waiter())
    assert found == []


async def test_a_plain_read_does_not_wait_for_a_lock(databases):
    one, two = await databases(), await databases()
    await put_things(one, "a")
    async with one.transaction() as tx:
        row = await tx.get(Thing, "a", lock=True)
        row.name = "not yet"
        await tx.put(row)
        async with asyncio.timeout(10):
            assert (await stored(two, Thing, "a")).name == ""


async def test_a_lock_ends_with_a_rollback(databases):
    one, two = await databases(), await databases()
    await put_things(one, "a")
    with pytest.raises(RuntimeError, match="no"):
        async with one.transaction() as tx:
            await tx.get(Thing, "a", lock=True)
            raise RuntimeError("no")
    async with asyncio.timeout(10), two.transaction() as tx:
        assert await tx.get(Thing, "a", lock=True) is not None


async def test_a_circle_of_locks_is_refused_to_one_and_the_other_commits(databases):
    first = await databases()
    await put_things(first, "a", "b")
    both = asyncio.Barrier(2)

    async def locks(mine: str, other: str) -> str:
        database = await databases()
        async with database.transaction() as tx:
            row = await tx.get(Thing, mine, lock=True)
            await both.wait()
            await tx.get(Thing, other, lock=True)
            row.name = "won"
            await tx.put(row)
        return mine

    async with asyncio.timeout(30):
        outcomes = await asyncio.gather(locks("a", "b"), locks("b", "a"), return_exceptions=True)
    winners = [outcome for outcome in outcomes if isinstance(outcome, str)]
    assert any(isinstance(outcome, TransactionConflict) for outcome in outcomes)
    assert len(winners) == 1
    for key in ("a", "b"):
        assert ((await stored(first, Thing, key)).name == "won") == (key == winners[0])


# --- all or nothing -------------------------------------------------------------------------------


async def everything(tx, number: int = 1) -> None:
    await tx.put(Thing(thing_id="a"))
    await tx.add(Token(token_id="1", account_id="a", token="t"))
    await tx.emit("thing:a", SUBJECT, Happened(number=number))
    assert await tx.first_sight("me", "m1")
    await tx.park(consumer="me", msg_id="m2", subject="s", body=b"?", why="unreadable")


async def nothing_left(database) -> None:
    assert await stored(database, Thing, "a") is None
    assert await database.events.unpublished(10) == []
    async with database.transaction() as tx:
        assert await tx.find(Token) == []
        assert await tx.first_sight("me", "m1")


async def test_an_exception_leaves_nothing_behind(database):
    with pytest.raises(ZeroDivisionError):
        async with database.transaction() as tx:
            await everything(tx)
            raise ZeroDivisionError
    await nothing_left(database)


async def test_a_cancelled_transaction_leaves_nothing_behind(database):
    reached = asyncio.Event()

    async def never_ends() -> None:
        async with database.transaction() as tx:
            await everything(tx)
            reached.set()
            await asyncio.sleep(1000)

    task = asyncio.ensure_future(never_ends())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await nothing_left(database)


async def test_what_a_rolled_back_transaction_emitted_leaves_no_gap_in_the_versions(database):
    with pytest.raises(ZeroDivisionError):
        async with database.transaction() as tx:
            await everything(tx)
            raise ZeroDivisionError
    async with database.transaction() as tx:
        await everything(tx)
    (_, event), *rest = await database.events.unpublished(10)
    assert rest == []
    assert event.msg_id == "contract:thing:a:1"


# --- events -------------------------------------------------------------------------------------


async def test_events_have_contiguous_versions_and_their_ids_say_whose(database):
    for number in (1, 2):
        async with database.transaction() as tx:
            await tx.emit("thing:a", SUBJECT, Happened(number=number))
            await tx.emit("thing:b", SUBJECT, Happened(number=number))
            await tx.emit("thing:a", SUBJECT, Happened(number=10 + number))
    events = [event for _id, event in await database.events.unpublished(100)]
    assert [event.msg_id for event in events if ":thing:a:" in event.msg_id] == [
        f"contract:thing:a:{version}" for version in (1, 2, 3, 4)
    ]
    assert {event.subject for event in events} == {SUBJECT}
    decoded = [json.decode(event.data, type=Happened).number for event in events]
    assert sorted(decoded) == [1, 1, 2, 2, 11, 12]


async def test_those_who_emit_at_once_about_one_thing_get_versions_without_gap(databases):
    async def emits() -> None:
        database = await databases()
        for number in range(4):
            async with database.transaction() as tx:
                await tx.emit("thing:a", SUBJECT, Happened(number=number))
                await asyncio.sleep(0.001)

    await asyncio.gather(*(emits() for _ in range(4)))
    database = await databases()
    ids = {event.msg_id for _id, event in await database.events.unpublished(100)}
    assert ids == {f"contract:thing:a:{version}" for version in range(1, 17)}


async def test_published_events_are_not_offered_again_and_the_limit_holds(database):
    async with database.transaction() as tx:
        for number in range(5):
            await tx.emit("thing:a", SUBJECT, Happened(number=number))
    first = await database.events.unpublished(2)
    assert [event.msg_id[-1] for _id, event in first] == ["1", "2"]
    await database.events.mark_published([id_ for id_, _event in first])
    rest = await database.events.unpublished(100)
    assert [event.msg_id[-1] for _id, event in rest] == ["3", "4", "5"]


async def test_unpublish_since_offers_recent_events_again(database):
    async with database.transaction() as tx:
        await tx.emit("thing:a", SUBJECT, Happened(number=1))
    before = await database.events.unpublished(10)
    await database.events.mark_published([id_ for id_, _event in before])
    assert await database.events.unpublished(10) == []
    assert await database.events.unpublish_since(3600) == 1
    again = await database.events.unpublished(10)
    assert [event.msg_id for _id, event in again] == [event.msg_id for _id, event in before]
    assert await database.events.unpublish_since(3600) == 0


# --- inbox, clock -------------------------------------------------------------------------------


async def test_a_message_is_seen_for_the_first_time_once_per_consumer(database):
    async with database.transaction() as tx:
        assert await tx.first_sight("me", "m1")
        assert not await tx.first_sight("me", "m1")
        assert await tx.first_sight("you", "m1")
    async with database.transaction() as tx:
        assert not await tx.first_sight("me", "m1")
        assert await tx.first_sight("me", "m2")


async def test_of_two_who_see_a_message_at_once_one_is_first(databases):
    async def sees() -> bool:
        database = await databases()
        async with database.transaction() as tx:
            first = await tx.first_sight("me", "m1")
            await asyncio.sleep(0.05)
            return first

    assert sorted(await asyncio.gather(sees(), sees())) == [False, True]


async def test_parking_the_same_message_twice_is_no_error(database):
    for _time in range(2):
        async with database.transaction() as tx:
            await tx.park(consumer="me", msg_id="m", subject="s", body=b"\x00?", why="unreadable")


async def test_the_database_has_a_clock_of_its_own_that_goes_forward(database):
    async with database.transaction() as tx:
        first = await tx.now()
        await asyncio.sleep(0.02)
        second = await tx.now()
    assert first.tzinfo is not None
    assert timedelta(0) < second - first < timedelta(minutes=1)


async def test_an_advisory_lock_is_held_by_one_at_a_time(databases):
    inside, most = 0, 0

    async def enters() -> None:
        nonlocal inside, most
        database = await databases()
        async with database.advisory_lock("relay"):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.02)
            inside -= 1

    async with asyncio.timeout(30):
        await asyncio.gather(*(enters() for _ in range(3)))
    assert most == 1


async def test_a_database_that_is_up_answers_a_ping(database):
    await database.ping()
