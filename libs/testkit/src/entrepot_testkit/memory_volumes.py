"""VolumeStore in memory: the container bytes of volumes and snapshots in a bucket."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from entrepot_contracts.values import ImageFormat, ProbeReport
from entrepot_plugin.errors import InUse, ObjectMissing, ResumeLost, Unreachable
from entrepot_plugin.ports import ObjectStat, VolumeReader, VolumeRef, VolumeStat
from entrepot_plugin.probing import ProbeNotes
from entrepot_testkit.memory_parts import MemoryWriter, Upload, refuse_taken

if TYPE_CHECKING:
    from entrepot_testkit.memory_store import Bucket

GRAIN_BYTES = 4096  # what is zero in whole grains counts as a hole
_QCOW2_MAGIC = b"QFI\xfb"
_SIZE_AT = 24
_HEADER_BYTES = 104
PROBE_BYTES = 1 << 20


class MemoryVolumes:
    def __init__(
        self, bucket: "Callable[[], Bucket]", pause: Callable[[], Awaitable[None]]
    ) -> None:
        self._find = bucket
        self._pause = pause

    async def create(self, volume: VolumeRef, *, size_bytes: int) -> VolumeStat:
        bucket = await self._bucket()
        key = volume_key(volume)
        if key not in bucket.data:
            bucket.store(key, _blank(volume.format, size_bytes))
        return _stat(bucket, volume, None)

    async def begin(
        self, volume: VolumeRef, *, size_bytes: int, token: str, resume: str | None
    ) -> MemoryWriter:
        bucket = await self._bucket()
        key = volume_key(volume)
        if resume is None:
            resume = token
            bucket.uploads[token] = Upload(key=key, size_bytes=size_bytes, sparse=True)
        if bucket.upload(key, resume).size_bytes != size_bytes:
            raise ResumeLost("the upload was begun with another size", key=key)
        return MemoryWriter(
            find=partial(bucket.upload, key, resume),
            publish=partial(_publish, bucket, key, resume),
            forget=lambda: bucket.uploads.pop(resume, None),
            resume=resume,
            pause=self._pause,
        )

    async def stat(self, volume: VolumeRef) -> VolumeStat:
        return _stat(await self._bucket(), volume, None)

    async def delete(self, volume: VolumeRef) -> None:
        bucket = await self._bucket()
        _refuse_open(bucket, volume)
        bucket.forget(volume_key(volume))

    async def snapshot(self, volume: VolumeRef, snapshot_id: str) -> VolumeStat:
        bucket = await self._bucket()
        key = volume_key(volume, snapshot_id)
        if key not in bucket.data:
            bucket.store(key, _bytes_of(bucket, volume, None))
        return _stat(bucket, volume, snapshot_id)

    async def drop_snapshot(self, volume: VolumeRef, snapshot_id: str) -> None:
        (await self._bucket()).forget(volume_key(volume, snapshot_id))

    async def clone(
        self, source: VolumeRef, snapshot_id: str | None, target: VolumeRef
    ) -> VolumeStat:
        bucket = await self._bucket()
        if volume_key(target) not in bucket.data:
            bucket.store(volume_key(target), _bytes_of(bucket, source, snapshot_id))
        return _stat(bucket, target, None)

    @asynccontextmanager
    async def open_read(
        self, volume: VolumeRef, snapshot_id: str | None
    ) -> AsyncIterator[VolumeReader]:
        bucket = await self._bucket()
        data = _bytes_of(bucket, volume, snapshot_id)
        if snapshot_id is None:
            _refuse_open(bucket, volume)
        yield MemoryReader(data)

    async def capacity(self) -> tuple[int, int]:
        used = sum(map(len, (await self._bucket()).data.values()))
        return 1 << 40, (1 << 40) - used

    async def probe(self) -> ProbeReport:
        notes = ProbeNotes()
        volume = VolumeRef(volume_id="_probe", format=ImageFormat.RAW)
        blank = partial(self.create, volume, size_bytes=PROBE_BYTES)
        if await notes.step("create", blank, hint="make the bucket in its world"):
            await notes.step("delete", partial(self.delete, volume), hint="")
        return notes.report()

    async def _bucket(self) -> "Bucket":
        await self._pause()
        return self._find()


class MemoryReader:
    def __init__(self, data: bytes) -> None:
        self.size_bytes = len(data)
        self._data = data

    async def extents(self, align: int) -> Sequence[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        step = max(align, GRAIN_BYTES)
        for start in range(0, self.size_bytes, step):
            block = self._data[start : start + step]
            if not any(block):
                continue
            if found and sum(found[-1]) == start:
                found[-1] = (found[-1][0], found[-1][1] + len(block))
            else:
                found.append((start, len(block)))
        return found

    def pread(self, offset: int, length: int) -> bytes:
        block = self._data[offset : offset + length]
        if len(block) < length:
            raise Unreachable("the generation ends before the range does")
        return block


def volume_key(volume: VolumeRef, snapshot_id: str | None = None) -> str:
    """Where a volume's bytes stand in `Bucket.data`."""
    if snapshot_id is None:
        return f"volumes/{volume.volume_id}.{volume.format}"
    return f"snapshots/{volume.volume_id}/{snapshot_id}.{volume.format}"


def _publish(bucket: "Bucket", key: str, token: str, data: bytes) -> ObjectStat:
    refuse_taken(key, key in bucket.data)
    stat = bucket.store(key, data)
    bucket.uploads.pop(token, None)
    return stat


def _bytes_of(bucket: "Bucket", volume: VolumeRef, snapshot_id: str | None) -> bytes:
    key = volume_key(volume, snapshot_id)
    if key not in bucket.data:
        raise ObjectMissing("no such volume", key=key)
    return bucket.data[key]


def _stat(bucket: "Bucket", volume: VolumeRef, snapshot_id: str | None) -> VolumeStat:
    data = _bytes_of(bucket, volume, snapshot_id)
    size_bytes = len(data)
    if volume.format is ImageFormat.QCOW2 and data.startswith(_QCOW2_MAGIC):
        size_bytes = int.from_bytes(data[_SIZE_AT : _SIZE_AT + 8], "big")
    return VolumeStat(
        path=f"memory:{volume_key(volume, snapshot_id)}",
        format=volume.format,
        size_bytes=size_bytes,
        file_bytes=len(data),
    )


def _blank(container: ImageFormat, size_bytes: int) -> bytes:
    if container is not ImageFormat.QCOW2:
        return bytes(size_bytes)
    header = bytearray(_HEADER_BYTES)
    header[:8] = _QCOW2_MAGIC + (3).to_bytes(4, "big")
    header[_SIZE_AT : _SIZE_AT + 8] = size_bytes.to_bytes(8, "big")
    return bytes(header)


def _refuse_open(bucket: "Bucket", volume: VolumeRef) -> None:
    if volume.volume_id in bucket.open_elsewhere:
        raise InUse("the volume is open for writing", key=volume.volume_id)
