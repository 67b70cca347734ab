"""PartBody over bytes in memory, for probes, tests and small parts."""

from collections.abc import AsyncIterator

from entrepot_plugin.ports import Buffer

CHUNK_BYTES = 1 << 20
HOLE_BYTES = 64 << 10


class BytesBody:
    """Immutable bytes standing at `offset` of the target; may be walked any number of times."""

    def __init__(self, data: bytes, *, offset: int = 0, chunk_bytes: int = CHUNK_BYTES) -> None:
        self._data = data
        self._offset = offset
        self._chunk_bytes = chunk_bytes
        self.walks = 0

    def __len__(self) -> int:
        return len(self._data)

    async def __aiter__(self) -> AsyncIterator[Buffer]:
        self.walks += 1
        view = memoryview(self._data)
        for start in range(0, len(view), self._chunk_bytes):
            yield view[start : start + self._chunk_bytes]

    async def pieces(self) -> AsyncIterator[tuple[int, Buffer]]:
        self.walks += 1
        view = memoryview(self._data)
        for start in range(0, len(view), HOLE_BYTES):
            block = view[start : start + HOLE_BYTES]
            if any(bytes(block)):
                yield self._offset + start, block
