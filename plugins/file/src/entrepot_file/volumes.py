"""VolumeStore over a directory: container files, their pinned generations, blank ones, clones.

    volumes/<volume id>.<format>                    snapshots/<volume id>/<snapshot id>.<format>

A snapshot is a file of its own (shared blocks where the file system can), made read-only before it
gets its name; the volume's later life does not reach it.
"""

import os
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from msgspec.structs import replace

from entrepot_contracts.values import ImageFormat, ProbeReport
from entrepot_file.config import FileConfig
from entrepot_file.copying import clone_or_copy, data_extents, widened
from entrepot_file.faults import translated
from entrepot_file.parts import FilePartWriter, open_part
from entrepot_file.probing import capacity_of, probe_room
from entrepot_file.publishing import publish
from entrepot_file.qcow2 import create_blank, virtual_size
from entrepot_file.qemu_locks import open_for_writing
from entrepot_file.rooms import Place, Room, checked_id, checked_token, new_token
from entrepot_file.threads import Handle, Lanes
from entrepot_plugin.errors import AlreadyThere, InUse, ObjectMissing, ResumeLost, Unreachable
from entrepot_plugin.ports import VolumeReader, VolumeRef, VolumeStat
from entrepot_plugin.probing import ProbeNotes

SNAPSHOT_MODE = 0o444


class FileVolumes:
    def __init__(self, *, config: FileConfig, lanes: Lanes) -> None:
        self._config = config
        self._lanes = lanes
        self._volumes = Room(config.path, "volumes")
        self._snapshots = Room(config.path, "snapshots")

    async def create(self, volume: VolumeRef, *, size_bytes: int) -> VolumeStat:
        place = self._volume_place(volume, new_token())
        with suppress(ObjectMissing):
            return await self.stat(volume)
        handle = await self._lanes.run(lambda: Handle(place.make()), key=place.key)
        try:
            if volume.format is ImageFormat.QCOW2:
                await create_blank(self._path(place, place.part), size_bytes)
            else:
                await self._lanes.on(handle, place.key, os.ftruncate, size_bytes)
            with suppress(AlreadyThere):  # made by a rival meanwhile: a success too
                await self._lanes.on(handle, place.key, publish, place, fsync=self._config.fsync)
        finally:
            handle.close()
            await self._lanes.run(place.forget)
        return await self.stat(volume)

    async def begin(
        self, volume: VolumeRef, *, size_bytes: int, token: str, resume: str | None
    ) -> FilePartWriter:
        place = self._volume_place(volume, checked_token(token))
        resumed = None
        if resume is not None:
            resumed, place = _resumed(place, resume, _part_pattern(volume))
        handle = await self._lanes.run(lambda: open_part(place, resumed, size_bytes), key=place.key)
        return FilePartWriter(
            place=place,
            resumed=resumed,
            handle=handle,
            lanes=self._lanes,
            size_bytes=size_bytes,
            sparse=True,
            fsync=self._config.fsync,
        )

    async def stat(self, volume: VolumeRef) -> VolumeStat:
        return await self._stat(self._volume_place(volume, ""), volume.format)

    async def delete(self, volume: VolumeRef) -> None:
        place = self._volume_place(volume, "")
        await self._lanes.run(lambda: _remove(place, _part_pattern(volume)), key=place.key)

    async def snapshot(self, volume: VolumeRef, snapshot_id: str) -> VolumeStat:
        place = self._snapshot_place(volume, snapshot_id)
        return await self._duplicate(
            self._volume_place(volume, ""), place, volume.format, mode=SNAPSHOT_MODE
        )

    async def drop_snapshot(self, volume: VolumeRef, snapshot_id: str) -> None:
        place = self._snapshot_place(volume, snapshot_id)
        pattern = re.compile(rf"\.{re.escape(place.name)}\.[0-9a-f]{{16}}\.part")
        await self._lanes.run(lambda: _remove(place, pattern), key=place.key)

    async def clone(
        self, source: VolumeRef, snapshot_id: str | None, target: VolumeRef
    ) -> VolumeStat:
        origin = self._generation(source, snapshot_id)
        place = self._volume_place(target, new_token())
        return await self._duplicate(origin, place, target.format, mode=None)

    @asynccontextmanager
    async def open_read(
        self, volume: VolumeRef, snapshot_id: str | None
    ) -> AsyncIterator[VolumeReader]:
        place = self._generation(volume, snapshot_id)
        handle = await self._lanes.run(lambda: Handle(_open(place)), key=place.key)
        try:
            if snapshot_id is None and await self._lanes.on(handle, place.key, open_for_writing):
                raise InUse("the volume is open for writing", key=place.key)
            fact = await self._lanes.on(handle, place.key, os.fstat)
            yield FileReader(
                handle=handle, lanes=self._lanes, size_bytes=fact.st_size, key=place.key
            )
        finally:
            handle.close()

    async def capacity(self) -> tuple[int, int]:
        return await self._lanes.run(lambda: capacity_of(self._config.path))

    async def probe(self) -> ProbeReport:
        notes = ProbeNotes()
        rooms = (self._volumes, self._snapshots)
        if not all([await probe_room(notes, lanes=self._lanes, room=room) for room in rooms]):
            return notes.report()
        volume = VolumeRef(volume_id=f"probe-{new_token()}", format=ImageFormat.RAW)

        async def create() -> None:
            await self.create(volume, size_bytes=1 << 20)

        async def snapshot() -> None:
            await self.snapshot(volume, "canary")

        async def delete() -> None:
            await self.drop_snapshot(volume, "canary")
            await self.delete(volume)

        if await notes.step("create", create, hint="allow making files"):
            await notes.step("snapshot", snapshot, hint="the file system must allow hard links")
        await notes.step("delete", delete, hint="allow deleting files")
        total, free = await self.capacity()
        return notes.report(capacity_bytes=total, free_bytes=free)

    async def _duplicate(
        self, origin: Place, target: Place, container: ImageFormat, *, mode: int | None
    ) -> VolumeStat:
        with suppress(ObjectMissing):
            return await self._stat(target, container)
        handle = await self._lanes.run(lambda: Handle(_open(origin)), key=origin.key)
        try:
            with suppress(AlreadyThere):
                await self._lanes.on(
                    handle, target.key, _duplicate, target, fsync=self._config.fsync, mode=mode
                )
        finally:
            handle.close()
        return await self._stat(target, container)

    async def _stat(self, place: Place, container: ImageFormat) -> VolumeStat:
        handle = await self._lanes.run(lambda: Handle(_open(place)), key=place.key)
        try:
            fact = await self._lanes.on(handle, place.key, os.fstat)
            size_bytes = fact.st_size
            if container is ImageFormat.QCOW2:
                size_bytes = await self._lanes.on(handle, place.key, virtual_size)
        finally:
            handle.close()
        return VolumeStat(
            path=self._path(place, place.name),
            format=container,
            size_bytes=size_bytes,
            file_bytes=fact.st_size,
        )

    def _generation(self, volume: VolumeRef, snapshot_id: str | None) -> Place:
        if snapshot_id is None:
            return self._volume_place(volume, "")
        return self._snapshot_place(volume, snapshot_id)

    def _volume_place(self, volume: VolumeRef, token: str, *, part: str | None = None) -> Place:
        name = f"{checked_id(volume.volume_id)}.{volume.format}"
        return Place(
            room=self._volumes,
            parts=(),
            name=name,
            part=part or f".{name}.{token}.part",
            key=volume.volume_id,
        )

    def _snapshot_place(self, volume: VolumeRef, snapshot_id: str) -> Place:
        name = f"{checked_id(snapshot_id)}.{volume.format}"
        return Place(
            room=self._snapshots,
            parts=(checked_id(volume.volume_id),),
            name=name,
            part=f".{name}.{new_token()}.part",
            key=f"{volume.volume_id}@{snapshot_id}",
        )

    @staticmethod
    def _path(place: Place, name: str) -> str:
        return "/".join((place.room.root.rstrip("/"), place.room.area, *place.parts, name))


