"""Bytes and bodies that the conformance suites send: reproducible, and misbehaving on order."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence

from entrepot_plugin.bodies import BytesBody
from entrepot_plugin.ports import (
    Buffer,
    ObjectStat,
    ObjectStore,
    PartReceipt,
    PartWriter,
    VolumeReader,
)


class SourceBroke(Exception):
    """What a source raises in the middle of a part; a store must hand it on as it is."""


def pattern(length: int, seed: str) -> bytes:
    """Bytes without runs, the same for the same seed."""
    return hashlib.shake_128(seed.encode()).digest(length)


class BrokenBody(BytesBody):
    """Gives half its bytes, then raises."""

    async def __aiter__(self) -> AsyncIterator[Buffer]:
        yield memoryview(self._data)[: len(self._data) // 2]
        raise SourceBroke("the source broke")

    async def pieces(self) -> AsyncIterator[tuple[int, Buffer]]:
        yield self._offset, memoryview(self._data)[: len(self._data) // 2]
        raise SourceBroke("the source broke")


class HangingBody(BytesBody):
    """Gives half its bytes, says so, and never goes on."""

    def __init__(self, data: bytes, *, offset: int = 0) -> None:
        super().__init__(data, offset=offset)
        self.reached = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[Buffer]:
        yield memoryview(self._data)[: len(self._data) // 2]
        self.reached.set()
        await asyncio.Event().wait()

    async def pieces(self) -> AsyncIterator[tuple[int, Buffer]]:
        yield self._offset, memoryview(self._data)[: len(self._data) // 2]
        self.reached.set()
        await asyncio.Event().wait()


def parts_of(data: bytes, part_bytes: int) -> list[tuple[int, int, BytesBody]]:
    """(number, offset, body) of parts of equal length but the last."""
    return [
        (number, offset, BytesBody(data[offset : offset + part_bytes], offset=offset))
        for number, offset in enumerate(range(0, len(data), part_bytes), start=1)
    ]


async def write_all(
    writer: PartWriter, parts: Sequence[tuple[int, int, BytesBody]]
) -> list[PartReceipt]:
    return [await writer.write(number, offset, body) for number, offset, body in parts]


async def store_object(store: ObjectStore, key: str, data: bytes, part_bytes: int) -> ObjectStat:
    writer = await store.begin(key, len(data), None)
    try:
        receipts = await write_all(writer, parts_of(data, part_bytes))
        return await writer.commit(receipts, len(data))
    finally:
        await writer.close()


async def read_all(store: ObjectStore, key: str, start: int, end: int) -> bytes:
    return b"".join([bytes(chunk) async for chunk in store.read(key, start, end)])


async def keys(store: ObjectStore, prefix: str) -> list[str]:
    return [stat.key async for stat in store.list(prefix)]


async def volume_bytes(reader: VolumeReader) -> bytes:
    return await asyncio.to_thread(reader.pread, 0, reader.size_bytes)
