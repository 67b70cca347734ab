"""Publishing events: one atomic batch, or one by one when the broker will not have the batch."""

import json
from collections.abc import Sequence
from typing import Any

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError

from entrepot_chassis import logs, metrics
from entrepot_chassis.ports import OutboxEvent

_log = logs.get("stream_publish")
_BATCHES = metrics.counter("entrepot_publish_batches_total", "Event batches, by way", ["way"])
_ACK_S = 5.0
_BATCH_MAX = 1000  # the server's own limit of an atomic batch
_STREAM_MISSING = 503


class NotStored(Exception):
    """The stream did not confirm. Some or all may be stored: publish again, same ids."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"events not confirmed by the stream: {reason}")
        self.reason = reason


async def publish(client: Client, events: Sequence[OutboxEvent], *, batch_id: str) -> None:
    """All of `events` in order, or NotStored. One that the stream has already counts as stored."""
    assert len(events) <= _BATCH_MAX, "split it"
    if not events:
        return
    if len(events) > 1:
        refused = await _atomically(client, events, batch_id=batch_id)
        if refused is None:
            _BATCHES.labels("atomic").inc()
            return
        # A duplicate in the batch (10201), a lost acknowledgement, a batch given up: each event
        # has its own id, so sending all of them again one by one stores each once.
        _log.info("batch.refused", reason=refused, events=len(events))
    _BATCHES.labels("single").inc()
    for event in events:
        await _one(client, event)


async def _atomically(
    client: Client, events: Sequence[OutboxEvent], *, batch_id: str
) -> str | None:
    """None if stored, else why not."""
    try:
        for number, event in enumerate(events[:-1], start=1):
            head = {
                **_headers(event),
                "Nats-Batch-Id": batch_id,
                "Nats-Batch-Sequence": str(number),
            }
            await client.publish(event.subject, event.data, headers=head)
        last = events[-1]
        answer = await client.request(
            last.subject,
            last.data,
            timeout=_ACK_S,
            headers={
                **_headers(last),
                "Nats-Batch-Id": batch_id,
                "Nats-Batch-Sequence": str(len(events)),
                "Nats-Batch-Commit": "1",
            },
        )
    except NatsError as err:
        return type(err).__name__
    error, ack = _read(answer.data)
    if error is not None:
        return error
    if ack.get("batch") != batch_id or ack.get("count") != len(events):
        return "acknowledgement of another batch"
    return None


async def _one(client: Client, event: OutboxEvent) -> None:
    try:
        answer = await client.request(
            event.subject, event.data, timeout=_ACK_S, headers=_headers(event)
        )
    except NoRespondersError as err:
        raise NotStored("no stream takes this subject") from err
    except NatsError as err:
        raise NotStored(type(err).__name__) from err
    error, _ = _read(answer.data)
    if error is not None:
        raise NotStored(error)


def _headers(event: OutboxEvent) -> dict[str, str]:
    return {**event.headers, "Nats-Msg-Id": event.msg_id}


def _read(body: bytes) -> tuple[str | None, dict[str, Any]]:
    """Error text or None, and the acknowledgement."""
    try:
        ack: dict[str, Any] = json.loads(body)
    except ValueError:
        return "unreadable acknowledgement", {}
    if "error" in ack:
        error = ack["error"]
        return f"{error.get('err_code', error.get('code'))} {error.get('description', '')}", ack
    return None, ack
