"""Sources that can be read anywhere: pinned volumes and stored objects, leaf by leaf.

Each leaf is hashed in the same thread hop that reads (or collects) it. One leaf of look-ahead:
two leaves per reader are in memory, never more. Leaves that are holes are neither read nor given.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Protocol, TypeVar

from msgspec import Struct

from entrepot_contracts.errors import Code, Refused
from entrepot_plugin.ports import Buffer, ObjectStore, VolumeReader
from motion_engine.mover.digest import (
    LEAF_BYTES,
    ZEROS,
    LeafTable,
    Run,
    leaf_length,
    runs_digest,
)
from motion_engine.mover.extents import Extent, ExtentMap
from motion_engine.mover.threads import Hops, outcome

T = TypeVar("T")
READ_STEP_BYTES = 1 << 20
ZERO_STEP_BYTES = 64 << 10  # zero runs shorter than this are not worth a hole


class Leaf(Struct, frozen=True, kw_only=True):
    index: int
    digest: bytes
    runs: tuple[Run, ...]  # ascending; bytes between them are zeros


class LeafSource(Protocol):
    """Logical bytes that stay the same however often they are read."""

    extents: ExtentMap

    def leaves(self, first: int, end: int, *, skip_zeros: bool) -> AsyncIterator[Leaf]:
        """Data leaves of [first, end), ascending. `skip_zeros`: runs without their zero runs."""
        ...

    def digests(self, first: int, end: int) -> AsyncIterator[tuple[int, bytes]]:
        """(index, digest) of the same leaves, for those who need no bytes."""
        ...


class VolumeSource:
    """A pinned generation. Its owner settles `hops` before the reader is closed."""

    def __init__(self, reader: VolumeReader, extents: ExtentMap, hops: Hops) -> None:
        self.extents = extents
        self._reader = reader
        self._hops = hops

    async def leaves(self, first: int, end: int, *, skip_zeros: bool) -> AsyncIterator[Leaf]:
        ahead = None
        for index in self.extents.data_leaves(LEAF_BYTES, first, end):
            hop = self._hops.start(self._read, index, skip_zeros)
            if ahead is not None:
                yield await outcome(ahead)
            ahead = hop
        if ahead is not None:
            yield await outcome(ahead)

    async def digests(self, first: int, end: int) -> AsyncIterator[tuple[int, bytes]]:
        """A leaf is never in memory as a whole, and a step is hashed while the cache holds it."""
        for index in self.extents.data_leaves(LEAF_BYTES, first, end):
            yield index, await outcome(self._hops.start(self._digest, index))

    def _digest(self, index: int) -> bytes:
        start, length, wanted = _span(self.extents, index)
        return runs_digest(start, length, self._steps(wanted))

    def _read(self, index: int, skip_zeros: bool) -> Leaf:  # noqa: FBT001 - called by executor
        start, length, wanted = _span(self.extents, index)
        runs = list(self._steps(wanted))
        return _leaf(index, start, length, runs, skip_zeros=skip_zeros)

    def _steps(self, wanted: Sequence[Extent]) -> Iterator[Run]:
        """In buffers of their own, so that each can go as soon as it is sent or hashed."""
        for offset, count in wanted:
            for at in range(offset, offset + count, READ_STEP_BYTES):
                yield at, self._reader.pread(at, min(READ_STEP_BYTES, offset + count - at))


class ObjectSource:
    """A stored object. With `expect` each leaf is compared before anybody sees it."""

    def __init__(
        self,
        store: ObjectStore,
        key: str,
        extents: ExtentMap,
        *,
        dense: bool,
        hops: Hops,
        expect: LeafTable | None = None,
    ) -> None:
        self.extents = extents
        self._store = store
        self._key = key
        self._dense = dense
        self._hops = hops
        self._expect = expect

    async def leaves(self, first: int, end: int, *, skip_zeros: bool) -> AsyncIterator[Leaf]:
        indices = self.extents.data_leaves(LEAF_BYTES, first, end)
        if not indices:
            return
        ahead = None
        async with aclosing(self._stored(indices)) as stored:
            cutter = Cutter(stored)
            for index in indices:
                start, length, wanted = _span(self.extents, index)
                runs: list[Run] = []
                for offset, count in wanted:
                    runs.extend(_placed(offset, await cutter.take(count)))
                hop = self._hops.start(self._check, index, start, length, runs, skip_zeros)
                if ahead is not None:
                    yield await outcome(ahead)
                ahead = hop
            if ahead is not None:
                yield await outcome(ahead)

    async def digests(self, first: int, end: int) -> AsyncIterator[tuple[int, bytes]]:
        async with closed(self.leaves(first, end, skip_zeros=False)) as leaves:
            async for leaf in leaves:
                yield leaf.index, leaf.digest
                del leaf  # or it would be held while the one after the next is read

    async def _stored(self, indices: Sequence[int]) -> AsyncGenerator[Buffer, None]:
        """Stored bytes of these leaves. Plain objects have none but the runs we want, in one
        range: holes of a plain object were stored as zeros and belong to its extents.
        """
        start = indices[0] * LEAF_BYTES
        end = min((indices[-1] + 1) * LEAF_BYTES, self.extents.size_bytes)
        if self._dense:
            start, end = self.extents.stored_at(start), self.extents.stored_at(end)
        async with closed(self._store.read(self._key, start, end)) as chunks:
            async for chunk in chunks:
                yield chunk

    def _check(
        self,
        index: int,
        start: int,
        length: int,
        runs: list[Run],
        skip_zeros: bool,  # noqa: FBT001 - called by executor
    ) -> Leaf:
        leaf = _leaf(index, start, length, runs, skip_zeros=skip_zeros)
        if self._expect is not None and leaf.digest != self._expect[index]:
            raise damaged(self._key, index, self.extents.size_bytes)
        return leaf


@asynccontextmanager
async def closed(chunks: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """Close a store's iterator with the block: it holds a connection or a file."""
    try:
        yield chunks
    finally:
        close = getattr(chunks, "aclose", None)
        if close is not None:
            await close()


