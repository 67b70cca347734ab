"""One transaction of the memory database: its own writes over what is committed, and its locks."""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec import Struct

from entrepot_chassis.ports import OutboxEvent, Row
from entrepot_testkit.memory_locks import Holder

if TYPE_CHECKING:
    from entrepot_testkit.memory_database import MemoryConnection

RowT = TypeVar("RowT", bound=Row)


Guard = Callable[[Any, Any], None]  # row before, row after; raises what the trigger would


class Unique(Struct, frozen=True, kw_only=True):
    """A unique index; `where` makes it a partial one."""

    columns: tuple[str, ...]
    where: Callable[[Any], bool] | None = None

    def covers(self, row: Row) -> bool:
        held = [getattr(row, column) for column in self.columns]
        return None not in held and (self.where is None or self.where(row))


class LogEntry(Struct, kw_only=True):
    """A row of event_log. The id is drawn when emitted, so ids become visible out of order."""

    id: int
    aggregate: str
    agg_version: int
    event: OutboxEvent
    at: datetime
    published_at: datetime | None = None


class DeadLetter(Struct, frozen=True, kw_only=True):
    consumer: str
    msg_id: str
    subject: str
    body: bytes
    why: str


class MemoryTransaction:
    """ports.Transaction."""

    def __init__(self, connection: "MemoryConnection") -> None:
        self._connection = connection
        self._store = connection.store
        self.holder = Holder()
        self.writes: dict[tuple[str, str], bytes | None] = {}
        self.emitted: list[LogEntry] = []
        self.sights: set[tuple[str, str]] = set()
        self.parked: list[DeadLetter] = []
        self.over = False

    @property
    def changed(self) -> bool:
        return bool(self.writes or self.emitted or self.sights or self.parked)

    def summary(self) -> str:
        rows = " ".join(f"{table}/{key[-4:]}" for table, key in self.writes)
        return f"{rows} +{len(self.emitted)} events"

    # --- rows -----------------------------------------------------------------------------------

    async def get(self, kind: type[RowT], key: str, *, lock: bool = False) -> RowT | None:
        await self._statement()
        if lock and self._body(kind, key) is not None:
            await self._lock(kind, key)
        return self._row(kind, key)

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
        await self._statement()
        wanted = _Wanted(kind, where or {})
        keys = sorted(self._keys(kind), reverse=descending)
        if after is not None:
            keys = [key for key in keys if (key < str(after)) == descending and key != str(after)]
        found: list[RowT] = []
        for key in [key for key in keys if self._matches(wanted, kind, key)]:
            if len(found) == limit:
                break
            if lock:
                await self._lock(kind, key)  # it may change while we wait
            if not lock or self._matches(wanted, kind, key):
                row = self._row(kind, key)
                assert row is not None
                found.append(row)
        return found

    async def put(self, row: Row) -> None:
        await self._statement()
        key = _key_of(row)
        await self._lock(type(row), key)
        if not await self._unique_columns_free(row, key):
            raise ValueError(f"{row.TABLE.name} {key}: a unique column is taken")
        before = self._row(type(row), key)
        guard = self._store.guards.get(row.TABLE.name)
        if before is not None and guard is not None:
            guard(before, row)
        self.writes[row.TABLE.name, key] = _encoded(row)

    async def add(self, row: Row) -> bool:
        await self._statement()
        key = _key_of(row)
        await self._lock(type(row), key)
        if self._body(type(row), key) is not None:
            return False
        if not await self._unique_columns_free(row, key):
            return False
        self.writes[row.TABLE.name, key] = _encoded(row)
        return True

    async def remove(self, kind: type[Row], key: str) -> None:
        await self._statement()
        await self._lock(kind, key)
        if self._body(kind, key) is not None:
            self.writes[kind.TABLE.name, key] = None

    # --- events, inbox, dead letters --------------------------------------------------------------

    async def emit(self, aggregate: str, subject: str, message: Struct) -> None:
        await self._statement()
        await self._store.locks.acquire(self.holder, ("aggregate", aggregate))
        own = sum(entry.aggregate == aggregate for entry in self.emitted)
        version = self._store.versions[aggregate] + own + 1
        event = OutboxEvent(
            msg_id=f"{self._store.service}:{aggregate}:{version}",
            subject=subject,
            data=msgspec.json.encode(message),
        )
        self.emitted.append(
            LogEntry(
                id=self._store.next_log_id(),
                aggregate=aggregate,
                agg_version=version,
                event=event,
                at=self._store.clock.now(),
            )
        )

    async def first_sight(self, consumer: str, msg_id: str) -> bool:
        await self._statement()
        await self._store.locks.acquire(self.holder, ("inbox", consumer, msg_id))
        if (consumer, msg_id) in self._store.inbox or (consumer, msg_id) in self.sights:
            return False
        self.sights.add((consumer, msg_id))
        return True

    async def park(
        self, *, consumer: str, msg_id: str, subject: str, body: bytes, why: str
    ) -> None:
        await self._statement()
        self.parked.append(
            DeadLetter(consumer=consumer, msg_id=msg_id, subject=subject, body=body, why=why)
        )

    async def now(self) -> datetime:
        await self._statement()
        return self._store.clock.now()

    # --- inside -----------------------------------------------------------------------------------

    async def _statement(self) -> None:
        await self._connection.statement()
        assert not self.over, "the transaction has ended"

    async def _lock(self, kind: type[Row], key: str) -> None:
        await self._store.locks.acquire(self.holder, (kind.TABLE.name, key))

    async def _unique_columns_free(self, row: Row, key: str) -> bool:
        kind = type(row)
        for rule in self._store.unique.get(row.TABLE.name, ()):
            if not rule.covers(row):
                continue
            values = {column: getattr(row, column) for column in rule.columns}
            await self._store.locks.acquire(self.holder, (row.TABLE.name, *values.items()))
            wanted = _Wanted(kind, values)
            others = [other for other in self._keys(kind) if other != key]
            if any(self._matches(wanted, kind, other, rule) for other in others):
                return False
        return True

    def _matches(
        self, wanted: "_Wanted", kind: type[Row], key: str, rule: Unique | None = None
    ) -> bool:
        body = self._body(kind, key)
        if body is None:
            return False
        row = self._store.glance(kind, body)
        return wanted.matches(row) and (rule is None or rule.covers(row))

    def _body(self, kind: type[Row], key: str) -> bytes | None:
        own = (kind.TABLE.name, key)
        if own in self.writes:
            return self.writes[own]
        return self._store.tables[kind.TABLE.name].get(key)

    def _row(self, kind: type[RowT], key: str) -> RowT | None:
        body = self._body(kind, key)
        return None if body is None else msgspec.json.decode(body, type=kind)

    def _keys(self, kind: type[Row]) -> Iterator[str]:
        name = kind.TABLE.name
        committed = self._store.tables[name]
        yield from list(committed)
        own = [key for table, key in self.writes if table == name]
        yield from [key for key in own if key not in committed]


class _Wanted:
    """Equality on columns; a list, tuple or set means one of its members."""

    def __init__(self, kind: type[Row], where: Mapping[str, object]) -> None:
        unknown = set(where) - set(kind.__struct_fields__)
        assert not unknown, f"{kind.TABLE.name} has no column {sorted(unknown)}"
        self._where = where

    def matches(self, row: Row) -> bool:
        return all(_equals(getattr(row, name), value) for name, value in self._where.items())


def _equals(held: object, wanted: object) -> bool:
    if isinstance(wanted, list | tuple | set | frozenset):
        return held is not None and held in wanted  # NULL is in no list
    return held == wanted


def _encoded(row: Row) -> bytes:
    body = msgspec.json.encode(row)
    if b"\\u0000" in body:
        raise ValueError(f"{row.TABLE.name}: PostgreSQL keeps no NUL in text")
    return body


def _key_of(row: Row) -> str:
    return str(getattr(row, row.TABLE.key))
