"""No more bytes a second through a store than allowed, shared by all that hold the same bucket."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from entrepot_plugin.ports import Buffer, ObjectStat, PartBody, PartReceipt
from entrepot_plugin.wrappers.layers import Layer, Read, Write


class Ticker(Protocol):
    """What is needed of a clock (chassis' or the simulation's)."""

    def monotonic(self) -> float: ...
    async def sleep(self, seconds: float) -> None: ...


class TokenBucket:
    """`rate_bps` bytes a second on average, up to `burst_bytes` at once.

    A debt is allowed and waited for afterwards: a chunk larger than the burst passes, late.
    """

    def __init__(self, *, rate_bps: float, burst_bytes: int, clock: Ticker) -> None:
        assert rate_bps > 0
        self._rate_bps = rate_bps
        self._burst_bytes = burst_bytes
        self._clock = clock
        self._free_bytes = float(burst_bytes)
        self._seen_at = clock.monotonic()

    async def take(self, length: int) -> None:
        """Pass `length` bytes; callers queue up by the debt they find."""
        now = self._clock.monotonic()
        gained = (now - self._seen_at) * self._rate_bps
        self._free_bytes = min(self._burst_bytes, self._free_bytes + gained) - length
        self._seen_at = now
        if self._free_bytes < 0:
            await self._clock.sleep(-self._free_bytes / self._rate_bps)


class Throttled(Layer):
    def __init__(self, bucket: TokenBucket) -> None:
        self._bucket = bucket

    async def write(
        self, key: str, write: Write, number: int, offset: int, body: PartBody
    ) -> PartReceipt:
        del key
        return await write(number, offset, _ThrottledBody(body, self._bucket))

    async def put(
        self, key: str, put: Callable[[str, bytes], Awaitable[ObjectStat]], data: bytes
    ) -> ObjectStat:
        await self._bucket.take(len(data))
        return await put(key, data)

    async def read(self, key: str, read: Read, start: int, end: int) -> AsyncIterator[Buffer]:
        async for chunk in read(key, start, end):
            await self._bucket.take(len(chunk))
            yield chunk


class _ThrottledBody:
    def __init__(self, body: PartBody, bucket: TokenBucket) -> None:
        self._body = body
        self._bucket = bucket

    def __len__(self) -> int:
        return len(self._body)

    async def __aiter__(self) -> AsyncIterator[Buffer]:
        async for chunk in self._body:
            await self._bucket.take(len(chunk))
            yield chunk

    async def pieces(self) -> AsyncIterator[tuple[int, Buffer]]:
        async for offset, chunk in self._body.pieces():
            await self._bucket.take(len(chunk))
            yield offset, chunk
