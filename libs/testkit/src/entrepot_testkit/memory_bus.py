"""ports.Bus in memory: a broker that outlives its clients, and connections of one process each.

Messages cross as JSON, so a wrong shape is found as the real bus would find it. With a Fate the
broker does what F5-F10 measured on the real one: requests, replies and bells get lost, doubled and
late, events come back after they were acknowledged, and a publish that failed was stored anyway.
"""

import asyncio
import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import reduce
from operator import or_
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from entrepot_chassis.ports import (
    BatchHandler,
    Delivered,
    Handler,
    OutboxEvent,
    SomeFailed,
    StreamMark,
    TransactionConflict,
    Unanswered,
)
from entrepot_testkit.fate import CALM, Fate
from entrepot_testkit.memory_stream import Delivery, MemoryStream, subject_matches
from entrepot_testkit.sim_loop import LIFE, note
from entrepot_testkit.sim_process import Incarnation, Killed

T = TypeVar("T")

DRAIN_S = 20.0
PATIENCE_S = 0.1
CONFLICT_TRIES = 3
LATE_S = 40.0  # of a duplicate that lay in somebody's buffer


class BusDown(ConnectionError):
    """publish_events failed; whether the events were stored is unknown."""


class MemoryBroker:
    """The server: subscriptions of the living, the event stream of all times."""

    def __init__(self, fate: Fate | None = None, *, ack_wait_s: float = 45.0) -> None:
        self.fate = fate or Fate(0, CALM)
        self.stream = MemoryStream(self.fate, ack_wait_s=ack_wait_s)
        self.responders: dict[str, list[_Responder]] = {}
        self.listeners: list[_Listener] = []
        self.surprises: list[BaseException] = []
        self._tasks: set[asyncio.Task[Any]] = set()

    def connection(self, life: Incarnation | None = None) -> "MemoryBus":
        return MemoryBus(self, life)

    def wipe(self) -> None:
        """The whole event store is gone: events, consumers, dedupe window."""
        self.stream.wipe()

    def later(self, callback: Callable[[], None], *, extra_s: float = 0.0) -> None:
        """After the delay of the wire, in nobody's name."""
        context = contextvars.copy_context()
        context.run(LIFE.set, None)
        asyncio.get_running_loop().call_later(
            extra_s + self.fate.delay_s(), callback, context=context
        )

    def spawn(self, life: Incarnation | None, coro: Any, name: str) -> "asyncio.Task[Any]":
        if life is not None:
            task: asyncio.Task[Any] = life.spawn(coro, name=name)
        else:
            task = asyncio.get_running_loop().create_task(coro, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class MemoryBus:
    """One process' connection. Without a life it works on any loop, for ordinary tests."""

    def __init__(self, broker: MemoryBroker, life: Incarnation | None = None) -> None:
        self.broker = broker
        self.life = life

    def _check(self) -> None:
        if self.life is not None:
            self.life.check()

    async def ping(self) -> None:
        self._check()

    # --- commands -----------------------------------------------------------------------------

    async def request(
        self, subject: str, message: Struct, *, reply: type[T], timeout_s: float
    ) -> T:
        self._check()
        fate, body = self.broker.fate, msgspec.json.encode(message)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        deadline = asyncio.get_running_loop().time() + timeout_s
        if not fate.strikes("request_lost", subject):
            self.broker.later(lambda: self._arrive(subject, body, answer, deadline))
        if fate.strikes("request_twice", subject):
            late_s = fate.pick("late", (0.0, 0.0, 2.0, LATE_S))
            self.broker.later(lambda: self._arrive(subject, body, answer, deadline), extra_s=late_s)
        try:
            async with asyncio.timeout(timeout_s):
                data = await answer
        except TimeoutError:
            raise Unanswered(subject, f"nothing heard within {timeout_s} s") from None
        try:
            return msgspec.json.decode(data, type=reply)
        except msgspec.DecodeError as error:
            self.broker.surprises.append(error)
            raise Unanswered(subject, f"unreadable answer: {error}") from error

    def _arrive(
        self, subject: str, body: bytes, answer: "asyncio.Future[bytes]", deadline: float
    ) -> None:
        """While nobody listens the client asks again until its time is over, as the real one."""
        present = [one for one in self.broker.responders.get(subject, ()) if one.open]
        if not present:
            if asyncio.get_running_loop().time() + PATIENCE_S < deadline:
                self.broker.later(
                    lambda: self._arrive(subject, body, answer, deadline), extra_s=PATIENCE_S
                )
            return
        chosen = self.broker.fate.pick("responder", present)
        self.broker.spawn(chosen.life, chosen.handle(body, answer), f"answer {subject}")

    @asynccontextmanager
    async def answer(
        self,
        subject: str,
        message: type[Struct],
        handler: Handler,
        *,
        queue: str,
        failure: Callable[[BaseException], Struct],
        in_flight_max: int = 64,
    ) -> AsyncIterator[None]:
        self._check()
        responder = _Responder(self.broker, self.life, subject, message, handler, failure)
        responder.slots = asyncio.Semaphore(in_flight_max)
        group = self.broker.responders.setdefault(subject, [])
        queues = {one.queue for one in group if one.open}
        assert queues <= {queue}, f"{subject} is answered by two queue groups: {queues} and {queue}"
        responder.queue = queue
        group.append(responder)
        if self.life is not None:
            self.life.on_death(responder.close)
        try:
            yield
        finally:
            responder.close()
            await responder.running.drain()

    # --- telemetry and bells --------------------------------------------------------------------

    async def publish(self, subject: str, message: Struct) -> None:
        self._check()
        body = msgspec.json.encode(message)
        for listener in self.broker.listeners:
            if listener.open and subject_matches(listener.subject, subject):
                self._tell(listener, body)

    def _tell(self, listener: "_Listener", body: bytes) -> None:
        if self.broker.fate.strikes("publish_lost", listener.subject):
            return

        def arrive() -> None:
            if listener.open:
                self.broker.spawn(listener.life, listener.hear(body), f"hear {listener.subject}")

        self.broker.later(arrive)

    @asynccontextmanager
    async def listen(
        self, subject: str, message: type[Struct], handler: Callable[[Any], Awaitable[None]]
    ) -> AsyncIterator[None]:
        self._check()
        listener = _Listener(self.broker, self.life, subject, message, handler)
        self.broker.listeners.append(listener)
        if self.life is not None:
            self.life.on_death(listener.close)
        try:
            yield
        finally:
            listener.close()
            await listener.running.drain()

    # --- events ---------------------------------------------------------------------------------

    async def publish_events(self, events: Sequence[OutboxEvent]) -> None:
        self._check()
        fate = self.broker.fate
        await asyncio.sleep(fate.delay_s())
        if fate.strikes("events_refused"):
            raise BusDown("events not stored")
        for event in events:
            self.broker.stream.store(event)
        if fate.strikes("wipe_at_store"):
            self.broker.wipe()  # before any consumer has seen them
        unsaid = fate.strikes("events_stored_unsaid")
        await asyncio.sleep(fate.delay_s())
        if unsaid:
            raise BusDown("events stored, but the answer was lost")

    async def stream_mark(self) -> StreamMark:
        self._check()
        await asyncio.sleep(self.broker.fate.delay_s())
        stream = self.broker.stream
        return StreamMark(born=f"generation {stream.generation}", last_seq=len(stream.events))

    def consume(
        self,
        *,
        durable: str,
        subjects: Sequence[str],
        messages: Sequence[type[Struct]],
        handler: BatchHandler,
        undecodable: Callable[[str, str, bytes, str], Awaitable[None]],
        batch_max: int = 100,
    ) -> AbstractAsyncContextManager[None]:
        self._check()
        consumer = _Consumer(
            self.broker, durable, tuple(subjects), tuple(messages), handler, undecodable, batch_max
        )
        return consumer.running_for(self.life)


class _Running:
    """Tasks of one subscription, so that leaving it can wait for them."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[Any]] = set()

    def note_current(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def drain(self) -> None:
        left = {task for task in self.tasks if not task.done()}
        if not left:
            return
        _done, late = await asyncio.wait(left, timeout=DRAIN_S)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)


class _Responder:
    """One subscription to a command subject."""

    def __init__(  # noqa: PLR0917 - private, one caller
        self,
        broker: MemoryBroker,
        life: Incarnation | None,
        subject: str,
        message: type[Struct],
        handler: Handler,
        failure: Callable[[BaseException], Struct],
    ) -> None:
        self.broker, self.life, self.subject = broker, life, subject
        self.message, self.handler, self.failure = message, handler, failure
        self.queue = ""
        self.open = True
        self.slots = asyncio.Semaphore(1)
        self.running = _Running()

    def close(self) -> None:
        self.open = False
        group = self.broker.responders.get(self.subject, [])
        if self in group:
            group.remove(self)

    async def handle(self, body: bytes, answer: "asyncio.Future[bytes]") -> None:
        self.running.note_current()
        async with self.slots:
            data = msgspec.json.encode(await self._outcome(body))
        if not self.broker.fate.strikes("reply_lost", self.subject):
            self.broker.later(lambda: _reply(answer, data))

    async def _outcome(self, body: bytes) -> Struct:
        try:
            request = msgspec.json.decode(body, type=self.message)
            for _try in range(CONFLICT_TRIES - 1):
                with suppress(TransactionConflict):
                    return await self.handler(request)
            return await self.handler(request)
        except Exception as error:  # noqa: BLE001 - the port promises to answer with it
            self.broker.surprises.append(error)
            note(f"{self.subject} raised {error!r}")
            return self.failure(error)


class _Listener:
    """One core subscription."""

    def __init__(
        self,
        broker: MemoryBroker,
        life: Incarnation | None,
        subject: str,
        message: type[Struct],
        handler: Callable[[Any], Awaitable[None]],
    ) -> None:
        self.broker, self.life, self.subject = broker, life, subject
        self.message, self.handler = message, handler
        self.open = True
        self.running = _Running()

    def close(self) -> None:
        self.open = False
        if self in self.broker.listeners:
            self.broker.listeners.remove(self)

    async def hear(self, body: bytes) -> None:
        self.running.note_current()
        try:
            await self.handler(msgspec.json.decode(body, type=self.message))
        except Exception as error:  # noqa: BLE001 - as on the real bus: counted, not raised
            self.broker.surprises.append(error)
            note(f"{self.subject} listener raised {error!r}")


class _Consumer:
    """One instance pulling from a durable consumer."""

    def __init__(  # noqa: PLR0917 - private, one caller
        self,
        broker: MemoryBroker,
        durable: str,
        subjects: tuple[str, ...],
        messages: tuple[type[Struct], ...],
        handler: BatchHandler,
        undecodable: Callable[[str, str, bytes, str], Awaitable[None]],
        batch_max: int,
    ) -> None:
        self.broker, self.durable, self.subjects = broker, durable, subjects
        self.handler, self.undecodable, self.batch_max = handler, undecodable, batch_max
        self.decoder = msgspec.json.Decoder(reduce(or_, messages))
        self.stopping = False

    @asynccontextmanager
    async def running_for(self, life: Incarnation | None) -> AsyncIterator[None]:
        task = self.broker.spawn(life, self._pull(), f"consume {self.durable}")
        try:
            yield
        finally:
            self.stopping = True
            self.broker.stream.wake()
            _done, late = await asyncio.wait({task}, timeout=DRAIN_S)
            for one in late:
                one.cancel()
            if late:
                await asyncio.wait(late)

    async def _pull(self) -> None:
        while not self.stopping:
            stream = self.broker.stream
            batch = stream.take(self.durable, self.subjects, self.batch_max)
            if batch:
                await asyncio.sleep(self.broker.fate.delay_s())
                await self._hand_over(batch)
            else:
                await stream.more(self.durable)

    async def _hand_over(self, batch: list[Delivery]) -> None:
        """Acknowledge what was handled. What raised comes again; what cannot be read is parked."""
        again: set[str] = set()
        try:
            understood = [one for delivery in batch if (one := await self._understood(delivery))]
            if understood:
                await self.handler(understood)
        except SomeFailed as some:
            again = set(some.msg_ids)
        except Exception as error:  # noqa: BLE001 - redelivery is the answer
            self.broker.surprises.append(error)
            note(f"consumer {self.durable} raised {error!r}")
            again = {delivery.event.msg_id for delivery in batch}
        events = [delivery.event for delivery in batch]
        stream = self.broker.stream
        stream.refuse(self.durable, [event for event in events if event.msg_id in again])
        stream.acknowledge(self.durable, [event for event in events if event.msg_id not in again])

    async def _understood(self, delivery: Delivery) -> Delivered | None:
        event = delivery.event
        try:
            message = self.decoder.decode(event.data)
        except msgspec.DecodeError as error:
            await self.undecodable(event.subject, event.msg_id, event.data, str(error))
            return None
        return Delivered(
            subject=event.subject,
            msg_id=event.msg_id,
            message=message,
            headers={**event.headers, "Nats-Msg-Id": event.msg_id},
            deliveries=delivery.count,
        )


def _reply(answer: "asyncio.Future[bytes]", data: bytes) -> None:
    if not answer.done():
        answer.set_result(data)


__all__ = ["BusDown", "Killed", "MemoryBroker", "MemoryBus"]
