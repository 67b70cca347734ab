"""Re-reading what a target holds and comparing every leaf with what was read from the source."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from motion_engine.mover.digest import (
    LEAF_BYTES,
    ZEROS,
    LeafTable,
    leaf_count,
    leaf_length,
    zero_digest,
)
from motion_engine.mover.pipeline import lone_errors
from motion_engine.mover.progress import Progress
from motion_engine.mover.sources import LeafSource, damaged
from motion_engine.mover.threads import RunBlocking

STRIDE_LEAVES = 8  # 32 MiB per request to the store

_ZERO_VIEW = memoryview(ZEROS)


class Hasher(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...


async def compare(
    source: LeafSource, table: LeafTable, *, key: str, in_flight: int, progress: Progress
) -> None:
    """Raise Refused(digest_mismatch), naming the range, unless every leaf is the one expected."""
    if source.extents.size_bytes != table.size_bytes:
        raise damaged(key, 0, min(table.size_bytes, source.extents.size_bytes))
    leaves = leaf_count(table.size_bytes)
    strides = iter(range(0, leaves, STRIDE_LEAVES))

    async def checker() -> None:
        for first in strides:
            end = min(first + STRIDE_LEAVES, leaves)
            await _compare_stride(source, table, first, end, key=key, progress=progress)

    async with lone_errors(), asyncio.TaskGroup() as group:
        for index in range(in_flight):
            group.create_task(checker(), name=f"checker-{index}")


async def compare_in_order(
    source: LeafSource,
    table: LeafTable,
    flat: Hasher,
    *,
    key: str,
    run_blocking: RunBlocking,
    progress: Progress,
) -> None:
    """The same in one ordered pass that feeds all logical bytes, holes too, to a flat hash."""
    position = 0

    def fill(until: int) -> Callable[[], None]:
        begin = position

        def zeros() -> None:
            for at in range(begin, until, LEAF_BYTES):
                flat.update(_ZERO_VIEW[: min(LEAF_BYTES, until - at)])

        return zeros

    size = table.size_bytes
    async for leaf in source.leaves(0, leaf_count(size), skip_zeros=False):
        if leaf.digest != table[leaf.index]:
            raise damaged(key, leaf.index, size)
        for offset, data in leaf.runs:
            if offset > position:
                await run_blocking(fill(offset))
            await run_blocking(flat.update, data)
            position = offset + len(data)
        progress.part_moves(leaf.index, sum(len(data) for _, data in leaf.runs), sent=0)
    if position < size:
        await run_blocking(fill(size))


async def _compare_stride(
    source: LeafSource, table: LeafTable, first: int, end: int, *, key: str, progress: Progress
) -> None:
    """Leaves the target has nothing for must be the ones that are zeros."""
    expected = set(table.data_leaves(first, end))
    async for index, digest in source.digests(first, end):
        if digest != table[index]:
            raise damaged(key, index, table.size_bytes)
        expected.discard(index)
        start = index * LEAF_BYTES
        progress.part_moves(first, source.extents.data_bytes(start, start + LEAF_BYTES), sent=0)
    for index in expected:
        if table[index] != zero_digest(leaf_length(table.size_bytes, index)):
            raise damaged(key, index, table.size_bytes)
