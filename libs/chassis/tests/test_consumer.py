"""The event stream: batches, verification, durable consumers, on a real server."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager

import msgspec
import nats
import pytest
from msgspec import Struct

from entrepot_chassis import bus, consumer, stream_publish, streams, work
from entrepot_chassis.clock import SystemClock
from entrepot_chassis.ports import OutboxEvent, SomeFailed

CLOCK = SystemClock()


class Happened(Struct, frozen=True, kw_only=True, tag="t.happened.v1"):
    n: int


class Other(Struct, frozen=True, kw_only=True, tag="t.other.v1"):
    n: int


def event(number: int, *, subject: str = "evt.t.x", body: bytes | None = None) -> OutboxEvent:
    data = body if body is not None else msgspec.json.encode(Happened(n=number))
    return OutboxEvent(msg_id=f"svc:x:{number}", subject=subject, data=data)


async def stored(on: bus.NatsBus) -> int:
    return (await on._client.jetstream().stream_info("EVT")).state.messages


async def park_nothing(subject: str, msg_id: str, body: bytes, why: str) -> None:
    raise AssertionError(f"parked {msg_id}: {why}")


@asynccontextmanager
async def consuming(on, handler, *, undecodable=park_nothing, durable="reader", batch_max=100):
    async with on.consume(
        durable=durable,
        subjects=["evt.t.>"],
        messages=[Happened, Other],
        handler=handler,
        undecodable=undecodable,
        batch_max=batch_max,
    ):
        yield


# --- the stream -------------------------------------------------------------------------------


async def test_a_batch_is_stored_whole_in_order_and_a_repeat_adds_nothing(own_bus, eventually):
    await own_bus.stream_mark()
    events = [event(number) for number in range(300)]
    before = counted("atomic")
    await own_bus.publish_events(events)
    assert counted("atomic") == before + 1
    await own_bus.publish_events(events)
    assert await stored(own_bus) == 300
    await own_bus.publish_events([*events[-2:], event(300)])
    assert await stored(own_bus) == 301
    seen = []

    async def see(batch):
        seen.extend(one.message.n for one in batch)

    async with consuming(own_bus, see):
        await eventually(lambda: len(seen) >= 301)
    assert seen == list(range(301))


def counted(way: str) -> float:
    return stream_publish._BATCHES.labels(way)._value.get()


async def test_publishing_without_a_stream_or_broker_says_not_stored(own_nats, own_bus):
    for events in ([event(1)], [event(1), event(2)]):
        with pytest.raises(stream_publish.NotStored):
            await own_bus.publish_events(events)
    own_nats.kill()
    with pytest.raises(stream_publish.NotStored):
        await own_bus.publish_events([event(1)])
    await own_bus.publish_events([])


async def test_a_stream_with_other_settings_is_refused_with_the_differences(own_nats, own_bus):
    await streams.ensure(
        own_nats.url, [streams.StreamSpec(name="EVT", subjects=("evt.>",), max_age_s=3600)]
    )
    with pytest.raises(streams.StreamMismatch, match=r"max_age: wanted 2592000.0, found 3600.0"):
        await own_bus.stream_mark()
    with pytest.raises(streams.StreamMismatch):
        async with consuming(own_bus, park_nothing):
            pass


async def test_ensuring_a_stream_repeats_safely_also_from_many_at_once(own_nats):
    await asyncio.gather(*(streams.ensure(own_nats.url) for _ in range(5)))
    await streams.ensure(own_nats.url)


async def test_a_stream_keeps_its_birth_over_a_restart_and_not_over_a_wipe(own_nats, own_bus):
    await own_bus.stream_mark()
    await own_bus.publish_events([event(number) for number in range(5)])
    before = await own_bus.stream_mark()
    own_nats.kill()
    own_nats.start()
    assert await mark_soon(own_bus) == before
    own_nats.wipe()
    after = await mark_soon(own_bus)
    assert (after.born != before.born, after.last_seq) == (True, 0)


async def mark_soon(on: bus.NatsBus):
    for _ in range(500):
        try:
            return await on.stream_mark()
        except nats.errors.Error:
            await asyncio.sleep(0.02)
    raise AssertionError("the broker did not come back")


# --- consuming --------------------------------------------------------------------------------


async def test_what_a_handler_refuses_comes_again_and_the_rest_does_not(own_bus, eventually):
    await own_bus.stream_mark()
    seen = Counter()

    async def handler(batch):
        failed = set()
        for one in batch:
            seen[one.message.n] += 1
            if one.message.n == 2 and seen[2] < 3:
                failed.add(one.msg_id)
        if failed:
            raise SomeFailed(frozenset(failed))

    async with consuming(own_bus, handler):
        await own_bus.publish_events([event(number) for number in range(5)])
        await eventually(lambda: seen[2] == 3)
    assert seen == {0: 1, 1: 1, 2: 3, 3: 1, 4: 1}


async def test_a_handler_that_raises_gets_its_whole_batch_again(own_bus, eventually):
    await own_bus.stream_mark()
    await own_bus.publish_events([event(number) for number in range(3)])
    batches = []

    async def handler(batch):
        batches.append([one.message.n for one in batch])
        if len(batches) == 1:
            raise RuntimeError("not today")

    async with consuming(own_bus, handler):
        await eventually(lambda: sum(map(len, batches)) == 6)
    assert sorted(number for batch in batches for number in batch) == [0, 0, 1, 1, 2, 2]


async def test_batches_are_no_larger_than_asked(own_bus, eventually):
    await own_bus.stream_mark()
    await own_bus.publish_events([event(number) for number in range(50)])
    sizes = []

    async def handler(batch):
        sizes.append(len(batch))
        await asyncio.sleep(0.005)

    async with consuming(own_bus, handler, batch_max=8):
        await eventually(lambda: sum(sizes) == 50)
    assert max(sizes) <= 8


async def test_a_pull_lost_with_the_connection_is_not_waited_for(own_nats, own_bus, eventually):
    await own_bus.stream_mark()
    seen = []

    async def handler(batch):
        seen.extend(one.message.n for one in batch)

    pull = consumer.PullConsumer(
        own_bus._client,
        stream=streams.EVT,
        durable="reader",
        subjects=["evt.>"],
        messages=[Happened],
        handler=handler,
        undecodable=park_nothing,
        batch_max=10,
        generation=lambda: own_bus.generation,
        clock=SystemClock(),
        pull_s=3600,
    )
    await pull.prepare()
    async with work.owned("pull", pull.run):
        await own_bus.publish_events([event(1)])
        await eventually(lambda: seen == [1])
        own_nats.kill()
        own_nats.start()
        await mark_soon(own_bus)
        await own_bus.publish_events([event(2)])
        await eventually(lambda: 2 in seen)


async def test_what_a_stopped_consumer_had_not_begun_is_given_back_at_once(own_bus, eventually):
    """Not left to ack_wait, which is longer than `eventually` waits; the connection stays open."""
    await own_bus.stream_mark()
    begun, go_on, seen = asyncio.Event(), asyncio.Event(), []

    async def slow(batch):
        begun.set()
        await go_on.wait()
        seen.extend(one.message.n for one in batch)

    async def quick(batch):
        seen.extend(one.message.n for one in batch)

    async with consuming(own_bus, slow, batch_max=10):
        await own_bus.publish_events([event(0)])
        await begun.wait()
        await own_bus.publish_events([event(number) for number in range(1, 6)])
        await own_bus.ping()
        asyncio.get_running_loop().call_later(0.3, go_on.set)
    assert seen == [0]
    async with consuming(own_bus, quick):
        await eventually(lambda: len(seen) == 6)
    assert sorted(seen) == list(range(6))


async def test_an_idle_consumer_that_was_stopped_holds_nothing_back(own_bus, eventually):
    """Its pull must not stay at the server and swallow the next event."""
    await own_bus.stream_mark()
    seen = []

    async def handler(batch):
        seen.extend(one.message.n for one in batch)

    async with consuming(own_bus, park_nothing):
        await own_bus.publish_events([])
        await asyncio.sleep(0.5)
    await own_bus.publish_events([event(1)])
    async with consuming(own_bus, handler):
        await eventually(lambda: seen == [1])


async def test_a_deleted_consumer_is_made_again(own_bus, eventually):
    await own_bus.stream_mark()
    seen = []

    async def handler(batch):
        seen.extend(one.message.n for one in batch)

    async with consuming(own_bus, handler):
        await own_bus.publish_events([event(1)])
        await eventually(lambda: seen == [1])
        await own_bus._client.jetstream().delete_consumer("EVT", "reader")
        await own_bus.publish_events([event(2)])
        await eventually(lambda: 2 in seen)