class Cutter:
    """Cuts a stream of chunks at chosen lengths without copying."""

    def __init__(self, chunks: AsyncIterator[Buffer]) -> None:
        self._chunks = chunks
        self._rest: Buffer = b""

    async def take(self, length: int) -> list[Buffer]:
        """Chunks of `length` bytes together; fewer only where the stream ends."""
        taken: list[Buffer] = []
        missing = length
        while missing:
            if not self._rest:
                chunk = await anext(self._chunks, None)
                if chunk is None:
                    break
                self._rest = chunk
                continue
            if len(self._rest) <= missing:
                taken.append(self._rest)
                missing -= len(self._rest)
                self._rest = b""
            else:
                view = memoryview(self._rest)
                taken.append(view[:missing])
                self._rest = view[missing:]
                missing = 0
        return taken


def damaged(key: str, index: int, size_bytes: int) -> Refused:
    start = index * LEAF_BYTES
    end = start + leaf_length(size_bytes, index)
    return Refused(
        Code.DIGEST_MISMATCH,
        "stored bytes are not the bytes that were read when they were stored",
        hint="the copy is damaged: delete it and make it again from another copy",
        facts={"key": key, "range": f"{start}-{end}"},
    )


def nonzero(offset: int, data: Buffer) -> list[Run]:
    """Runs of one chunk without its 64 KiB steps of zeros. Looks at two bytes of a step before it
    compares it: memoryview comparison is slow and most steps show data at once.
    """
    size = len(data)
    view = memoryview(data)
    runs: list[Run] = []
    begin = None
    for step in range(0, size, ZERO_STEP_BYTES):
        stop = min(step + ZERO_STEP_BYTES, size)
        empty = not data[step] and not data[stop - 1] and ZEROS.startswith(bytes(view[step:stop]))
        if empty and begin is not None:
            runs.append((offset + begin, view[begin:step]))
            begin = None
        elif not empty and begin is None:
            begin = step
    if begin is not None:
        runs.append((offset + begin, view[begin:size] if begin else data))
    return runs


def _span(extents: ExtentMap, index: int) -> tuple[int, int, list[Extent]]:
    start = index * LEAF_BYTES
    length = leaf_length(extents.size_bytes, index)
    return start, length, list(extents.runs(start, start + length))


def _placed(offset: int, chunks: Sequence[Buffer]) -> list[Run]:
    runs: list[Run] = []
    for chunk in chunks:
        runs.append((offset, chunk))
        offset += len(chunk)
    return runs


def _leaf(index: int, start: int, length: int, runs: Sequence[Run], *, skip_zeros: bool) -> Leaf:
    digest = runs_digest(start, length, runs)
    if skip_zeros:
        runs = [part for offset, data in runs for part in nonzero(offset, data)]
    return Leaf(index=index, digest=digest, runs=tuple(runs))
