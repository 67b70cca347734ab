"""Events applied once: the inbox row and what the event causes are one transaction."""

from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar

import msgspec

from entrepot_chassis import logs, metrics
from entrepot_chassis.ports import (
    BatchHandler,
    Database,
    DatabaseUnavailable,
    Delivered,
    Row,
    SomeFailed,
    Table,
    Transaction,
    TransactionConflict,
)

Apply = Callable[[Transaction, Delivered], Awaitable[None]]
ATTEMPTS_MAX = 20
_CONFLICT_TRIES = 3
_WHY_CHARS_MAX = 500
_log = logs.get("inbox")
_INBOX = metrics.counter(
    "entrepot_inbox_total", "Events seen by the inbox, by outcome", ["consumer", "outcome"]
)


class InboxAttempt(Row, kw_only=True):
    """How often an event was begun after its first delivery, and what went wrong last."""

    TABLE: ClassVar[Table] = Table(name="inbox_attempt", key="id")

    id: str  # <consumer>/<msg_id>
    n: int
    why: str


def once(
    database: Database, *, consumer: str, apply: Apply, attempts_max: int = ATTEMPTS_MAX
) -> BatchHandler:
    """A handler for `Bus.consume`: each event in its own transaction, so that one which fails
    holds up no other. An event delivered again is counted before it is begun (also one that
    kills the process counts); after `attempts_max` it is parked in dead_letter.
    """

    async def handle(batch: Sequence[Delivered]) -> None:
        failed: set[str] = set()
        for number, event in enumerate(batch):
            fields = {**logs.fields_in(event.headers), logs.CAUSE: event.msg_id}
            with logs.bind(**fields, consumer=consumer):
                try:
                    await _attempt(database, consumer, event, apply, attempts_max)
                except DatabaseUnavailable as err:
                    _log.warning("event.waiting", error=str(err))
                    failed |= {rest.msg_id for rest in batch[number:]}
                    break
                except Exception as err:  # noqa: BLE001 - it comes again, the others go on
                    _INBOX.labels(consumer, "failed").inc()
                    _log.error("event.failed", msg_id=event.msg_id, exc_info=err)
                    failed.add(event.msg_id)
                    await _note(database, consumer, event, err)
        if failed:
            raise SomeFailed(frozenset(failed))

    return handle


def parking(
    database: Database, *, consumer: str
) -> Callable[[str, str, bytes, str], Awaitable[None]]:
    """What `Bus.consume` wants as `undecodable`: kept in dead_letter, once per message."""

    async def park(subject: str, msg_id: str, body: bytes, why: str) -> None:
        _INBOX.labels(consumer, "parked").inc()
        async with database.transaction() as tx:
            await tx.park(consumer=consumer, msg_id=msg_id, subject=subject, body=body, why=why)

    return park


async def _attempt(
    database: Database, consumer: str, event: Delivered, apply: Apply, attempts_max: int
) -> None:
    again = event.deliveries > 1
    if again:
        attempt = await _counted(database, consumer, event)
        if attempt.n > attempts_max:
            await _give_up(database, consumer, event, attempt)
            return
    for tries_left in reversed(range(_CONFLICT_TRIES)):
        try:
            await _applied(database, consumer, event, apply, forget=again)
        except TransactionConflict:
            if not tries_left:
                raise
        else:
            return


async def _applied(
    database: Database, consumer: str, event: Delivered, apply: Apply, *, forget: bool
) -> None:
    async with database.transaction() as tx:
        fresh = await tx.first_sight(consumer, event.msg_id)
        if fresh:
            await apply(tx, event)
        if forget:
            await tx.remove(InboxAttempt, _key(consumer, event))
    _INBOX.labels(consumer, "applied" if fresh else "repeated").inc()


async def _counted(database: Database, consumer: str, event: Delivered) -> InboxAttempt:
    async with database.transaction() as tx:
        attempt = await tx.get(InboxAttempt, _key(consumer, event), lock=True)
        attempt = attempt or InboxAttempt(id=_key(consumer, event), n=0, why="")
        attempt.n += 1
        await tx.put(attempt)
        return attempt


async def _note(database: Database, consumer: str, event: Delivered, err: Exception) -> None:
    """Why it failed, for whoever finds it parked; losing this note loses nothing else."""
    try:
        async with database.transaction() as tx:
            attempt = await tx.get(InboxAttempt, _key(consumer, event), lock=True)
            attempt = attempt or InboxAttempt(id=_key(consumer, event), n=0, why="")
            attempt.why = f"{type(err).__name__}: {err}".replace("\x00", "")[:_WHY_CHARS_MAX]
            await tx.put(attempt)
    except Exception as lost:  # noqa: BLE001 - see above
        _log.info("event.note_lost", error=type(lost).__name__)


async def _give_up(
    database: Database, consumer: str, event: Delivered, attempt: InboxAttempt
) -> None:
    """Parked under the inbox row, so an event that succeeded after all is not parked as well."""
    async with database.transaction() as tx:
        fresh = await tx.first_sight(consumer, event.msg_id)
        if fresh:
            await tx.park(
                consumer=consumer,
                msg_id=event.msg_id,
                subject=event.subject,
                body=msgspec.json.encode(event.message),
                why=f"given up after {attempt.n - 1} attempts: {attempt.why or 'never returned'}",
            )
        await tx.remove(InboxAttempt, attempt.id)
    if fresh:
        _INBOX.labels(consumer, "parked").inc()
        _log.error("event.parked", msg_id=event.msg_id, why=attempt.why)


def _key(consumer: str, event: Delivered) -> str:
    return f"{consumer}/{event.msg_id}"
