"""Repeating what a store says may work later: stamina decides when, within the caller's time."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Generic, TypeVar

import stamina
from msgspec import Struct

from entrepot_plugin.errors import ResumeLost, Stalled, StoreError, Unreachable
from entrepot_plugin.ports import Buffer, ObjectStat, PartBody, PartReceipt
from entrepot_plugin.wrappers.layers import Layer, Listing, Read, Write

T = TypeVar("T")


class RetryPolicy(Struct, frozen=True, kw_only=True):
    """`call_s` and `part_s` are the caller's time-outs for one call and for one part with all its
    tries: nothing is tried or waited for beyond them. `jitter_s` 0 makes waits reproducible.
    """

    attempts_max: int = 5
    call_s: float = 60.0
    part_s: float = 900.0
    wait_first_s: float = 0.1
    wait_max_s: float = 10.0
    jitter_s: float = 0.5


class Retrying(Layer):
    """A stream that breaks goes on from the byte, a listing from the key, where it broke."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy

    async def call(self, op: str, key: str, action: Callable[[], Awaitable[T]]) -> T:
        del op
        return await self._retried(action, key=key, budget_s=self._policy.call_s)

    async def write(
        self, key: str, write: Write, number: int, offset: int, body: PartBody
    ) -> PartReceipt:
        return await self._retried(
            lambda: write(number, offset, body), key=key, budget_s=self._policy.part_s
        )

    async def put(
        self, key: str, put: Callable[[str, bytes], Awaitable[ObjectStat]], data: bytes
    ) -> ObjectStat:
        return await self._retried(lambda: put(key, data), key=key, budget_s=self._policy.part_s)

    async def read(self, key: str, read: Read, start: int, end: int) -> AsyncIterator[Buffer]:
        source = _Source(lambda position: read(key, position, end), start)
        try:
            async for chunk in self._steadily(source, key):
                source.position += len(chunk)
                yield chunk
        finally:
            await source.close()

    async def list(self, listing: Listing, prefix: str) -> AsyncIterator[ObjectStat]:
        source: _Source[ObjectStat] = _Source(lambda _: listing(prefix), 0)
        last = ""
        try:
            async for stat in self._steadily(source, prefix):
                if stat.key > last:  # a listing begun again repeats what was seen
                    last = stat.key
                    yield stat
        finally:
            await source.close()

    async def _steadily(self, source: "_Source[T]", key: str) -> AsyncIterator[T]:
        """Each item gets a budget of its own, so a stream that moves is never cut off."""
        while True:
            try:
                item = await source.next()
            except StoreError as err:
                item = await self._retried(
                    _raising_first(err, source.next), key=key, budget_s=self._policy.call_s
                )
            if item is None:
                return
            yield item

    async def _retried(self, action: Callable[[], Awaitable[T]], *, key: str, budget_s: float) -> T:
        loop, policy = asyncio.get_running_loop(), self._policy
        deadline = loop.time() + budget_s
        last: StoreError | None = None

        def again(err: Exception) -> bool | float:
            nonlocal last
            if not isinstance(err, StoreError) or not err.retryable or isinstance(err, ResumeLost):
                return False
            last = err
            told_s = err.after_s if isinstance(err, Unreachable) else None
            if loop.time() + (told_s or 0.0) >= deadline:
                return False
            return True if told_s is None else told_s

        try:
            async with asyncio.timeout_at(deadline) as limit:
                async for attempt in stamina.retry_context(
                    on=again,
                    attempts=policy.attempts_max,
                    timeout=None,
                    wait_initial=policy.wait_first_s,
                    wait_max=policy.wait_max_s,
                    wait_jitter=policy.jitter_s,
                ):
                    with attempt:
                        return await action()
        except TimeoutError as err:
            if not limit.expired():
                raise
            raise last or Stalled("the store did not answer in the time given", key=key) from err
        raise AssertionError("stamina ends by returning or raising")


class _Source(Generic[T]):
    """An iterator that is opened anew, at `position`, after it broke."""

    def __init__(self, begin: Callable[[int], AsyncIterator[T]], position: int) -> None:
        self._begin = begin
        self._items: AsyncIterator[T] | None = None
        self.position = position

    async def next(self) -> T | None:
        """None at the end."""
        if self._items is None:
            self._items = self._begin(self.position)
        try:
            return await anext(self._items, None)
        except StoreError:
            self._items = None
            raise

    async def close(self) -> None:
        if isinstance(self._items, AsyncGenerator):
            await self._items.aclose()


def _raising_first(
    err: StoreError, action: Callable[[], Awaitable[T]]
) -> Callable[[], Awaitable[T]]:
    """What has failed already is the first try."""
    failures = [err]

    async def attempt() -> T:
        if failures:
            raise failures.pop()
        return await action()

    return attempt
