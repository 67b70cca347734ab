"""PartWriter over one unfinished file: parts anywhere in it, several at once, and again.

A receipt is given only after the part's bytes were flushed (fdatasync), so a mover may trust its
own part records after a crash of the whole host; `parts()` therefore returns () and the records
decide. With `fsync = false` in the config that promise is given up, for scratch directories.
"""

import ctypes
import errno
import os
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Concatenate, ParamSpec, TypeVar

from entrepot_file.copying import clone_or_copy
from entrepot_file.publishing import publish
from entrepot_file.rooms import Place, stat_of
from entrepot_file.threads import Handle, Lanes
from entrepot_plugin.errors import PartsRefused, ResumeLost, StoreError
from entrepot_plugin.ports import Buffer, ObjectStat, PartBody, PartReceipt

P = ParamSpec("P")
T = TypeVar("T")
BATCH_BYTES = 4 << 20  # one thread hop per this much
# One pwritev per this much. The kernel takes page-cache folios as large as the write, and the large
# blocks they come from are those that a VM's host has taken back: touching them again costs more
# than all the rest. Measured on ext4 after 3 GiB were used and freed, fresh file, CPU-s/GiB:
# 0.26 by 64 KiB, 0.25 by 128 KiB, 1.4 by 256 KiB, 2.6 by 1 MiB. On pages the host has: 0.23-0.26.
WRITE_BYTES = 128 << 10
BATCH_CHUNKS = 512  # below IOV_MAX
_PUNCH_HOLE_KEEP_SIZE = 0x03


