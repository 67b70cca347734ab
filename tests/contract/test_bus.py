"""What every Bus promises; the simulation is worth as much as its bus is like the real one."""

import asyncio
import itertools
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from msgspec import Struct, json

from entrepot_chassis.ports import (
    Delivered,
    OutboxEvent,
    SomeFailed,
    TransactionConflict,
    Unanswered,
)

_names = itertools.count(1)


class Question(Struct, frozen=True, kw_only=True, tag="contract.question.v1"):
    number: int


class Answer(Struct, frozen=True, kw_only=True, tag="contract.answer.v1"):
    number: int
    by: str = ""


class Failure(Struct, frozen=True, kw_only=True, tag="contract.failure.v1"):
    why: str


class Happened(Struct, frozen=True, kw_only=True, tag="contract.happened.v1"):
    number: int


class Other(Struct, frozen=True, kw_only=True, tag="contract.other.v1"):
    text: str


Reply = Answer | Failure


def failure(error: BaseException) -> Failure:
    return Failure(why=type(error).__name__)


@pytest.fixture
def cmd() -> str:
    """A command subject of this test alone."""
    return f"cmd.contract.test{next(_names)}.ask"


@pytest.fixture
def evt() -> str:
    return f"evt.contract.test{next(_names)}"


async def ask(bus, subject, number=1, timeout_s=5.0):
    return await bus.request(subject, Question(number=number), reply=Reply, timeout_s=timeout_s)


async def doubling(question: Question) -> Answer:
    return Answer(number=question.number * 2)


def event(subject: str, number: int, *, msg_id: str | None = None, data: bytes | None = None):
    return OutboxEvent(
        msg_id=msg_id or f"contract:{subject}:{number}",
        subject=f"{subject}.{number}.happened",
        data=data or json.encode(Happened(number=number)),
    )


class Heard:
    """Collects what a consumer was given; may be told to fail first."""

    def __init__(self, *, failures: int = 0) -> None:
        self.batches: list[list[Delivered]] = []
        self.parked: list[tuple[str, str, bytes]] = []
        self.failures = failures

    @property
    def numbers(self) -> list[int]:
        return [one.message.number for batch in self.batches for one in batch]

    async def handle(self, batch) -> None:
        self.batches.append(list(batch))
        if self.failures:
            self.failures -= 1
            raise RuntimeError("not now")

    async def park(self, subject: str, msg_id: str, body: bytes, why: str) -> None:
        assert why
        self.parked.append((subject, msg_id, body))

    async def until(self, condition) -> None:
        async with asyncio.timeout(20):
            while not condition(self):  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@asynccontextmanager
async def consuming(bus, subject: str, heard: Heard, *, durable: str | None = None, batch_max=100):
    async with bus.consume(
        durable=durable or f"contract-{next(_names)}",
        subjects=[f"{subject}.*.happened"],
        messages=[Happened],
        handler=heard.handle,
        undecodable=heard.park,
        batch_max=batch_max,
    ):
        yield


# --- commands ---------------------------------------------------------------------------------


async def test_a_request_is_answered_by_its_handler(buses, cmd):
    asker, owner = await buses(), await buses()
    async with owner.answer(cmd, Question, doubling, queue="q", failure=failure):
        assert await ask(asker, cmd, 21) == Answer(number=42)


async def test_what_a_handler_raises_is_answered_as_its_failure(buses, cmd):
    async def refuses(_question: Question) -> Answer:
        raise LookupError("no such thing")

    bus = await buses()
    async with bus.answer(cmd, Question, refuses, queue="q", failure=failure):
        assert await ask(bus, cmd) == Failure(why="LookupError")


async def test_a_body_of_the_wrong_shape_is_answered_as_a_failure(buses, cmd):
    bus = await buses()
    async with bus.answer(cmd, Question, doubling, queue="q", failure=failure):
        wrong = await bus.request(cmd, Other(text="?"), reply=Reply, timeout_s=5)
    assert isinstance(wrong, Failure)


async def test_nobody_there_is_unanswered(buses, cmd):
    bus = await buses()
    with pytest.raises(Unanswered) as caught:
        await ask(bus, cmd, timeout_s=0.3)
    assert caught.value.subject == cmd


