"""The database over asyncpg: pool, transactions with outbox and inbox, errors told by type."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import Any, TypeVar

import asyncpg  # type: ignore[import-untyped]
import msgspec
from asyncpg.pool import PoolConnectionProxy  # type: ignore[import-untyped]
from msgspec import Struct

from entrepot_chassis import logs, metrics
from entrepot_chassis.clock import SystemClock
from entrepot_chassis.migrations import Migrations
from entrepot_chassis.pg_sessions import PgHint, lock_session, translated
from entrepot_chassis.ports import DatabaseUnavailable, OutboxEvent, Row
from entrepot_chassis.rows import mapper, rows_of

__all__ = ["Migrations", "PostgresDatabase", "PostgresTransaction", "open_database"]

RowT = TypeVar("RowT", bound=Row)
_log = logs.get("postgres")
_COMMAND_TIMEOUT_S = 30.0
_CONNECT_TIMEOUT_S = 5.0
_PAUSE_S = 0.2
_PING_S = 1.5
_TRANSACTIONS = metrics.counter(
    "entrepot_transactions_total", "Database transactions, by outcome", ["outcome"]
)


@asynccontextmanager
async def open_database(
    url: str,
    *,
    service: str,
    schema: str,
    pool_max: int = 8,
    patience_s: float = 5.0,
    connect_s: float = 30.0,
) -> AsyncIterator["PostgresDatabase"]:
    """The pool of one service on its schema. Waits `connect_s` for the server at first;
    later each transaction waits `patience_s` for a connection before DatabaseUnavailable.
    """
    settings = {"search_path": f'"{schema}"', "application_name": service}
    pool = asyncpg.create_pool(
        url,
        min_size=0,
        max_size=pool_max,
        timeout=_CONNECT_TIMEOUT_S,
        command_timeout=_COMMAND_TIMEOUT_S,
        server_settings=settings,
        init=_prepare,
    )
    database = PostgresDatabase(
        pool, url=url, service=service, schema=schema, patience_s=patience_s
    )
    async with pool:
        await database.await_server(connect_s)
        yield database


class PostgresDatabase:
    """ports.Database, Elects and Hints on a real server."""

    def __init__(
        self, pool: asyncpg.Pool, *, url: str, service: str, schema: str, patience_s: float
    ) -> None:
        self.pool = pool
        self._url = url
        self._service = service
        self._schema = schema
        self._patience_s = patience_s
        self._clock = SystemClock()

    @property
    def events(self) -> "PostgresEventLog":
        return PostgresEventLog(self)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["PostgresTransaction"]:
        """Committed when the block ends, rolled back when it raises. The commit itself is not
        cancelled: the block ends when its outcome is known.
        """
        async with self._begun(self._patience_s) as (connection, transaction):
            try:
                with translated():
                    yield PostgresTransaction(connection, service=self._service)
            except BaseException:
                _TRANSACTIONS.labels("rolled_back").inc()
                await _rolled_back(transaction)
                raise
            with translated(network=True):
                await _to_the_end(transaction.commit())
            _TRANSACTIONS.labels("committed").inc()

    async def ping(self) -> None:
        """Raises unless the server answers now."""
        async with asyncio.timeout(_PING_S), self.pool.acquire() as connection:
            await connection.fetchval("SELECT 1")

    async def await_server(self, patience_s: float) -> None:
        async with self._begun(patience_s) as (_, transaction):
            await _rolled_back(transaction)

    def advisory_lock(self, name: str) -> AbstractAsyncContextManager[Any]:
        """On its own connection: it is lost with that, and with nothing else."""
        return lock_session(self._url, f"{self._schema}:{name}", clock=self._clock)

    def notifications(self, channel: str) -> AbstractAsyncContextManager[PgHint]:
        """LISTEN on its own connection, taken up again when lost: a hint, so poll as well."""
        return PgHint.listening(self._url, channel, clock=self._clock)

    def event_hint(self) -> AbstractAsyncContextManager[PgHint]:
        return self.notifications(f"{self._schema}_event_log")

    @asynccontextmanager
    async def _begun(self, patience_s: float) -> AsyncIterator[tuple[PoolConnectionProxy, Any]]:
        """A connection inside a transaction. Until BEGIN came through nothing was done, so a
        connection that a server restart left dead is simply replaced.
        """
        deadline = self._clock.monotonic() + patience_s
        while True:
            try:
                connection, transaction = await self._begin()
                break
            except DatabaseUnavailable:
                if self._clock.monotonic() >= deadline:
                    raise
                await self._clock.sleep(_PAUSE_S)
        try:
            yield connection, transaction
        finally:
            await self._given_back(connection)

    async def _begin(self) -> tuple[PoolConnectionProxy, Any]:
        with translated(network=True):
            connection = await self.pool.acquire(timeout=_CONNECT_TIMEOUT_S)
            transaction = connection.transaction()
            try:
                await _to_the_end(transaction.start())
            except BaseException:
                await _rolled_back(transaction)
                await self._given_back(connection)
                raise
            return connection, transaction

    async def _given_back(self, connection: PoolConnectionProxy) -> None:
        try:
            await _to_the_end(self.pool.release(connection))
        except Exception as err:  # noqa: BLE001 - the pool ends a connection it cannot reset
            _log.info("connection.ended", error=type(err).__name__)


class PostgresTransaction:
    """ports.Transaction; `connection` is for a service's own SQL."""

    def __init__(self, connection: PoolConnectionProxy, *, service: str) -> None:
        self.connection = connection
        self._service = service

    async def get(self, kind: type[RowT], key: str, *, lock: bool = False) -> RowT | None:
        found = await self.find(kind, where={kind.TABLE.key: key}, limit=1, lock=lock)
        return found[0] if found else None

    async def find(
        self,
        kind: type[RowT],
        *,
        where: Mapping[str, object] | None = None,
        after: object | None = None,
        descending: bool = False,
        limit: int = 1000,
        lock: bool = False,
    ) -> list[RowT]:
        text, arguments = mapper(kind).find(
            where=where or {}, after=after, descending=descending, limit=limit, lock=lock
        )
        with translated(network=True):
            return rows_of(kind, await self.connection.fetch(text, *arguments))

    async def put(self, row: Row) -> None:
        table = mapper(type(row))
        await self._execute(table.put, *table.values(row))

    async def add(self, row: Row) -> bool:
        table = mapper(type(row))
        return await self._execute(table.add, *table.values(row)) == 1

    async def remove(self, kind: type[Row], key: str) -> None:
        await self._execute(mapper(kind).remove, key)

    async def emit(self, aggregate: str, subject: str, message: Struct) -> None:
        """The upsert locks the aggregate until the end of the transaction: versions have no gap
        and ids of one aggregate rise in commit order.
        """
        tag = str(message.__struct_config__.tag)
        headers = {**logs.headers_out(), "ce-type": tag, "ce-source": self._service}
        await self._execute(_EMIT, aggregate, self._service, subject, message, headers)

    async def first_sight(self, consumer: str, msg_id: str) -> bool:
        return await self._execute(_FIRST_SIGHT, consumer, msg_id) == 1

    async def park(
        self, *, consumer: str, msg_id: str, subject: str, body: bytes, why: str
    ) -> None:
        await self._execute(_PARK, consumer, msg_id, subject, body, why.replace("\x00", ""))

    async def now(self) -> datetime:
        with translated(network=True):
            now: datetime = await self.connection.fetchval("SELECT clock_timestamp()")
        return now

    async def _execute(self, text: str, *arguments: object) -> int:
        """How many rows it touched."""
        with translated(network=True):
            status: str = await self.connection.execute(text, *arguments)
        return int(status.rsplit(" ", 1)[1])