class FilePartWriter:
    """`sparse`: parts come as pieces and what they skip stays a hole (volumes)."""

    def __init__(
        self,
        *,
        place: Place,
        resumed: Place | None,
        handle: Handle,
        lanes: Lanes,
        size_bytes: int | None,
        sparse: bool,
        fsync: bool,
    ) -> None:
        self.resume = place.part
        self._place = place
        self._predecessor = resumed
        self._handle = handle
        self._lanes = lanes
        self._size_bytes = size_bytes
        self._sparse = sparse
        self._fsync = fsync
        self._holds_more = resumed is not None
        self._seen: set[int] = set()
        self._committed = False

    async def write(self, number: int, offset: int, body: PartBody) -> PartReceipt:
        length = len(body)
        self._check_bounds(offset, length)
        if self._committed:
            raise PartsRefused("a part came after the commit", key=self._place.key)
        if self._predecessor is not None and self._fsync:
            await self._on_file(_make_durable, self._place)  # its parts are on record as durable
        await self._drop_predecessor()
        if self._sparse and (self._holds_more or number in self._seen):
            # An earlier try of this part may have left bytes where this one has a hole.
            await self._on_file(_punch, offset, length)
        self._seen.add(number)
        if self._sparse:
            await self._write_pieces(body.pieces())
        else:
            written = await self._write_pieces(_placed(body, offset))
            if written != length:
                raise StoreError(
                    f"part {number} gave {written} bytes of {length}", key=self._place.key
                )
        if self._fsync:
            await self._on_file(os.fdatasync)
        return PartReceipt(number=number, offset=offset, length=length, tag="")

    async def parts(self) -> Sequence[PartReceipt]:
        return ()

    async def commit(self, parts: Sequence[PartReceipt], size_bytes: int) -> ObjectStat:
        self._check_whole(parts, size_bytes)
        fact = await self._lanes.run(
            lambda: self._handle.use_alone(
                _finish, self._place, size_bytes, sparse=self._sparse, fsync=self._fsync
            ),
            key=self._place.key,
        )
        self._committed = True
        await self._drop_predecessor()
        return stat_of(self._place.key, fact)

    async def abort(self) -> None:
        self._handle.close()
        await self._lanes.run(self._place.forget, key=self._place.key)
        await self._drop_predecessor()

    async def close(self) -> None:
        self._handle.close()

    async def _write_pieces(self, pieces: AsyncIterator[tuple[int, Buffer]]) -> int:
        """Neighbours are gathered, so that a hop into a thread moves megabytes. A full batch is
        written before more is asked for: whoever gives the pieces reads ahead, and then both would
        be in memory.
        """
        batch: list[Buffer] = []
        start = pending = total = 0
        async for offset, chunk in pieces:
            self._check_bounds(offset, len(chunk))
            if batch and offset != start + pending:
                await self._on_file(_write_all, batch, start)
                batch, pending = [], 0
            if not batch:
                start = offset
            batch.append(chunk)
            pending += len(chunk)
            total += len(chunk)
            del chunk  # nobody but the batch holds it
            if pending >= BATCH_BYTES or len(batch) >= BATCH_CHUNKS:
                await self._on_file(_write_all, batch, start)
                batch, pending = [], 0
        if batch:
            await self._on_file(_write_all, batch, start)
        return total

    async def _drop_predecessor(self) -> None:
        if self._predecessor is not None:
            await self._lanes.run(self._predecessor.forget, key=self._place.key)
            self._predecessor = None

    async def _on_file(
        self, call: Callable[Concatenate[int, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        return await self._lanes.on(self._handle, self._place.key, call, *args, **kwargs)

    def _check_bounds(self, offset: int, length: int) -> None:
        if offset < 0 or (self._size_bytes is not None and offset + length > self._size_bytes):
            raise PartsRefused("a part reaches beyond the announced size", key=self._place.key)

    def _check_whole(self, parts: Sequence[PartReceipt], size_bytes: int) -> None:
        if self._size_bytes is not None and size_bytes != self._size_bytes:
            raise PartsRefused("commit and begin disagree about the size", key=self._place.key)
        position = 0
        for part in sorted(parts, key=lambda part: part.offset):
            if part.offset < position or (part.offset > position and not self._sparse):
                raise PartsRefused("the parts overlap or leave a gap", key=self._place.key)
            position = part.offset + part.length
        if position > size_bytes or (position < size_bytes and not self._sparse):
            raise PartsRefused("the parts do not make up the size", key=self._place.key)


def open_part(place: Place, resumed: Place | None, size_bytes: int | None) -> Handle:
    """The file to write into, holding what the resumed one holds. Blocking."""
    handle = Handle(place.make()) if resumed is None else _taken_over(place, resumed)
    if size_bytes is not None:
        handle.use(os.ftruncate, size_bytes)
    return handle


async def _placed(body: PartBody, offset: int) -> AsyncIterator[tuple[int, Buffer]]:
    async for chunk in body:
        yield offset, chunk
        offset += len(chunk)


def _taken_over(place: Place, resumed: Place) -> Handle:
    try:
        source = resumed.open(resumed.part)
    except FileNotFoundError as err:
        raise ResumeLost("the unfinished file is gone", key=place.key) from err
    try:
        handle = Handle(place.make())
        handle.use(lambda target: clone_or_copy(source, target))
    finally:
        os.close(source)
    return handle


def _make_durable(descriptor: int, place: Place) -> None:
    os.fsync(descriptor)
    with place.room.folder(place.parts) as folder:
        os.fsync(folder)


def _write_all(descriptor: int, batch: list[Buffer], offset: int) -> None:
    views = [memoryview(chunk) for chunk in batch]
    while views:
        written = os.pwritev(descriptor, _first_bytes(views), offset)
        offset += written
        while views and written >= len(views[0]):
            written -= len(views.pop(0))
        if written:
            views[0] = views[0][written:]


def _first_bytes(views: list[memoryview]) -> list[memoryview]:
    """The first WRITE_BYTES of the views, or all there is."""
    first: list[memoryview] = []
    room = WRITE_BYTES
    for view in views:
        first.append(view[:room])
        room -= len(first[-1])
        if not room:
            break
    return first


def _finish(
    descriptor: int, place: Place, size_bytes: int, *, sparse: bool, fsync: bool
) -> os.stat_result:
    held_bytes = os.fstat(descriptor).st_size
    if held_bytes < size_bytes and not sparse:
        raise PartsRefused("the file is shorter than its parts", key=place.key)
    if held_bytes != size_bytes:
        os.ftruncate(descriptor, size_bytes)
    return publish(descriptor, place, fsync=fsync)


def _punch(descriptor: int, offset: int, length: int) -> None:
    """Zeros by a hole where the file system can, else by writing them."""
    if not length:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.fallocate(
        descriptor, _PUNCH_HOLE_KEEP_SIZE, ctypes.c_int64(offset), ctypes.c_int64(length)
    )
    if done == 0:
        return
    number = ctypes.get_errno()
    if number not in {errno.EOPNOTSUPP, errno.ENOSYS}:
        raise OSError(number, os.strerror(number))
    zeros = bytes(min(length, BATCH_BYTES))
    for start in range(offset, offset + length, len(zeros)):
        os.pwrite(descriptor, zeros[: offset + length - start], start)
