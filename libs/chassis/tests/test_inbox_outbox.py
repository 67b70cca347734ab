"""Outbox, relay and inbox together on real servers, and what goes wrong there."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
import nats
import pytest
import structlog
from msgspec import Struct

from entrepot_chassis import bus, inbox, outbox, postgres
from entrepot_chassis.clock import SystemClock
from entrepot_chassis.ports import DatabaseUnavailable, Delivered, OutboxEvent, SomeFailed

CLOCK = SystemClock()


class Happened(Struct, frozen=True, kw_only=True, tag="t.happened.v1"):
    n: int


class Other(Struct, frozen=True, kw_only=True, tag="t.other.v1"):
    n: int


def event(number: int, *, subject: str = "evt.t.x", body: bytes | None = None) -> OutboxEvent:
    data = body if body is not None else msgspec.json.encode(Happened(n=number))
    return OutboxEvent(msg_id=f"svc:x:{number}", subject=subject, data=data)


async def emit(database: postgres.PostgresDatabase, *numbers: int) -> None:
    for number in numbers:
        async with database.transaction() as tx:
            await tx.emit(f"agg-{number % 3}", f"evt.t.{number % 3}.happened", Happened(n=number))


async def stored(on: bus.NatsBus) -> int:
    return (await on._client.jetstream().stream_info("EVT")).state.messages


@asynccontextmanager
async def applying(on, database, apply, *, attempts_max=20, durable="reader"):
    handler = inbox.once(database, consumer=durable, apply=apply, attempts_max=attempts_max)
    park = inbox.parking(database, consumer=durable)
    async with on.consume(
        durable=durable,
        subjects=["evt.t.>"],
        messages=[Happened, Other],
        handler=handler,
        undecodable=park,
    ):
        yield


@asynccontextmanager
async def another_life(url: str, broker_url: str, name: str = "svc"):
    """The same service as another process would open it."""
    async with AsyncExitStack() as stack:
        opened = await stack.enter_async_context(
            postgres.open_database(url, service="svc", schema="svc", patience_s=15)
        )
        yield opened, await stack.enter_async_context(bus.connect(broker_url, name=name))


# --- inbox ------------------------------------------------------------------------------------


async def test_unknown_messages_are_parked_once_and_the_rest_goes_on(own_bus, database, eventually):
    await own_bus.stream_mark()
    seen = []

    async def apply(tx, one):
        seen.append(one.message.n)

    bodies = [
        b'{"type":"t.unknown.v9","n":1}',
        b"\x00 no json",
        b'{"type":"t.happened.v1","n":"x"}',
    ]
    async with applying(own_bus, database, apply):
        await own_bus.publish_events(
            [event(number, body=body) for number, body in enumerate(bodies)] + [event(9)]
        )
        await own_bus._client.publish("evt.t.nameless", b"{}")
        await eventually(lambda: seen == [9])

        async def all_parked() -> bool:
            return len(await parked(database)) == 4

        await eventually(all_parked)
    rows = await parked(database)
    assert [row["body"] for row in rows[:3]] == bodies
    assert rows[3]["why"] == "no Nats-Msg-Id"


async def parked(database):
    async with database.transaction() as tx:
        return await tx.connection.fetch("SELECT * FROM dead_letter ORDER BY id")


async def test_poison_is_parked_after_its_attempts_and_holds_up_nobody(
    own_bus, database, eventually
):
    await own_bus.stream_mark()
    tries, seen = Counter(), []

    async def apply(tx, one):
        tries[one.message.n] += 1
        if one.message.n == 1:
            raise ValueError("I am poison")
        seen.append(one.message.n)

    async def is_parked() -> bool:
        return len(await parked(database)) == 1

    async with applying(own_bus, database, apply, attempts_max=3):
        await own_bus.publish_events([event(number) for number in range(4)])
        await eventually(lambda: seen == [0, 2, 3])
        await eventually(is_parked)
    [row] = await parked(database)
    assert (row["msg_id"], row["consumer"]) == ("svc:x:1", "reader")
    assert row["why"] == "given up after 3 attempts: ValueError: I am poison"
    assert msgspec.json.decode(row["body"]) == {"type": "t.happened.v1", "n": 1}
    assert (tries[1], tries[0]) == (4, 1)  # the first delivery and three counted ones
    async with database.transaction() as tx:
        assert await tx.connection.fetchval("SELECT count(*) FROM inbox_attempt") == 0


async def test_an_attempt_is_counted_even_if_it_never_returns(database):
    """Counted before it is begun: a message that kills the process is parked in the end."""

    class Killed(BaseException):
        pass

    async def apply(tx, one):
        raise Killed

    handle = inbox.once(database, consumer="c", apply=apply, attempts_max=2)
    one = Delivered(subject="evt.t.x", msg_id="m", message=Happened(n=1), deliveries=2)
    for _ in range(2):
        with pytest.raises(Killed):
            await handle([one])
    await handle([one])
    [row] = await parked(database)
    assert row["why"] == "given up after 2 attempts: never returned"


async def test_effect_and_inbox_row_are_one_transaction(own_bus, database, eventually):
    await own_bus.stream_mark()
    tries = 0

    async def apply(tx, one):
        nonlocal tries
        tries += 1
        await tx.connection.execute(
            "INSERT INTO thing VALUES ($1, 1, 'a', NULL, '[]', '', NULL, NULL)", one.msg_id
        )
        if tries < 3:
            raise RuntimeError("after the effect")

    async def applied() -> bool:
        async with database.transaction() as tx:
            return await tx.connection.fetchval("SELECT count(*) = 1 FROM inbox")

    async with applying(own_bus, database, apply):
        await own_bus.publish_events([event(1)])
        await eventually(applied)
    async with database.transaction() as tx:
        assert await tx.connection.fetchval("SELECT count(*) FROM thing") == 1


async def test_an_unreachable_database_is_no_attempt_of_the_event(database):
    calls = 0

    async def apply(tx, one):
        nonlocal calls
        calls += 1
        raise DatabaseUnavailable("gone")

    handle = inbox.once(database, consumer="c", apply=apply, attempts_max=2)
    batch = [Delivered(subject="s", msg_id=f"m{n}", message=Happened(n=n)) for n in range(3)]
    with pytest.raises(SomeFailed) as caught:
        await handle(batch)
    assert caught.value.msg_ids == {"m0", "m1", "m2"}
    assert calls == 1


async def test_what_an_event_causes_names_it_as_cause(own_bus, database, eventually):
    await own_bus.stream_mark()
    bound = []

    async def apply(tx, one):
        bound.append(structlog.contextvars.get_contextvars())
        await tx.emit("b", "evt.other.b", Other(n=1))

    with_trace = msgspec.structs.replace(event(1), headers={"x-corr": "c-9"})
    async with applying(own_bus, database, apply):
        await own_bus.publish_events([with_trace])
        await eventually(lambda: len(bound) == 1)
    [(_, out)] = await database.events.unpublished(10)
    assert (out.headers["x-corr"], out.headers["x-cause"]) == ("c-9", "svc:x:1")


# --- relay ------------------------------------------------------------------------------------


class _Killed(BaseException):
    """Stands for SIGKILL: nothing of the process runs after it."""


class _DyingBus:
    """The process dies just before or just after the stream has the batch."""

    def __init__(self, inner: bus.NatsBus, *, stored_first: bool) -> None:
        self._inner, self._stored_first = inner, stored_first

    async def publish_events(self, events):
        if self._stored_first:
            await self._inner.publish_events(events)
        raise _Killed


@pytest.mark.parametrize("stored_first", [True, False])
async def test_a_relay_killed_around_a_publish_leaves_each_event_stored_once(
    own_bus, database, schema_url, eventually, stored_first
):
    await own_bus.stream_mark()
    await emit(database, *range(10))
    dying = outbox._Relay(
        database,
        _DyingBus(own_bus, stored_first=stored_first),
        clock=CLOCK,
        batch_max=4,
        poll_s=0.1,
        look_s=1,
        replay_s=1,
    )
    with pytest.raises(_Killed):
        await dying._move()

    async def all_out() -> bool:
        return not await database.events.unpublished(1)

    async with (
        another_life(schema_url, f"nats://{own_bus._client.connected_url.netloc}") as (
            again,
            its_bus,
        ),
        outbox.relaying(again, its_bus, clock=CLOCK, batch_max=4),
    ):
        await eventually(all_out)
    assert await stored(own_bus) == 10


async def test_events_of_an_aggregate_arrive_in_order_each_once(own_bus, database, eventually):
    seen = []

    async def apply(tx, one):
        seen.append(one.message.n)

    async with outbox.relaying(database, own_bus, clock=CLOCK), applying(own_bus, database, apply):
        await asyncio.gather(*(emit(database, *range(start, 60, 3)) for start in range(3)))
        await eventually(lambda: len(seen) == 60)
    for start in range(3):
        assert [n for n in seen if n % 3 == start] == list(range(start, 60, 3))


async def test_one_relay_works_while_another_waits_and_takes_over(
    own_nats, own_bus, database, schema_url, eventually
):
    async def all_out() -> bool:
        return not await database.events.unpublished(1)

    async with (
        another_life(schema_url, own_nats.url) as (second, its_bus),
        AsyncExitStack() as stack,
    ):
        await stack.enter_async_context(outbox.relaying(database, own_bus, clock=CLOCK))
        await emit(database, 1)
        await eventually(all_out)
        async with outbox.relaying(second, its_bus, clock=CLOCK):
            await stack.aclose()
            await emit(database, 2, 3)
            await eventually(all_out)
    assert await stored(own_bus) == 3


async def test_leaving_flushes_what_was_committed_last(own_bus, database, eventually):
    async def all_out() -> bool:
        return not await database.events.unpublished(1)

    async with outbox.relaying(database, own_bus, clock=CLOCK, poll_s=3600):
        await emit(database, 0)
        await eventually(all_out)
        await emit(database, *range(1, 20))
    assert await stored(own_bus) == 20


async def test_a_wiped_broker_gets_everything_again_and_nothing_is_applied_twice(
    own_nats, own_bus, database, eventually
):
    applied = Counter()

    async def apply(tx, one):
        await asyncio.sleep(0.002)
        applied[one.message.n] += 1

    async with (
        outbox.relaying(database, own_bus, clock=CLOCK),
        applying(own_bus, database, apply),
    ):
        await emit(database, *range(40))
        await eventually(lambda: len(applied) >= 10)
        own_nats.wipe()
        await emit(database, *range(40, 60))
        await eventually(lambda: len(applied) == 60)

        async def all_there_again() -> bool:
            try:
                return await stored(own_bus) == 60
            except nats.errors.Error:
                return False

        await eventually(all_there_again)
    assert set(applied.values()) == {1}


async def test_a_wipe_while_the_service_was_down_is_noticed_when_it_starts(
    own_nats, database, schema_url, eventually
):
    await emit(database, *range(5))

    async def all_out() -> bool:
        return not await database.events.unpublished(1)

    async with (
        another_life(schema_url, own_nats.url) as (first, its_bus),
        outbox.relaying(first, its_bus, clock=CLOCK),
    ):
        await eventually(all_out)
    own_nats.wipe()
    async with (
        another_life(schema_url, own_nats.url) as (second, its_bus),
        outbox.relaying(second, its_bus, clock=CLOCK),
    ):

        async def there_again() -> bool:
            return await stored(its_bus) == 5

        await eventually(there_again)


async def test_relay_and_consumer_go_on_after_a_kill_of_the_database(
    own_nats, own_bus, own_postgres, eventually
):
    own_postgres.ensure_database("e")
    url = own_postgres.dsn(database="e")
    await postgres.Migrations(package="entrepot_testkit", schema="svc").apply(url)
    seen = []

    async def apply(tx, one):
        seen.append(one.message.n)

    async with (
        another_life(url, own_nats.url) as (database, its_bus),
        outbox.relaying(database, its_bus, clock=CLOCK),
        applying(its_bus, database, apply),
    ):
        await emit(database, 1)
        await eventually(lambda: seen == [1])
        own_postgres.kill()
        own_postgres.start()
        await emit(database, 2)
        await eventually(lambda: seen == [1, 2])