class FileReader:
    """An open generation; keeps its bytes even if the file is deleted meanwhile."""

    def __init__(self, *, handle: Handle, lanes: Lanes, size_bytes: int, key: str) -> None:
        self.size_bytes = size_bytes
        self._handle = handle
        self._lanes = lanes
        self._key = key

    async def extents(self, align: int) -> Sequence[tuple[int, int]]:
        def walk(descriptor: int) -> Sequence[tuple[int, int]]:
            return widened(data_extents(descriptor, self.size_bytes), align, self.size_bytes)

        return await self._lanes.run(lambda: self._handle.use(walk), key=self._key)

    def pread(self, offset: int, length: int) -> bytes:
        try:
            return self._handle.use(_pread_exactly, offset, length, self._key)
        except OSError as err:
            raise translated(err, self._key) from err


def _part_pattern(volume: VolumeRef) -> re.Pattern[str]:
    name = re.escape(f"{checked_id(volume.volume_id)}.{volume.format}")
    return re.compile(rf"\.{name}\.[A-Za-z0-9._-]+\.part")


def _resumed(place: Place, token: str, pattern: re.Pattern[str]) -> tuple[Place, Place]:
    """(the file to continue, the file to continue in): never one and the same."""
    if not pattern.fullmatch(token):
        raise ResumeLost("the resume token is not of this volume", key=place.key)
    part = f"{place.part.removesuffix('.part')}.{new_token()}.part"
    return replace(place, part=token), replace(place, part=part)


def _open(place: Place) -> int:
    return place.open(place.name)


def _duplicate(source: int, target: Place, *, fsync: bool, mode: int | None) -> None:
    before = os.fstat(source)
    descriptor = target.make()
    try:
        shared = clone_or_copy(source, descriptor)
        after = os.fstat(source)
        if not shared and (before.st_mtime_ns, before.st_size) != (
            after.st_mtime_ns,
            after.st_size,
        ):
            raise InUse("the volume was written to while it was copied", key=target.key)
        if mode is not None:
            os.fchmod(descriptor, mode)
        publish(descriptor, target, fsync=fsync)
    finally:
        os.close(descriptor)
        target.forget()


def _remove(place: Place, unfinished: re.Pattern[str]) -> None:
    with suppress(FileNotFoundError):
        _refuse_while_open(place)
    place.room.remove(place.parts, place.name, unfinished)


def _refuse_while_open(place: Place) -> None:
    descriptor = _open(place)
    try:
        if open_for_writing(descriptor):
            raise InUse(
                "the volume is open for writing", key=place.key, hint="stop or detach its VM first"
            )
    finally:
        os.close(descriptor)


def _pread_exactly(descriptor: int, offset: int, length: int, key: str) -> bytes:
    block = os.pread(descriptor, length, offset)
    if len(block) == length:
        return block
    blocks = [block]
    while block and sum(map(len, blocks)) < length:
        block = os.pread(descriptor, length - sum(map(len, blocks)), offset + sum(map(len, blocks)))
        blocks.append(block)
    whole = b"".join(blocks)
    if len(whole) < length:
        raise Unreachable("the generation ends before the range does", key=key)
    return whole
