"""Counts calls, bytes, seconds and errors of a store into a sink that belongs to the caller."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol, TypeVar

from entrepot_plugin.errors import StoreError
from entrepot_plugin.ports import Buffer, ObjectStat, PartBody, PartReceipt
from entrepot_plugin.wrappers.layers import Layer, Listing, Read, Write
from entrepot_plugin.wrappers.throttled import Ticker

T = TypeVar("T")
LEFT_EARLY = "left"  # the caller cancelled, or stopped reading


class MeterSink(Protocol):
    def observe(self, op: str, *, outcome: str, moved_bytes: int, seconds: float) -> None:
        """`outcome`: ok, left, or the name of the error. Must not raise."""
        ...


class Metered(Layer):
    def __init__(self, sink: MeterSink, *, clock: Ticker) -> None:
        self._sink = sink
        self._clock = clock

    async def call(self, op: str, key: str, action: Callable[[], Awaitable[T]]) -> T:
        del key
        return await self._measured(op, action, lambda _: 0)

    async def write(
        self, key: str, write: Write, number: int, offset: int, body: PartBody
    ) -> PartReceipt:
        del key
        return await self._measured(
            "write", lambda: write(number, offset, body), lambda receipt: receipt.length
        )

    async def put(
        self, key: str, put: Callable[[str, bytes], Awaitable[ObjectStat]], data: bytes
    ) -> ObjectStat:
        return await self._measured("put", lambda: put(key, data), lambda _: len(data))

    async def read(self, key: str, read: Read, start: int, end: int) -> AsyncIterator[Buffer]:
        began, moved, outcome = self._clock.monotonic(), 0, LEFT_EARLY
        try:
            async for chunk in read(key, start, end):
                moved += len(chunk)
                yield chunk
            outcome = "ok"
        except StoreError as err:
            outcome = type(err).__name__
            raise
        finally:
            self._tell("read", outcome, moved, began)

    async def list(self, listing: Listing, prefix: str) -> AsyncIterator[ObjectStat]:
        began, outcome = self._clock.monotonic(), LEFT_EARLY
        try:
            async for stat in listing(prefix):
                yield stat
            outcome = "ok"
        except StoreError as err:
            outcome = type(err).__name__
            raise
        finally:
            self._tell("list", outcome, 0, began)

    async def _measured(
        self, op: str, action: Callable[[], Awaitable[T]], moved: Callable[[T], int]
    ) -> T:
        began, outcome, moved_bytes = self._clock.monotonic(), LEFT_EARLY, 0
        try:
            result = await action()
            outcome, moved_bytes = "ok", moved(result)
        except Exception as err:
            outcome = type(err).__name__
            raise
        finally:
            self._tell(op, outcome, moved_bytes, began)
        return result

    def _tell(self, op: str, outcome: str, moved_bytes: int, began: float) -> None:
        self._sink.observe(
            op, outcome=outcome, moved_bytes=moved_bytes, seconds=self._clock.monotonic() - began
        )