class PostgresEventLog:
    """ports.EventLog over event_log."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    async def unpublished(self, limit: int) -> Sequence[tuple[int, OutboxEvent]]:
        async with self._database.transaction() as tx:
            records = await tx.connection.fetch(_UNPUBLISHED, limit)
        return [(record["id"], _outgoing(record)) for record in records]

    async def mark_published(self, ids: Sequence[int]) -> None:
        async with self._database.transaction() as tx:
            await tx.connection.execute(_MARK, list(ids))

    async def unpublish_since(self, seconds: float) -> int:
        async with self._database.transaction() as tx:
            status: str = await tx.connection.execute(_UNPUBLISH, seconds)
        return int(status.rsplit(" ", 1)[1])


_EMIT = """
WITH next AS (
    INSERT INTO aggregate_version AS a (aggregate, version) VALUES ($1, 1)
    ON CONFLICT (aggregate) DO UPDATE SET version = a.version + 1
    RETURNING version
)
INSERT INTO event_log (msg_id, aggregate, agg_version, subject, data, headers)
SELECT $2::text || ':' || $1::text || ':' || version, $1, version, $3, $4, $5 FROM next
"""
_FIRST_SIGHT = "INSERT INTO inbox (consumer, msg_id) VALUES ($1, $2) ON CONFLICT DO NOTHING"
_PARK = """
INSERT INTO dead_letter (consumer, msg_id, subject, body, why) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (consumer, msg_id) DO NOTHING
"""
_UNPUBLISHED = """
SELECT id, msg_id, subject, data::text AS data, headers, at
FROM event_log WHERE published_at IS NULL ORDER BY id LIMIT $1
"""
_MARK = "UPDATE event_log SET published_at = clock_timestamp() WHERE id = ANY($1::bigint[])"
_UNPUBLISH = """
UPDATE event_log SET published_at = NULL
WHERE published_at IS NOT NULL AND at > clock_timestamp() - make_interval(secs => $1)
"""


def _outgoing(record: Mapping[str, Any]) -> OutboxEvent:
    headers = {
        **record["headers"],
        "ce-specversion": "1.0",
        "ce-id": record["msg_id"],
        "ce-time": record["at"].isoformat(),
    }
    return OutboxEvent(
        msg_id=record["msg_id"],
        subject=record["subject"],
        data=record["data"].encode(),
        headers=headers,
    )


async def _prepare(connection: asyncpg.Connection) -> None:
    """JSON columns cross as Python values, msgspec's structs included."""
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        format="binary",
        encoder=lambda value: b"\x01" + msgspec.json.encode(value),
        decoder=lambda body: msgspec.json.decode(bytes(body)[1:]),
    )
    await connection.set_type_codec(
        "json",
        schema="pg_catalog",
        format="binary",
        encoder=msgspec.json.encode,
        decoder=lambda body: msgspec.json.decode(bytes(body)),
    )


async def _to_the_end(action: Awaitable[Any]) -> None:
    """Await it even if we are cancelled meanwhile; the cancel is passed on afterwards."""
    task = asyncio.ensure_future(action)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as err:
            cancelled = err
    task.result()
    if cancelled is not None:
        raise cancelled


async def _rolled_back(transaction: Any) -> None:
    try:
        await _to_the_end(transaction.rollback())
    except Exception as err:  # noqa: BLE001 - the connection is gone, the transaction with it
        _log.info("rollback.lost", error=type(err).__name__)
