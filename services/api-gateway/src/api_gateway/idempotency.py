"""Idempotency-Key: the same request sent twice is carried out once and answered the same.

A row is written before anything is asked of an owner. It holds the seed the ids are minted from,
so a request that was cut off at any point mints the same ids again, and owners take a command
with known ids as done already. Only a final answer is stored; a retryable one frees the row.
"""

import hashlib
import hmac
from datetime import datetime, timedelta
from typing import ClassVar

from msgspec import Struct

from entrepot_chassis.ports import Ids, Row, Table
from entrepot_chassis.postgres import PostgresDatabase
from entrepot_contracts.errors import Code, Problem, Refused

KEY_CHARS_MAX = 255
HOLD_S = 60.0  # longer than the longest operation; then a repeat may take over
KEPT = timedelta(hours=24)


class HttpOnce(Row, kw_only=True):
    """`row_id` is a hash of account and key: the key's own text is kept nowhere."""

    TABLE: ClassVar[Table] = Table(name="http_once", key="row_id")
    row_id: str
    account_id: str
    fingerprint: bytes
    seed: str
    created_at: datetime
    held_until: datetime | None
    status: int | None = None
    body: bytes | None = None


class Answer(Struct, frozen=True, kw_only=True):
    status: int
    body: bytes


class Ticket(Struct, frozen=True, kw_only=True):
    """Either the stored answer, or the right to carry the request out with ids from `seed`."""

    row_id: str
    seed: str
    answer: Answer | None = None


class Once:
    def __init__(self, database: PostgresDatabase, *, ids: Ids) -> None:
        self._database = database
        self._ids = ids

    async def begin(self, *, account_id: str, key: str, request: bytes) -> Ticket:
        """Raises Refused: another request had this key, or the same one is running right now."""
        _check(key)
        row_id = hashlib.sha256(f"{account_id}\n{key}".encode()).hexdigest()
        # Keyed by the client's key, so short secrets in a body can't be guessed from the row.
        fingerprint = hmac.digest(key.encode(), request, "sha256")
        async with self._database.transaction() as tx:
            now = await tx.now()
            hold = now + timedelta(seconds=HOLD_S)
            fresh = HttpOnce(
                row_id=row_id,
                account_id=account_id,
                fingerprint=fingerprint,
                seed=self._ids.new(),
                created_at=now,
                held_until=hold,
            )
            if await tx.add(fresh):
                return Ticket(row_id=row_id, seed=fresh.seed)
            row = await tx.get(HttpOnce, row_id, lock=True)
            if row is None or row.created_at < now - KEPT:
                await tx.put(fresh)
                return Ticket(row_id=row_id, seed=fresh.seed)
            ticket = _ticket(row, fingerprint, now=now)
            if ticket.answer is None:
                row.held_until = hold
                await tx.put(row)
            return ticket

    async def finish(self, ticket: Ticket, answer: Answer) -> None:
        await self._settle(ticket, answer)

    async def free(self, ticket: Ticket) -> None:
        """The outcome is unknown or may change: the next repeat carries it out again."""
        await self._settle(ticket, None)

    async def sweep(self) -> None:
        """Forget what is older than a day; its ids stay spent with the owners."""
        async with self._database.transaction() as tx:
            await tx.connection.execute(
                "DELETE FROM http_once WHERE created_at < clock_timestamp() - $1::interval", KEPT
            )

    async def _settle(self, ticket: Ticket, answer: Answer | None) -> None:
        async with self._database.transaction() as tx:
            row = await tx.get(HttpOnce, ticket.row_id, lock=True)
            if row is None or row.seed != ticket.seed or row.status is not None:
                return
            row.held_until = None
            if answer is not None:
                row.status, row.body = answer.status, answer.body
            await tx.put(row)


def _ticket(row: HttpOnce, fingerprint: bytes, *, now: datetime) -> Ticket:
    if not hmac.compare_digest(row.fingerprint, fingerprint):
        raise Refused(
            Code.IDEMPOTENCY_MISMATCH,
            "this Idempotency-Key was used for another request",
            field="Idempotency-Key",
            hint="use a new key for a new request",
        )
    if row.status is not None and row.body is not None:
        return Ticket(
            row_id=row.row_id, seed=row.seed, answer=Answer(status=row.status, body=row.body)
        )
    if row.held_until is not None and row.held_until > now:
        raise _in_progress()
    return Ticket(row_id=row.row_id, seed=row.seed)


def _in_progress() -> Refused:
    """A conflict that goes away by itself, unlike other conflicts."""
    return Refused.of(
        Problem(
            code=Code.CONFLICT,
            message="the same request is being carried out right now",
            field="Idempotency-Key",
            hint="send it again in a moment to get its answer",
            retryable=True,
        )
    )


def _check(key: str) -> None:
    if not 1 <= len(key) <= KEY_CHARS_MAX or not key.isascii() or not key.isprintable():
        raise Refused(
            Code.INVALID,
            f"Idempotency-Key: expected 1 to {KEY_CHARS_MAX} printable ASCII characters",
            field="Idempotency-Key",
            hint="a fresh UUID per request is a good key",
        )
