"""The bus over NATS: connect, request, answer, publish, listen; drains so that no reply is lost."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.errors import (
    NoRespondersError,
    OutboundBufferLimitError,
)

from entrepot_chassis import consumer, lifecycle, logs, metrics, stream_publish, streams
from entrepot_chassis.clock import SystemClock, SystemIds
from entrepot_chassis.command_server import CommandServer
from entrepot_chassis.nats_drain import drained, flushed
from entrepot_chassis.nats_errors import LineBroke, reason
from entrepot_chassis.ports import (
    BatchHandler,
    Handler,
    OutboxEvent,
    StreamMark,
    Unanswered,
)
from entrepot_chassis.work import Intake, ended, owned, within

T = TypeVar("T")
_log = logs.get("bus")
_PENDING_MSGS_MAX = 10_000
_PATIENCE_S = 0.1
_PING_S = 1.0
_FLUSH_S = 2.0

_LOST = metrics.counter("entrepot_bus_lost_total", "Core messages not sent or not read", ["why"])
_VIOLATIONS = metrics.counter(
    "entrepot_bus_permission_violations_total", "What the broker did not let us do"
)
_RECONNECTS = metrics.counter("entrepot_bus_reconnects_total", "Connections found again")


@asynccontextmanager
async def connect(
    url: str,
    *,
    name: str,
    nkey_file: str | None = None,
    drain_s: float = 20.0,
    connect_s: float = 30.0,
    events: streams.StreamSpec = streams.EVT,
) -> AsyncIterator["NatsBus"]:
    """One connection for the process; keeps trying `connect_s` the first time, then for ever."""
    bus = NatsBus(name=name, drain_s=drain_s, events=events)
    await bus.open(url, nkey_file=nkey_file, connect_s=connect_s)
    try:
        yield bus
    finally:
        await bus.close()


class NatsBus:
    """ports.Bus on a real server. Made by `connect`."""

    def __init__(self, *, name: str, drain_s: float, events: streams.StreamSpec) -> None:
        self._client = Client()
        self._name = name
        self._drain_s = drain_s
        self._events = events
        self._clock = SystemClock()
        self._ids = SystemIds()
        self._drain_until: float | None = None
        self._closing = False
        self.generation = 0  # counts reconnects: pulls in flight before one are lost
        self.permission_violations = 0

    async def open(self, url: str, *, nkey_file: str | None, connect_s: float) -> None:
        try:
            await within(connect_s, "bus:connect", partial(self._connect, url, nkey_file))
        except TimeoutError as err:
            await self.close()
            where = logs.scrub_url(url)
            raise ConnectionError(f"no NATS server at {where} within {connect_s} s") from err

    async def close(self) -> None:
        """What is sent is sent; then the client, and its reconnecting if it is at that: the
        client's loop may lose the cancel of its own `close`, and would go on for ever.
        """
        self._closing = True
        with suppress(NatsError, OSError, TimeoutError):
            if self._client.is_connected:
                await within(_FLUSH_S, "bus:flush", partial(flushed, self._client))
        with suppress(NatsError, OSError, TimeoutError):
            await within(_FLUSH_S, "bus:close", self._client.close)
        if (reconnecting := self._client._reconnection_task) is not None:  # noqa: SLF001
            await ended({reconnecting})

    async def ping(self) -> None:
        """Raises unless the server answers now."""
        if not self._client.is_connected:
            raise ConnectionError("not connected")
        async with asyncio.timeout(_PING_S):
            await self._client.flush()

    # --- commands ---------------------------------------------------------------------------

    async def request(
        self, subject: str, message: Struct, *, reply: type[T], timeout_s: float
    ) -> T:
        """Commands repeat safely, so we ask again until `timeout_s` is over while nobody listens,
        the line is down, or the line broke after asking. An owner that is only slow is asked once.
        """
        body, headers = msgspec.json.encode(message), logs.headers_out() or None
        deadline = self._clock.monotonic() + timeout_s
        while True:
            left = deadline - self._clock.monotonic()
            try:
                answer = await self._client.request(
                    subject, body, timeout=max(left, 0.001), headers=headers
                )
            except (NoRespondersError, OutboundBufferLimitError, LineBroke) as err:
                if deadline - self._clock.monotonic() <= _PATIENCE_S:
                    raise Unanswered(subject, reason(err)) from err
                await self._clock.sleep(_PATIENCE_S)
            except NatsError as err:
                raise Unanswered(subject, reason(err)) from err
            else:
                return _decoded_answer(subject, answer.data, reply)

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
        """See ports.Bus. nats-py runs callbacks of one subscription one at a time, so each
        request is handed to a task that our own drain waits for.
        """
        intake = Intake(in_flight_max, name=subject)
        server = CommandServer(
            self._client,
            subject=subject,
            message=message,
            handler=handler,
            failure=failure,
            clock=self._clock,
            ids=self._ids,
        )

        async def take(msg: Msg) -> None:
            await intake.start(partial(server.answer, msg))

        subscription = await self._client.subscribe(
            subject, queue=queue, cb=take, pending_msgs_limit=_PENDING_MSGS_MAX
        )
        await self._known_to_server()
        try:
            yield
        finally:
            await self._stop(subscription)
            await intake.drain(self._drain_left_s())

    # --- telemetry and bells ----------------------------------------------------------------

    async def publish(self, subject: str, message: Struct) -> None:
        try:
            await self._client.publish(
                subject, msgspec.json.encode(message), headers=logs.headers_out() or None
            )
        except NatsError as err:
            _LOST.labels("publish").inc()
            _log.debug("publish.lost", subject=subject, error=reason(err))

    @asynccontextmanager
    async def listen(
        self, subject: str, message: type[Struct], handler: Callable[[Any], Awaitable[None]]
    ) -> AsyncIterator[None]:
        decoder = msgspec.json.Decoder(message)

        async def hear(msg: Msg) -> None:
            try:
                heard = decoder.decode(msg.data)
            except msgspec.DecodeError:
                _LOST.labels("undecodable").inc()
                return
            try:
                with logs.bind(**logs.fields_in(msg.headers or {})):
                    await handler(heard)
            except Exception:  # noqa: BLE001 - one bad sample must not silence the rest
                _log.exception("listen.failed", subject=subject)

        subscription = await self._client.subscribe(
            subject, cb=hear, pending_msgs_limit=_PENDING_MSGS_MAX
        )
        await self._known_to_server()
        try:
            yield
        finally:
            await self._stop(subscription)

    # --- events -----------------------------------------------------------------------------

    async def publish_events(self, events: Sequence[OutboxEvent]) -> None:
        await stream_publish.publish(self._client, events, batch_id=self._ids.new())

    async def stream_mark(self) -> StreamMark:
        """Identity of the event stream, which is made if it is missing; StreamMismatch if it is
        not what we need.
        """
        info = await streams.adopt(self._client.jetstream(timeout=5), self._events)
        born = info.created.isoformat() if info.created else ""
        return StreamMark(born=born, last_seq=info.state.last_seq)

    @asynccontextmanager
    async def consume(
        self,
        *,
        durable: str,
        subjects: Sequence[str],
        messages: Sequence[type[Struct]],
        handler: BatchHandler,
        undecodable: Callable[[str, str, bytes, str], Awaitable[None]],
        batch_max: int = 100,
    ) -> AsyncIterator[None]:
        pull = consumer.PullConsumer(
            self._client,
            stream=self._events,
            durable=durable,
            subjects=subjects,
            messages=messages,
            handler=handler,
            undecodable=undecodable,
            batch_max=batch_max,
            generation=lambda: self.generation,
            clock=self._clock,
        )
        await pull.prepare()
        async with owned(f"consume:{durable}", pull.run) as task:
            try:
                yield
            finally:
                pull.stop()
                await asyncio.wait({task}, timeout=self._drain_left_s())

    # --- connection -------------------------------------------------------------------------

    async def _connect(self, url: str, nkey_file: str | None) -> None:
        await self._client.connect(
            servers=[url],
            name=self._name,
            nkeys_seed=nkey_file,
            inbox_prefix=f"_INBOX_{self._name}".encode(),
            pending_size=-1,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.5,  # type: ignore[arg-type]
            connect_timeout=2,
            ping_interval=10,
            max_outstanding_pings=2,
            error_cb=self._on_error,
            reconnected_cb=self._on_reconnect,
            disconnected_cb=self._on_disconnect,
            closed_cb=self._on_closed,
        )

    async def _known_to_server(self) -> None:
        """Interest is at the server before anybody is told that we are ready."""
        with suppress(NatsError, TimeoutError):
            async with asyncio.timeout(_FLUSH_S):
                await flushed(self._client)

    async def _stop(self, subscription: Subscription) -> None:
        """No new messages; those received already are still handed over."""
        if not self._client.is_connected:
            return
        with suppress(NatsError, TimeoutError):
            async with asyncio.timeout(self._drain_left_s()):
                await drained(self._client, subscription)

    def _drain_left_s(self) -> float:
        """One budget for all that drains, counted from the first that begins."""
        now = self._clock.monotonic()
        if self._drain_until is None:
            self._drain_until = now + self._drain_s
        return max(self._drain_until - now, 0.05)

    async def _on_error(self, err: Exception) -> None:
        if "permissions violation" in str(err).lower():
            self.permission_violations += 1
            _VIOLATIONS.inc()
            _log.error("bus.permission_violation", error=str(err))
            return
        _log.info("bus.error", error=reason(err))

    async def _on_reconnect(self) -> None:
        self.generation += 1
        _RECONNECTS.inc()
        _log.info("bus.reconnected")

    async def _on_disconnect(self) -> None:
        """No answer can come over a line that broke: whoever waits for one is told at once, not
        by its time-out. The client has no public way to do so; a test holds this in place.
        """
        for waiting in list(self._client._resp_map.values()):  # noqa: SLF001
            if not waiting.done():
                waiting.set_exception(LineBroke())
        if not self._closing:
            _log.warning("bus.disconnected")

    async def _on_closed(self) -> None:
        if not self._closing:  # it never comes back by itself: let the supervisor start us anew
            _log.critical("bus.closed")
            lifecycle.stop_self()


def _decoded_answer(subject: str, body: bytes, reply: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=reply)
    except msgspec.DecodeError as err:
        raise Unanswered(subject, f"unreadable answer: {err}") from err
