"""A durable pull consumer that survives reconnects, cancels and a broker that lost its store."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import reduce
from operator import or_
from typing import Any

import msgspec
from msgspec import Struct
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js import api

from entrepot_chassis import logs, metrics, streams
from entrepot_chassis.nats_drain import interest_ended
from entrepot_chassis.ports import BatchHandler, Clock, Delivered, Misconfigured, SomeFailed

_log = logs.get("consumer")
_EVENTS = metrics.counter(
    "entrepot_events_total", "Events delivered, by outcome", ["durable", "outcome"]
)
_PULL_S = 5.0  # short, because a pull that a reconnect lost is only known by its silence
_SLICE_S = 0.25  # how long stopping and reconnecting may go unnoticed
_ACK_S = 2.0
_ACK_WAIT_S = 45.0
_ACK_PENDING_MAX = 500
_RETRY_S = 0.2
_RETRY_MAX_S = 30.0
_PAUSE_S = 0.5

Undecodable = Callable[[str, str, bytes, str], Awaitable[None]]


class PullConsumer:
    """Pulls, decodes, hands over in batches, acknowledges. `run` ends after `stop`."""

    def __init__(
        self,
        client: Client,
        *,
        stream: streams.StreamSpec,
        durable: str,
        subjects: Sequence[str],
        messages: Sequence[type[Struct]],
        handler: BatchHandler,
        undecodable: Undecodable,
        batch_max: int,
        generation: Callable[[], int],
        clock: Clock,
        pull_s: float = _PULL_S,
    ) -> None:
        self._client = client
        self._stream = stream
        self._durable = durable
        self._subjects = tuple(subjects)
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(reduce(or_, messages))
        self._handler = handler
        self._undecodable = undecodable
        self._batch_max = batch_max
        self._generation = generation
        self._clock = clock
        self._pull_s = pull_s
        self._stopping = False
        self._exists = False
        self._wanted = 0  # what the pull in flight may still bring
        self._pulled_until = 0.0
        self._pulled_in = -1

    async def prepare(self) -> None:
        """The stream is verified (Misconfigured), the durable consumer is there."""
        js = self._client.jetstream(timeout=5)
        await streams.adopt(js, self._stream)
        await js.add_consumer(self._stream.name, self._config())
        self._exists = True

    def stop(self) -> None:
        self._stopping = True

    async def run(self) -> None:
        """Until stopped; what was delivered and not handled is given back at once."""
        subscription = await self._client.subscribe(self._client.new_inbox())
        try:
            while not self._stopping:
                try:
                    batch = await self._next_batch(subscription)
                    if batch:
                        await self._take(batch)
                except NatsError as err:
                    _log.info("consumer.waiting", durable=self._durable, error=_text(err))
                    self._wanted = 0
                    await self._clock.sleep(_PAUSE_S)
        finally:
            await self._give_back(subscription)

    # --- pulling ----------------------------------------------------------------------------

    async def _next_batch(self, subscription: Subscription) -> list[Msg]:
        """What is there, at most `batch_max`; empty after a while of nothing."""
        if not self._exists:
            await self._make_again()
        if self._pull_is_over():
            await self._pull(subscription)
        try:
            first = await subscription.next_msg(timeout=_SLICE_S)
        except NatsTimeoutError:
            return []
        batch = [first]
        while subscription.pending_msgs and len(batch) < self._batch_max:
            batch.append(await subscription.next_msg(timeout=_SLICE_S))
        return [msg for msg in batch if not self._is_status(msg)]

    def _pull_is_over(self) -> bool:
        return (
            self._wanted <= 0
            or self._pulled_in != self._generation()
            or self._clock.monotonic() > self._pulled_until
        )

    async def _pull(self, subscription: Subscription) -> None:
        ask = {"batch": self._batch_max, "expires": int(self._pull_s * 1e9)}
        self._wanted = self._batch_max
        self._pulled_in = self._generation()
        self._pulled_until = self._clock.monotonic() + self._pull_s + _SLICE_S
        await self._client.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{self._stream.name}.{self._durable}",
            json.dumps(ask).encode(),
            reply=subscription.subject,
        )

    def _is_status(self, msg: Msg) -> bool:
        """Words of the server about the pull; anything but a heartbeat ends it."""
        status = (msg.headers or {}).get("Status")
        if status is None:
            self._wanted -= 1
            return False
        description = (msg.headers or {}).get("Description", "").lower()
        if status != "100":
            self._wanted = 0
        if status == "503" or "deleted" in description or "not found" in description:
            self._exists = False
        return True

    async def _make_again(self) -> None:
        """The broker lost it: from the beginning of the stream, the inbox knows what was done."""
        try:
            await self.prepare()
        except Misconfigured as err:
            _log.critical("consumer.refused", durable=self._durable, error=str(err))
            await self._clock.sleep(self._pull_s)
            return
        self._wanted = 0
        _log.warning("consumer.made_again", durable=self._durable)

    def _config(self) -> api.ConsumerConfig:
        return api.ConsumerConfig(
            name=self._durable,
            durable_name=self._durable,
            deliver_policy=api.DeliverPolicy.ALL,
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=_ACK_WAIT_S,
            max_deliver=-1,
            max_ack_pending=_ACK_PENDING_MAX,
            filter_subjects=list(self._subjects),
        )

    # --- handling ---------------------------------------------------------------------------

    async def _take(self, batch: Sequence[Msg]) -> None:
        delivered: list[tuple[Msg, Delivered]] = []
        done: list[Msg] = []
        again: list[Msg] = []
        for msg in batch:
            event = self._decoded(msg)
            if isinstance(event, Delivered):
                delivered.append((msg, event))
            elif await self._parked(msg, event):
                done.append(msg)
            else:
                again.append(msg)
        failed = await self._failed_of([event for _, event in delivered])
        for msg, event in delivered:
            (again if event.msg_id in failed else done).append(msg)
        await self._settle(done, again)

    def _decoded(self, msg: Msg) -> Delivered | str:
        """The event, or why it cannot be understood."""
        headers = dict(msg.headers or {})
        msg_id = headers.get("Nats-Msg-Id")
        if not msg_id:
            return "no Nats-Msg-Id"
        try:
            message = self._decoder.decode(msg.data)
        except msgspec.DecodeError as err:
            return str(err)
        return Delivered(
            subject=msg.subject,
            msg_id=msg_id,
            message=message,
            headers=headers,
            deliveries=msg.metadata.num_delivered,
        )

    async def _parked(self, msg: Msg, why: str) -> bool:
        sequence = msg.metadata.sequence.stream
        fallback = f"{self._stream.name}:{sequence}:{msg.metadata.timestamp.isoformat()}"
        msg_id = (msg.headers or {}).get("Nats-Msg-Id") or fallback
        _log.error("event.undecodable", durable=self._durable, msg_id=msg_id, why=why)
        try:
            await self._undecodable(msg.subject, msg_id, msg.data, why)
        except Exception:  # noqa: BLE001 - parked later, never dropped
            _log.exception("event.not_parked", msg_id=msg_id)
            return False
        return True

    async def _failed_of(self, events: Sequence[Delivered]) -> frozenset[str]:
        if not events:
            return frozenset()
        try:
            await self._handler(events)
        except SomeFailed as some:
            return some.msg_ids
        except Exception:  # noqa: BLE001 - the whole batch comes again
            _log.exception("batch.failed", durable=self._durable, events=len(events))
            return frozenset(event.msg_id for event in events)
        return frozenset()

    async def _settle(self, done: Sequence[Msg], again: Sequence[Msg]) -> None:
        """One confirmed acknowledgement per batch; an acknowledgement that gets lost costs a
        second delivery, which the inbox turns away.
        """
        _EVENTS.labels(self._durable, "done").inc(len(done))
        _EVENTS.labels(self._durable, "again").inc(len(again))
        try:
            for msg in again:
                tries = min(msg.metadata.num_delivered - 1, 10)
                await msg.nak(delay=min(_RETRY_S * 2**tries, _RETRY_MAX_S))
            for msg in done[:-1]:
                await msg.ack()
            if done:
                await done[-1].ack_sync(timeout=_ACK_S)
        except (NatsError, TimeoutError) as err:
            _log.info("ack.lost", durable=self._durable, error=_text(err))

    async def _give_back(self, subscription: Subscription) -> None:
        """Ends the pull at the server (else the next message waits there for `ack_wait`), then
        returns what was on its way to us or in our queue.
        """
        if not self._client.is_connected:
            return
        left: list[Msg] = []
        with suppress(NatsError, TimeoutError):
            async with asyncio.timeout(_ACK_S):
                await interest_ended(self._client, subscription)
        while subscription.pending_msgs:
            left.append(await subscription.next_msg(timeout=_SLICE_S))
        await subscription.unsubscribe()
        for msg in left:
            with suppress(NatsError):
                if "Status" not in (msg.headers or {}):
                    await msg.nak()


def _text(err: BaseException) -> str:
    return f"{type(err).__name__}: {err}"