async def test_who_begins_to_answer_within_the_time_out_is_waited_for(buses, cmd):
    asker, owner = await buses(), await buses()
    asking = asyncio.ensure_future(ask(asker, cmd, 4, timeout_s=10))
    await asyncio.sleep(0.2)
    async with owner.answer(cmd, Question, doubling, queue="q", failure=failure):
        assert await asking == Answer(number=8)


async def test_a_handler_that_lost_a_deadlock_runs_again(buses, cmd):
    tries = 0

    async def conflicted(question: Question) -> Answer:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise TransactionConflict("circle")
        return await doubling(question)

    bus = await buses()
    async with bus.answer(cmd, Question, conflicted, queue="q", failure=failure):
        assert await ask(bus, cmd, 2) == Answer(number=4)
    assert tries == 2


async def test_an_answer_after_the_time_out_is_unanswered_though_it_was_handled(buses, cmd):
    handled = asyncio.Event()

    async def slow(question: Question) -> Answer:
        await asyncio.sleep(0.5)
        handled.set()
        return Answer(number=question.number)

    bus = await buses()
    async with bus.answer(cmd, Question, slow, queue="q", failure=failure):
        with pytest.raises(Unanswered):
            await ask(bus, cmd, timeout_s=0.1)
        async with asyncio.timeout(5):
            await handled.wait()


async def test_a_queue_group_answers_each_request_once(buses, cmd):
    handled: list[tuple[str, int]] = []

    def member(name: str):
        async def handle(question: Question) -> Answer:
            handled.append((name, question.number))
            return Answer(number=question.number, by=name)

        return handle

    async with AsyncExitStack() as stack:
        for name in ("a", "b"):
            bus = await buses()
            await stack.enter_async_context(
                bus.answer(cmd, Question, member(name), queue="q", failure=failure)
            )
        asker = await buses()
        answers = [await ask(asker, cmd, number) for number in range(40)]
    assert [answer.number for answer in answers] == list(range(40))
    assert sorted(number for _name, number in handled) == list(range(40))
    assert {name for name, _number in handled} == {"a", "b"}


async def test_requests_are_handled_side_by_side_up_to_the_limit(buses, cmd):
    running, most = 0, 0

    async def slow(question: Question) -> Answer:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.05)
        running -= 1
        return Answer(number=question.number)

    bus = await buses()
    async with bus.answer(cmd, Question, slow, queue="q", failure=failure, in_flight_max=3):
        await asyncio.gather(*(ask(bus, cmd, number) for number in range(12)))
    assert most == 3


async def test_leaving_an_answer_finishes_what_runs_and_takes_no_more(buses, cmd):
    started, ended = asyncio.Event(), asyncio.Event()

    async def slow(question: Question) -> Answer:
        started.set()
        await asyncio.sleep(0.2)
        ended.set()
        return Answer(number=question.number)

    owner, asker = await buses(), await buses()
    async with owner.answer(cmd, Question, slow, queue="q", failure=failure):
        asking = asyncio.ensure_future(ask(asker, cmd, 5))
        await started.wait()
    assert ended.is_set()
    assert await asking == Answer(number=5)
    with pytest.raises(Unanswered):
        await ask(asker, cmd, timeout_s=0.5)


# --- telemetry ----------------------------------------------------------------------------------


async def test_every_listener_hears_a_publish_and_the_undecodable_hurts_nobody(buses, cmd):
    subject = cmd.replace("cmd.", "tel.")
    heard: list[tuple[str, int]] = []

    def ear(name: str):
        async def hear(message: Happened) -> None:
            heard.append((name, message.number))

        return hear

    one, two = await buses(), await buses()
    async with (
        one.listen(subject, Happened, ear("one")),
        two.listen(subject.rsplit(".", 1)[0] + ".*", Happened, ear("two")),
    ):
        await one.publish(subject, Other(text="not for them"))
        await one.publish(subject, Happened(number=9))
        async with asyncio.timeout(5):
            while len(heard) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert sorted(heard) == [("one", 9), ("two", 9)]


# --- events -------------------------------------------------------------------------------------


