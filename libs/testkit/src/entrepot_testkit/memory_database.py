"""ports.Database in memory: what is committed outlives every simulated process.

Semantics of the real one at READ COMMITTED: statements see what is committed when they run plus
their own writes; rows written or read with `lock` stay locked to the end; a transaction commits as
a whole or leaves nothing. Rows are kept as JSON, so a field that would not survive the real
database does not survive here. `history` keeps every committed version of every row for the checks.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import msgspec

from entrepot_chassis.ports import DatabaseUnavailable, OutboxEvent, Row
from entrepot_testkit.fate import CALM, Fate
from entrepot_testkit.memory_locks import Holder, Locks
from entrepot_testkit.memory_transaction import (
    DeadLetter,
    Guard,
    LogEntry,
    MemoryTransaction,
    Unique,
)
from entrepot_testkit.sim_clock import SimClock
from entrepot_testkit.sim_loop import note
from entrepot_testkit.sim_process import Incarnation

RowT = TypeVar("RowT", bound=Row)


class MemoryDatabase:
    """The server's side: one service's schema. `unique` names what is unique in its tables besides
    the key, `guards` stand for their BEFORE UPDATE triggers: both as in its migrations.
    """

    def __init__(
        self,
        fate: Fate | None = None,
        *,
        service: str,
        unique: Mapping[str, Sequence[Unique]] | None = None,
        guards: Mapping[str, Guard] | None = None,
    ) -> None:
        self.service = service
        self.fate = fate or Fate(0, CALM)
        self.unique = dict(unique or {})
        self.guards = dict(guards or {})
        self.clock = SimClock()
        self.locks = Locks()
        self.tables: dict[str, dict[str, bytes]] = defaultdict(dict)
        self.history: dict[tuple[str, str], list[bytes | None]] = defaultdict(list)
        self.log: dict[int, LogEntry] = {}
        self.versions: dict[str, int] = defaultdict(int)
        self.inbox: set[tuple[str, str]] = set()
        self.dead_letters: list[DeadLetter] = []
        self.hints: list[MemoryHint] = []
        self._last_log_id = 0
        self._decoded: dict[tuple[type[Row], bytes], Row] = {}

    def connection(self, life: Incarnation | None = None) -> "MemoryConnection":
        return MemoryConnection(self, life)

    def next_log_id(self) -> int:
        self._last_log_id += 1
        return self._last_log_id

    def glance(self, kind: type[RowT], body: bytes) -> RowT:
        """The row of these bytes, decoded once: to look at, never to hand out."""
        found = self._decoded.get((kind, body))
        if found is None:
            found = self._decoded[kind, body] = msgspec.json.decode(body, type=kind)
        return found  # type: ignore[return-value]

    def rows(self, kind: type[RowT]) -> list[RowT]:
        """What is committed now, for checks; ordered by key."""
        table = self.tables[kind.TABLE.name]
        return [msgspec.json.decode(table[key], type=kind) for key in sorted(table)]

    def versions_of(self, kind: type[RowT], key: str) -> list[RowT | None]:
        """Every committed version of a row, oldest first; None where it was removed."""
        return [
            None if body is None else msgspec.json.decode(body, type=kind)
            for body in self.history[kind.TABLE.name, key]
        ]

    def apply(self, transaction: MemoryTransaction) -> None:
        """Commit: everything at once, between two steps of the loop."""
        for (table, key), body in transaction.writes.items():
            if body is None:
                self.tables[table].pop(key, None)
            else:
                self.tables[table][key] = body
            self.history[table, key].append(body)
        if transaction.emitted and not self.fate.strikes("publish_lost", "NOTIFY"):
            for hint in self.hints:
                hint.rung.set()
        for entry in transaction.emitted:
            self.log[entry.id] = entry
            self.versions[entry.aggregate] = entry.agg_version
        self.inbox |= transaction.sights
        known = {(letter.consumer, letter.msg_id) for letter in self.dead_letters}
        self.dead_letters += [
            letter for letter in transaction.parked if (letter.consumer, letter.msg_id) not in known
        ]


class MemoryHint:
    """LISTEN: told of commits that emitted, unless the notice got lost."""

    def __init__(self) -> None:
        self.rung = asyncio.Event()

    async def wait(self, timeout_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.rung.wait()
        self.rung.clear()


class MemoryConnection:
    """One process' pool: implements ports.Database and ports.EventLog, and what the relay needs."""

    def __init__(self, store: MemoryDatabase, life: Incarnation | None = None) -> None:
        self.store = store
        self.life = life

    def check(self) -> None:
        if self.life is not None:
            self.life.check()

    async def statement(self) -> None:
        """The round trip of one statement; the process may die in it."""
        self.check()
        await asyncio.sleep(self.store.fate.statement_s())
        self.check()

    async def ping(self) -> None:
        await self.statement()

    def transaction(self) -> AbstractAsyncContextManager[MemoryTransaction]:
        return self._transaction()

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[MemoryTransaction]:
        self.check()
        transaction = MemoryTransaction(self)
        release = self._released_on_death(transaction.holder)
        try:
            await self.statement()
            yield transaction
            await self._commit(transaction)
        finally:
            transaction.over = True
            release()

    async def _commit(self, transaction: MemoryTransaction) -> None:
        fate = self.store.fate
        await self.statement()
        transaction.over = True
        if not transaction.changed:
            return
        if fate.strikes("commit_failed", self.store.service):
            raise DatabaseUnavailable("the connection broke at commit")
        dies = self.life is not None and fate.strikes("crash_at_commit", self.store.service)
        if self.life is not None and dies and fate.pick("crash side", (True, False)):
            await self.life.die("before commit")
        self.store.apply(transaction)
        note(f"{self.store.service} commits {transaction.summary()}")
        self.store.locks.release_all(transaction.holder)
        if self.life is not None and dies:
            await self.life.die("after commit")
        unsaid = fate.strikes("commit_unsaid", self.store.service)
        await self.statement()
        if unsaid:
            raise DatabaseUnavailable("the connection broke after commit was sent")

    def _released_on_death(self, holder: Holder) -> Any:
        """A dead client's transaction is rolled back by the server; returns the releaser."""

        def release() -> None:
            self.store.locks.release_all(holder)

        if self.life is not None:
            self.life.on_death(release)

        def release_now() -> None:
            release()
            if self.life is not None:
                self.life.forget(release)

        return release_now

    @asynccontextmanager
    async def advisory_lock(self, name: str) -> AsyncIterator[Callable[[], bool]]:
        """Held by one session at a time; a dead process' lock is free at once. Gives `held()`."""
        self.check()
        holder = Holder()
        release = self._released_on_death(holder)
        key = ("advisory", name)
        try:
            await self.statement()
            await self.store.locks.acquire(holder, key)
            yield lambda: key in holder.held and not self._session_lost(holder)
        finally:
            release()

    def _session_lost(self, holder: Holder) -> bool:
        if not self.store.fate.strikes("session_lost", self.store.service):
            return False
        self.store.locks.release_all(holder)
        return True

    @asynccontextmanager
    async def event_hint(self) -> AsyncIterator["MemoryHint"]:
        hint = MemoryHint()
        self.store.hints.append(hint)
        try:
            yield hint
        finally:
            self.store.hints.remove(hint)

    # --- the outbox -----------------------------------------------------------------------------

    @property
    def events(self) -> "MemoryConnection":
        return self

    async def unpublished(self, limit: int) -> list[tuple[int, OutboxEvent]]:
        await self.statement()
        waiting = (self.store.log[key] for key in sorted(self.store.log))
        return [(entry.id, entry.event) for entry in waiting if entry.published_at is None][:limit]

    async def mark_published(self, ids: Sequence[int]) -> None:
        await self.statement()
        now = self.store.clock.now()
        for key in ids:
            self.store.log[key].published_at = now
        await self.statement()

    async def unpublish_since(self, seconds: float) -> int:
        await self.statement()
        since = self.store.clock.now() - timedelta(seconds=seconds)
        again = [
            entry
            for entry in self.store.log.values()
            if entry.published_at is not None and entry.at >= since
        ]
        for entry in again:
            entry.published_at = None
        await self.statement()
        return len(again)


__all__ = ["MemoryConnection", "MemoryDatabase"]
