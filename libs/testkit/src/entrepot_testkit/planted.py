"""Protocol mistakes to plant in a simulation: wrappers around ports, each breaking one rule.

A checker is believed when it catches these. They wrap what the composition root hands out, so the
product has no switch for any of them.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

from msgspec import Struct

from entrepot_chassis.ports import BatchHandler, Delivered, OutboxEvent


class Around:
    """Passes on everything it does not break itself."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class AcksBeforeCommit(Around):
    """Bus: says "handled" when the handler has only begun."""

    def consume(
        self, *, handler: BatchHandler, **options: Any
    ) -> AbstractAsyncContextManager[None]:
        running: set[asyncio.Task[None]] = set()

        async def begin_only(batch: Sequence[Delivered]) -> None:
            async def handle() -> None:
                with suppress(Exception):  # nobody would hear of it any more
                    await handler(batch)

            task = asyncio.get_running_loop().create_task(handle())
            running.add(task)
            task.add_done_callback(running.discard)

        context: AbstractAsyncContextManager[None] = self.inner.consume(
            handler=begin_only, **options
        )
        return context


class BlindToWipes(Around):
    """Bus: cannot tell that the broker lost its store, so nothing is published again."""

    def __getattr__(self, name: str) -> Any:
        if name == "stream_mark":
            raise AttributeError(name)
        return super().__getattr__(name)


class MarksBeforePublishing(Around):
    """Database: events count as published when they are taken up."""

    @property
    def events(self) -> "MarksBeforePublishing":
        return MarksBeforePublishing(self.inner.events)

    async def unpublished(self, limit: int) -> Sequence[tuple[int, OutboxEvent]]:
        taken: Sequence[tuple[int, OutboxEvent]] = await self.inner.unpublished(limit)
        if taken:
            await self.inner.mark_published([number for number, _event in taken])
        return taken


class ForgetsItsInbox(Around):
    """Database: every message is seen for the first time."""

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        async with self.inner.transaction() as tx:
            yield _AlwaysFirst(tx)


class _AlwaysFirst(Around):
    async def first_sight(self, consumer: str, msg_id: str) -> bool:
        await self.inner.first_sight(consumer, msg_id)
        return True


class EmitsAfterCommit(Around):
    """Database: the event about a change is a second transaction."""

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        async with self.inner.transaction() as tx:
            late = _LateEmits(tx)
            yield late
        if late.emitted:
            async with self.inner.transaction() as tx:
                for aggregate, subject, message in late.emitted:
                    await tx.emit(aggregate, subject, message)


class _LateEmits(Around):
    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.emitted: list[tuple[str, str, Struct]] = []

    async def emit(self, aggregate: str, subject: str, message: Struct) -> None:
        self.emitted.append((aggregate, subject, message))


class LocksNothing(Around):
    """Database: `lock=True` reads without locking, so two writers overwrite each other."""

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        async with self.inner.transaction() as tx:
            yield _Unlocked(tx)


class _Unlocked(Around):
    async def get(self, kind: Any, key: str, *, lock: bool = False) -> Any:
        del lock
        return await self.inner.get(kind, key)

    async def find(self, kind: Any, *, lock: bool = False, **options: Any) -> Any:
        del lock
        return await self.inner.find(kind, **options)
