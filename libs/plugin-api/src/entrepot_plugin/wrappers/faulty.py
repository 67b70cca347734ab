"""A store that misbehaves by script: what every caller and every wrapper must survive."""

from collections.abc import AsyncIterator, Awaitable, Callable
from enum import StrEnum
from typing import TypeVar

from msgspec import Struct

from entrepot_plugin.bodies import BytesBody
from entrepot_plugin.errors import StoreError, Unreachable
from entrepot_plugin.ports import Buffer, ObjectStat, PartBody, PartReceipt
from entrepot_plugin.wrappers.layers import Layer, Listing, Read, Write
from entrepot_plugin.wrappers.throttled import Ticker

T = TypeVar("T")


class FaultKind(StrEnum):
    FAIL = "fail"  # an error before any effect
    UNSAID = "unsaid"  # the effect, and then an error ("committed but answered error")
    SLOW = "slow"  # the effect, after `seconds`
    CUT = "cut"  # half of the stream or body, then an error
    HALF_WRITTEN = "half_written"  # half of the part is stored under its number, then an error
    WRONG_BYTES = "wrong_bytes"  # success, with a flipped bit
    SHORT = "short"  # success, with bytes missing at the end
    STALE = "stale"  # a listing as it was when this fault was first met


class Fault(Struct, frozen=True, kw_only=True):
    """Happens to calls of `op` whose key contains `key`: `after` of them pass, then `times`."""

    op: str
    kind: FaultKind
    times: int = 1
    after: int = 0
    key: str = ""
    seconds: float = 0.0
    error: StoreError | None = None


class Faulty(Layer):
    """`script` is worked off in the order of the calls; `met` tells which faults happened."""

    def __init__(self, *script: Fault, clock: Ticker | None = None) -> None:
        self._script = script
        self._seen = [0] * len(script)
        self._clock = clock
        self._listings: dict[str, list[ObjectStat]] = {}
        self.met: list[Fault] = []

    async def call(self, op: str, key: str, action: Callable[[], Awaitable[T]]) -> T:
        return await self._around(self._next(op, key), action)

    async def write(
        self, key: str, write: Write, number: int, offset: int, body: PartBody
    ) -> PartReceipt:
        fault = self._next("write", key)
        kind = fault.kind if fault else None
        if kind in {FaultKind.CUT, FaultKind.HALF_WRITTEN, FaultKind.WRONG_BYTES}:
            assert fault is not None
            data = b"".join([bytes(chunk) async for chunk in body])
            if kind is FaultKind.WRONG_BYTES:
                return await write(number, offset, BytesBody(_flipped(data), offset=offset))
            if kind is FaultKind.HALF_WRITTEN:
                half = BytesBody(data[: len(data) // 2], offset=offset)
                await write(number, offset, half)
            raise _error(fault)
        return await self._around(fault, lambda: write(number, offset, body))

    async def put(
        self, key: str, put: Callable[[str, bytes], Awaitable[ObjectStat]], data: bytes
    ) -> ObjectStat:
        fault = self._next("put", key)
        if fault and fault.kind is FaultKind.WRONG_BYTES:
            return await put(key, _flipped(data))
        return await self._around(fault, lambda: put(key, data))

    async def read(self, key: str, read: Read, start: int, end: int) -> AsyncIterator[Buffer]:
        fault = self._next("read", key)
        await self._before(fault)
        half = start + (end - start) // 2
        kind = fault.kind if fault else None
        stop = half if kind in {FaultKind.CUT, FaultKind.SHORT} else end
        first = True
        async for chunk in read(key, start, stop):
            yield _flipped(bytes(chunk)) if first and kind is FaultKind.WRONG_BYTES else chunk
            first = False
        if fault and kind in {FaultKind.CUT, FaultKind.UNSAID}:
            raise _error(fault)

    async def list(self, listing: Listing, prefix: str) -> AsyncIterator[ObjectStat]:
        fault = self._next("list", prefix)
        await self._before(fault)
        if fault and fault.kind is FaultKind.STALE and prefix in self._listings:
            found = self._listings[prefix]
        else:
            found = [stat async for stat in listing(prefix)]
            self._listings.setdefault(prefix, found)
        half = len(found) // 2
        kind = fault.kind if fault else None
        for stat in found[:half] if kind in {FaultKind.CUT, FaultKind.SHORT} else found:
            yield stat
        if fault and kind is FaultKind.CUT:
            raise _error(fault)

    def _next(self, op: str, key: str) -> Fault | None:
        """The first fault of the script whose turn it is. Every matching line counts the call."""
        chosen: Fault | None = None
        for at, fault in enumerate(self._script):
            if fault.op != op or fault.key not in key:
                continue
            self._seen[at] += 1
            if chosen is None and fault.after < self._seen[at] <= fault.after + fault.times:
                chosen = fault
        if chosen is not None:
            self.met.append(chosen)
        return chosen

    async def _around(self, fault: Fault | None, action: Callable[[], Awaitable[T]]) -> T:
        await self._before(fault)
        result = await action()
        if fault and fault.kind is FaultKind.UNSAID:
            raise _error(fault)
        return result

    async def _before(self, fault: Fault | None) -> None:
        if fault is None:
            return
        if fault.kind is FaultKind.FAIL:
            raise _error(fault)
        if fault.kind is FaultKind.SLOW:
            assert self._clock, "a slow fault needs a clock"
            await self._clock.sleep(fault.seconds)


def _error(fault: Fault) -> StoreError:
    return fault.error or Unreachable(f"scripted: {fault.op} {fault.kind}")


def _flipped(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:] if data else data
