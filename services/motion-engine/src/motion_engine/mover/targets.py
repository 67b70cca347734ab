"""Targets of a copy: an object in an image store, a volume in a primary store.

Whatever is written is invisible until commit, and afterwards until the catalogue points at it.
Keys carry transfer id and epoch, so rivals never meet.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Protocol

from msgspec import Struct

from entrepot_contracts.motion import Copied, PartRecord
from entrepot_contracts.values import Checksum, ImageFormat, Layout, StoredObject
from entrepot_plugin.errors import AlreadyThere, ObjectMissing, ResumeLost
from entrepot_plugin.ports import ObjectStore, PartReceipt, PartWriter, VolumeRef, VolumeStore
from motion_engine.mover.digest import LeafTable
from motion_engine.mover.extents import ALIGN_BYTES, ExtentMap, widen
from motion_engine.mover.manifest import SUFFIX, encode, manifest_of
from motion_engine.mover.sources import LeafSource, ObjectSource, VolumeSource
from motion_engine.mover.threads import Hops


class Written(Struct, frozen=True, kw_only=True):
    """Committed bytes, as far as the target must know to read them back and to publish them."""

    key: str
    extents: ExtentMap
    table: LeafTable
    dense: bool
    target_bytes: int
    format: ImageFormat
    virtual_size_bytes: int
    checksum: Checksum | None


class Target(Protocol):
    may_be_dense: bool  # can leave holes out
    writes_holes: bool  # can keep holes as holes: plain offsets, pieces() instead of all bytes

    def key_for(self, transfer_id: str, epoch: int) -> str: ...
    async def begin(self, key: str, size_bytes: int | None, resume: str | None) -> PartWriter: ...
    async def is_there(self, key: str, size_bytes: int) -> bool:
        """Whether a commit took effect."""
        ...

    async def commit(
        self, key: str, writer: PartWriter, records: Sequence[PartRecord], size_bytes: int
    ) -> None: ...
    def reread(self, written: Written, hops: Hops) -> AbstractAsyncContextManager[LeafSource]: ...
    async def publish(self, written: Written) -> Copied:
        """The result, without its counters."""
        ...

    async def discard(self, key: str, *, committed: bool) -> None:
        """Remove what was written under the key. Gone already = success."""
        ...


class ObjectTarget:
    def __init__(self, store: ObjectStore, prefix: str, *, parts_equal: bool) -> None:
        self.may_be_dense = not parts_equal
        self.writes_holes = False
        self._store = store
        self._prefix = prefix

    def key_for(self, transfer_id: str, epoch: int) -> str:
        return f"{self._prefix}{transfer_id}.{epoch}/data"

    async def begin(self, key: str, size_bytes: int | None, resume: str | None) -> PartWriter:
        return await self._store.begin(key, size_bytes, resume)

    async def is_there(self, key: str, size_bytes: int) -> bool:
        try:
            stat = await self._store.stat(key)
        except ObjectMissing:
            return False
        return stat.size_bytes == size_bytes

    async def commit(
        self, key: str, writer: PartWriter, records: Sequence[PartRecord], size_bytes: int
    ) -> None:
        if records:
            await commit_or_rival(self, key, writer, records, size_bytes)
            return
        await writer.abort()  # nothing but holes: an upload needs parts, an object does not
        await self._store.put(key, b"")

    @asynccontextmanager
    async def reread(self, written: Written, hops: Hops) -> AsyncIterator[LeafSource]:
        yield ObjectSource(
            self._store,
            written.key,
            written.extents,
            dense=written.dense,
            hops=hops,
            expect=written.table,
        )

    async def publish(self, written: Written) -> Copied:
        digest = written.table.root()
        stored = StoredObject(
            key=written.key,
            digest=digest,
            stored_bytes=written.target_bytes,
            format=written.format,
            virtual_size_bytes=written.virtual_size_bytes,
            layout=Layout.EXTENTS if written.dense else Layout.PLAIN,
            checksum=written.checksum,
        )
        manifest = manifest_of(stored, written.extents, written.table.joined())
        await self._store.put(written.key + SUFFIX, encode(manifest))
        return Copied(
            digest=digest,
            virtual_size_bytes=written.virtual_size_bytes,
            bytes_read=0,
            bytes_sent=0,
            stored=stored,
        )

    async def discard(self, key: str, *, committed: bool) -> None:
        del committed  # deleting a key forgets its unfinished uploads as well
        await self._store.delete(key)
        await self._store.delete(key + SUFFIX)


class VolumeTarget:
    """A volume's container; the key is the token that keeps rivals apart."""

    def __init__(self, store: VolumeStore, volume: VolumeRef) -> None:
        self.may_be_dense = False
        self.writes_holes = True
        self._store = store
        self._volume = volume
        self._size_bytes = 0

    def key_for(self, transfer_id: str, epoch: int) -> str:
        return f"{transfer_id}.{epoch}"

    async def begin(self, key: str, size_bytes: int | None, resume: str | None) -> PartWriter:
        assert size_bytes is not None, "a volume's length is known before its first byte"
        self._size_bytes = size_bytes
        return await self._store.begin(
            self._volume, size_bytes=size_bytes, token=key, resume=resume
        )

    async def is_there(self, key: str, size_bytes: int) -> bool:
        del key  # a volume has one name; re-reading tells whose bytes it holds
        try:
            stat = await self._store.stat(self._volume)
        except ObjectMissing:
            return False
        return stat.file_bytes == size_bytes

    async def commit(
        self, key: str, writer: PartWriter, records: Sequence[PartRecord], size_bytes: int
    ) -> None:
        await commit_or_rival(self, key, writer, records, size_bytes)

    @asynccontextmanager
    async def reread(self, written: Written, hops: Hops) -> AsyncIterator[LeafSource]:
        del written  # the container says itself where it holds data
        async with self._store.open_read(self._volume, None) as reader:
            try:
                found = await reader.extents(ALIGN_BYTES)
                extents = widen(found, reader.size_bytes)
                yield VolumeSource(reader, extents, hops)
            finally:
                await hops.settle()

    async def publish(self, written: Written) -> Copied:
        stat = await self._store.stat(self._volume)
        return Copied(
            digest=written.table.root(),
            virtual_size_bytes=written.virtual_size_bytes,
            bytes_read=0,
            bytes_sent=0,
            path=stat.path,
        )

    async def discard(self, key: str, *, committed: bool) -> None:
        del key
        if committed:
            await self._store.delete(self._volume)


async def commit_or_rival(
    target: Target, key: str, writer: PartWriter, records: Sequence[PartRecord], size_bytes: int
) -> None:
    """An earlier attempt that was still inside its commit may have come first with the same
    parts; re-reading tells whether they are the same bytes.
    """
    try:
        await writer.commit(receipts(records), size_bytes)
    except AlreadyThere:
        if not await target.is_there(key, size_bytes):
            raise


def receipts(records: Sequence[PartRecord]) -> tuple[PartReceipt, ...]:
    return tuple(
        PartReceipt(number=one.number, offset=one.offset, length=one.length, tag=one.receipt)
        for one in sorted(records, key=lambda one: one.number)
    )


async def forget(writer: PartWriter) -> None:
    """Abort an upload that the store may have forgotten already."""
    with suppress(ResumeLost):
        await writer.abort()
