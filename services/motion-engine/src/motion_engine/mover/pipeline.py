"""Parts on their way: bodies that stream leaves, and the bounded loops that send them.

Memory of one transfer, bytes:

    random source      parts_in_flight x (2 x 4 MiB leaf + 1 MiB slice + socket)
    sequential source  (parts_in_flight + 1) x part_bytes + 4 MiB leaf + socket

where part_bytes of a sequential source is 16 MiB for its first 1,000 parts (parts.sequential) and
socket is about 0.5 MiB. Part size does not appear for random sources: their bodies read as they
send. A process holds about 70 MiB of code beside `slots` times that. tests/mover/test_memory.py
holds both lines against it.
"""

import asyncio
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager

from msgspec import Struct

from entrepot_contracts.errors import Code, Refused
from entrepot_plugin.ports import Buffer, PartReceipt, PartWriter
from motion_engine.mover.digest import LEAF_BYTES, ZEROS, LeafTable, runs_digest
from motion_engine.mover.parts import Part, sequential
from motion_engine.mover.progress import Progress
from motion_engine.mover.sources import Cutter, LeafSource, nonzero
from motion_engine.mover.threads import Hops, outcome

SLICE_BYTES = 1 << 20
_ZERO_VIEW = memoryview(ZEROS)

OnSent = Callable[[Part, PartReceipt], Awaitable[None]]


class LeafBody:
    """Bytes of one part, read and hashed while they are sent; every walk reads again."""

    def __init__(
        self, source: LeafSource, part: Part, *, dense: bool, table: LeafTable, progress: Progress
    ) -> None:
        self._source = source
        self._part = part
        self._dense = dense
        self._table = table
        self._progress = progress

    def __len__(self) -> int:
        return self._part.length

    async def __aiter__(self) -> AsyncIterator[Buffer]:
        position = self._start()
        async with aclosing(self._runs(skip_zeros=False)) as runs:
            async for offset, data in runs:
                if not self._dense:
                    for filler in slices(_ZERO_VIEW, offset - position):
                        yield self._moved(filler)
                for piece in slices(data):
                    yield self._moved(piece)
                position = offset + len(data)
                del data, piece
        if not self._dense:
            for filler in slices(_ZERO_VIEW, self._part.offset + self._part.length - position):
                yield self._moved(filler)

    async def pieces(self) -> AsyncIterator[tuple[int, Buffer]]:
        self._start()
        async with aclosing(self._runs(skip_zeros=True)) as runs:
            async for offset, data in runs:
                at = offset
                for piece in slices(data):
                    self._moved(piece)
                    yield at, piece
                    at += len(piece)
                del data, piece

    def _start(self) -> int:
        self._progress.part_begins(self._part.number)
        return self._part.first_leaf * LEAF_BYTES

    async def _runs(self, *, skip_zeros: bool) -> AsyncGenerator[tuple[int, Buffer], None]:
        part = self._part
        leaves = self._source.leaves(part.first_leaf, part.end_leaf, skip_zeros=skip_zeros)
        async for leaf in leaves:
            self._table[leaf.index] = leaf.digest
            self._progress.read(sum(len(data) for _, data in leaf.runs))
            rest = deque(leaf.runs)
            del leaf  # what has been sent is not held while the leaf after the next is read
            while rest:
                yield rest.popleft()

    def _moved(self, piece: Buffer) -> Buffer:
        size = len(piece)
        self._progress.part_moves(self._part.number, size, sent=size)
        return piece


class HeldBody:
    """Bytes of one part held in memory: sequential sources can't be read again."""

    def __init__(self, part: Part, chunks: Sequence[Buffer], progress: Progress) -> None:
        self._part = part
        self._chunks = chunks
        self._progress = progress

    def __len__(self) -> int:
        return self._part.length

    async def __aiter__(self) -> AsyncIterator[Buffer]:
        self._progress.part_begins(self._part.number)
        for chunk in self._chunks:
            for piece in slices(chunk):
                self._progress.part_moves(self._part.number, len(piece), sent=len(piece))
                yield piece
                await asyncio.sleep(0)  # a sink faster than us must not hold the loop

    async def pieces(self) -> AsyncIterator[tuple[int, Buffer]]:
        self._progress.part_begins(self._part.number)
        offset = self._part.offset
        for chunk in self._chunks:
            for at, run in nonzero(offset, chunk):
                done = 0
                for piece in slices(run):
                    self._progress.part_moves(self._part.number, len(piece), sent=len(piece))
                    yield at + done, piece
                    done += len(piece)
            offset += len(chunk)
            await asyncio.sleep(0)