async def test_a_consumer_gets_all_events_in_order_those_before_it_included(buses, evt):
    bus, heard = await buses(), Heard()
    await bus.publish_events([event(evt, number) for number in range(5)])
    async with consuming(bus, evt, heard):
        await heard.until(lambda one: len(one.numbers) == 5)
        await bus.publish_events([event(evt, number) for number in range(5, 8)])
        await heard.until(lambda one: len(one.numbers) == 8)
    assert heard.numbers == list(range(8))
    first = heard.batches[0][0]
    assert (first.msg_id, first.subject) == (f"contract:{evt}:0", f"{evt}.0.happened")


async def test_a_batch_comes_again_after_its_handler_raised(buses, evt):
    bus, heard = await buses(), Heard(failures=2)
    async with consuming(bus, evt, heard):
        await bus.publish_events([event(evt, 1)])
        await heard.until(lambda one: len(one.batches) >= 3)
    assert heard.numbers[:3] == [1, 1, 1]


async def test_of_a_batch_only_those_named_as_failed_come_again(buses, evt):
    bus, heard = await buses(), Heard()
    failed: list[int] = []

    async def handle(batch) -> None:
        await Heard.handle(heard, batch)
        bad = {one.msg_id for one in batch if one.message.number == 2 and not failed}
        if bad:
            failed.append(2)
            raise SomeFailed(frozenset(bad))

    async with bus.consume(
        durable=f"contract-{next(_names)}",
        subjects=[f"{evt}.*.happened"],
        messages=[Happened],
        handler=handle,
        undecodable=heard.park,
    ):
        await bus.publish_events([event(evt, number) for number in (1, 2, 3)])
        await heard.until(lambda one: sorted(one.numbers) == [1, 2, 2, 3])


async def test_a_stream_is_marked_and_grows(buses, evt):
    bus = await buses()
    before = await bus.stream_mark()
    await bus.publish_events([event(evt, 1), event(evt, 2)])
    after = await bus.stream_mark()
    assert after.born == before.born
    assert after.last_seq == before.last_seq + 2


async def test_handled_events_do_not_come_to_the_next_instance_of_the_durable(buses, evt):
    bus, durable = await buses(), f"contract-{next(_names)}"
    first, second = Heard(), Heard()
    async with consuming(bus, evt, first, durable=durable):
        await bus.publish_events([event(evt, 1)])
        await first.until(lambda one: one.numbers == [1])
    async with consuming(await buses(), evt, second, durable=durable):
        await bus.publish_events([event(evt, 2)])
        await second.until(lambda one: 2 in one.numbers)
    assert second.numbers == [2]


async def test_the_same_msg_id_again_is_one_event(buses, evt):
    bus, heard = await buses(), Heard()
    async with consuming(bus, evt, heard):
        await bus.publish_events([event(evt, 1)])
        await bus.publish_events([event(evt, 1)])
        await bus.publish_events([event(evt, 1), event(evt, 2)])
        await heard.until(lambda one: 2 in one.numbers)
    assert heard.numbers == [1, 2]


async def test_two_durables_each_get_every_event(buses, evt):
    bus, one, two = await buses(), Heard(), Heard()
    async with consuming(bus, evt, one), consuming(bus, evt, two):
        await bus.publish_events([event(evt, 1)])
        await one.until(lambda heard: heard.numbers == [1])
        await two.until(lambda heard: heard.numbers == [1])


async def test_what_cannot_be_read_is_handed_over_for_parking_and_the_rest_is_handled(buses, evt):
    bus, heard = await buses(), Heard()
    strange = event(evt, 1, data=b'{"type":"contract.unheard_of.v9"}')
    broken = event(evt, 2, data=b"no json")
    async with consuming(bus, evt, heard):
        await bus.publish_events([strange, broken, event(evt, 3)])
        await heard.until(lambda one: len(one.parked) == 2 and one.numbers == [3])
    assert {msg_id for _subject, msg_id, _body in heard.parked} == {strange.msg_id, broken.msg_id}
    assert {body for _subject, _msg_id, body in heard.parked} == {strange.data, broken.data}


async def test_a_batch_is_no_larger_than_asked_for(buses, evt):
    bus, heard = await buses(), Heard()
    await bus.publish_events([event(evt, number) for number in range(25)])
    async with consuming(bus, evt, heard, batch_max=10):
        await heard.until(lambda one: len(one.numbers) == 25)
    assert max(len(batch) for batch in heard.batches) <= 10