async def send_parts(
    parts: Iterable[Part],
    body_of: Callable[[Part], LeafBody],
    writer: PartWriter,
    on_sent: OnSent,
    *,
    in_flight: int,
) -> None:
    """Send parts of a random source, `in_flight` at a time; the first error stops all."""
    queue = iter(parts)

    async def sender() -> None:
        for part in queue:
            receipt = await writer.write(part.number, part.offset, body_of(part))
            await on_sent(part, receipt)

    async with lone_errors(), asyncio.TaskGroup() as group:
        for index in range(in_flight):
            group.create_task(sender(), name=f"sender-{index}")


class HeldPart(Struct, frozen=True, kw_only=True):
    """One part of a sequential source, hashed."""

    part: Part
    chunks: tuple[Buffer, ...]
    digests: tuple[bytes, ...]


async def held_parts(
    chunks: AsyncIterator[Buffer],
    *,
    plan: Iterator[Part],
    hops: Hops,
    in_order: Callable[[Sequence[Buffer]], None],
    progress: Progress,
) -> AsyncGenerator[HeldPart, None]:
    """Cut a stream into hashed parts. `in_order` sees every leaf's chunks once, in order, in the
    thread that hashes the leaf: flat checksums and inspection live there.
    """
    cutter = Cutter(chunks)
    ended = False
    while not ended:
        part = next(plan, None)
        if part is None:
            raise Refused(
                Code.SOURCE_TOO_LARGE,
                "the source has more bytes than can be stored as one object",
                field="url",
                hint="use a smaller image",
            )
        held: list[Buffer] = []
        hashes: list[bytes] = []
        ahead = None
        for index in range(part.first_leaf, part.end_leaf):
            taken = await cutter.take(LEAF_BYTES)
            size = sum(len(chunk) for chunk in taken)
            progress.read(size)
            ended = size < LEAF_BYTES
            if ahead is not None:
                hashes.append(await outcome(ahead))
                ahead = None
            if size:
                held.extend(taken)
                ahead = hops.start(_hash_leaf, index * LEAF_BYTES, size, taken, in_order)
            if ended:
                break
        if ahead is not None:
            hashes.append(await outcome(ahead))
        if held:
            yield _held(part, held, hashes)


async def send_held(
    parts: AsyncIterator[HeldPart],
    writer: PartWriter,
    skip: Callable[[HeldPart], bool],
    on_sent: Callable[[HeldPart, PartReceipt], Awaitable[None]],
    *,
    in_flight: int,
    progress: Progress,
) -> None:
    """Send parts as they fill; at most `in_flight` are being sent while one more fills."""
    free = asyncio.Semaphore(in_flight)

    async def send(held: HeldPart) -> None:
        try:
            part = held.part
            body = HeldBody(part, held.chunks, progress)
            receipt = await writer.write(part.number, part.offset, body)
            await on_sent(held, receipt)
        finally:
            free.release()

    async with lone_errors(), asyncio.TaskGroup() as group:
        async for held in parts:
            if skip(held):
                continue
            await free.acquire()
            group.create_task(send(held), name=f"part-{held.part.number}")
            del held


def sequential_plan(part_bytes: int, first_number: int, *, equal: bool) -> Iterator[Part]:
    plan = sequential(part_bytes, equal=equal)
    for _ in range(first_number - 1):
        next(plan)
    return plan


def slices(data: Buffer, length: int | None = None) -> Iterator[Buffer]:
    """`data` (or `length` bytes of a repeated page of zeros) in slices of at most 1 MiB."""
    if length is None:
        if len(data) <= SLICE_BYTES:
            yield data
            return
        view = memoryview(data)
        for start in range(0, len(view), SLICE_BYTES):
            yield view[start : start + SLICE_BYTES]
        return
    for start in range(0, length, SLICE_BYTES):
        yield data[: min(SLICE_BYTES, length - start)]


@asynccontextmanager
async def lone_errors() -> AsyncIterator[None]:
    """A task group's error as itself: callers handle the one that came first."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise _first(group) from None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _hash_leaf(
    start: int,
    size: int,
    chunks: Sequence[Buffer],
    in_order: Callable[[Sequence[Buffer]], None],
) -> bytes:
    in_order(chunks)
    offset = start
    runs: list[tuple[int, Buffer]] = []
    for chunk in chunks:
        runs.append((offset, chunk))
        offset += len(chunk)
    return runs_digest(start, size, runs)


def _held(part: Part, chunks: Sequence[Buffer], digests: Sequence[bytes]) -> HeldPart:
    length = sum(len(chunk) for chunk in chunks)
    cut = Part(
        number=part.number,
        first_leaf=part.first_leaf,
        end_leaf=part.first_leaf + len(digests),
        offset=part.offset,
        length=length,
    )
    return HeldPart(part=cut, chunks=tuple(chunks), digests=tuple(digests))
