"""ObjectStore over a directory: a key is a path below `objects/`.

An unfinished object is `.<name>.<token>.part` in the folder it will appear in. `k` and `k/sub`
cannot both exist; stored objects are named so that this never happens.
"""

import os
import re
import stat as modes
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from entrepot_contracts.values import ProbeReport
from entrepot_file.config import FileConfig
from entrepot_file.copying import clone_or_copy
from entrepot_file.parts import FilePartWriter, open_part
from entrepot_file.probing import capacity_of, probe_room
from entrepot_file.publishing import publish, publish_over
from entrepot_file.rooms import Place, Room, key_parts, new_token, stat_of
from entrepot_file.threads import Handle, Lanes
from entrepot_plugin.errors import ResumeLost, Unreachable
from entrepot_plugin.ports import Buffer, ObjectStat
from entrepot_plugin.probing import ProbeNotes, probe_canary

CHUNK_BYTES = 1 << 20
READ_BYTES = 4 << 20  # one thread hop


class FileObjects:
    def __init__(self, *, config: FileConfig, lanes: Lanes) -> None:
        self._config = config
        self._lanes = lanes
        self._room = Room(config.path, "objects")

    async def stat(self, key: str) -> ObjectStat:
        parts = key_parts(key)
        return await self._lanes.run(lambda: _stat(self._room, parts, key), key=key)

    async def read(self, key: str, start: int, end: int) -> AsyncIterator[Buffer]:
        handle = await self._open(key)
        try:
            while start < end:
                wanted = min(READ_BYTES, end - start)
                block = await self._lanes.on(handle, key, os.pread, wanted, start)
                if not block:
                    raise Unreachable("the object ends before the range does", key=key)
                view = memoryview(block)
                for at in range(0, len(view), CHUNK_BYTES):
                    yield view[at : at + CHUNK_BYTES]
                start += len(block)
        finally:
            handle.close()

    async def begin(self, key: str, size_bytes: int | None, resume: str | None) -> FilePartWriter:
        place = self._place(key)
        resumed = None if resume is None else _resumed(place, resume)
        handle = await self._lanes.run(lambda: open_part(place, resumed, None), key=key)
        return FilePartWriter(
            place=place,
            resumed=resumed,
            handle=handle,
            lanes=self._lanes,
            size_bytes=size_bytes,
            sparse=False,
            fsync=self._config.fsync,
        )

    async def put(self, key: str, data: bytes) -> ObjectStat:
        place = self._place(key)
        fact = await self._lanes.run(lambda: _put(place, data, fsync=self._config.fsync), key=key)
        return stat_of(key, fact)

    async def copy(self, source: str, target: str) -> ObjectStat:
        place = self._place(target)
        handle = await self._open(source)
        try:
            fact = await self._lanes.on(handle, target, _copy, place, fsync=self._config.fsync)
        finally:
            handle.close()
        return stat_of(target, fact)

    async def list(self, prefix: str) -> AsyncIterator[ObjectStat]:
        folder, _, beginning = prefix.rpartition("/")
        todo = [_Found(parts=key_parts(folder) if folder else (), stat=None)]
        while todo:
            found = todo.pop()
            if found.stat is not None:
                yield found.stat
                continue
            depth = len(found.parts)
            below = await self._lanes.run(partial(_listing, self._room, found.parts))
            if depth == (folder.count("/") + 1 if folder else 0):
                below = [one for one in below if one.parts[-1].startswith(beginning)]
            todo.extend(reversed(below))

    async def delete(self, key: str) -> None:
        parts = key_parts(key)
        await self._lanes.run(
            lambda: self._room.remove(parts[:-1], parts[-1], _part_pattern(parts[-1])), key=key
        )

    async def forget_uploads(self, prefix: str) -> int:
        folder, _, beginning = prefix.rpartition("/")
        todo = [key_parts(folder) if folder else ()]
        count = 0
        while todo:
            forget = partial(_forget_unfinished, self._room, todo.pop(), beginning)
            below, forgotten = await self._lanes.run(forget)
            todo += below
            count += forgotten
            beginning = ""
        return count

    async def capacity(self) -> tuple[int, int]:
        return await self._lanes.run(lambda: capacity_of(self._config.path))

    async def probe(self) -> ProbeReport:
        notes = ProbeNotes()
        if not await probe_room(notes, lanes=self._lanes, room=self._room):
            return notes.report()
        await probe_canary(self, notes, folder=f"_probe/{new_token()}")
        total, free = await self.capacity()
        return notes.report(capacity_bytes=total, free_bytes=free)

    async def _open(self, key: str) -> Handle:
        parts = key_parts(key)
        return await self._lanes.run(lambda: Handle(_open(self._room, parts)), key=key)

    def _place(self, key: str) -> Place:
        *folders, name = key_parts(key)
        part = f".{name}.{new_token()}.part"
        return Place(room=self._room, parts=tuple(folders), name=name, part=part, key=key)


_UNFINISHED = re.compile(r"\.(.+)\.[0-9a-f]{16}\.part")


class _Found(Struct, frozen=True):
    """A finished object, or with `stat` None a folder still to be listed."""

    parts: tuple[str, ...]
    stat: ObjectStat | None


def _part_pattern(name: str) -> re.Pattern[str]:
    return re.compile(rf"\.{re.escape(name)}\.[0-9a-f]{{16}}\.part")


def _resumed(place: Place, token: str) -> Place:
    if not _part_pattern(place.name).fullmatch(token):
        raise ResumeLost("the resume token is not of this key", key=place.key)
    return replace(place, part=token)


def _stat(room: Room, parts: Sequence[str], key: str) -> ObjectStat:
    try:
        with room.folder(parts[:-1]) as folder:
            fact = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False)
    except NotADirectoryError as err:
        raise FileNotFoundError(2, "a name on the way is no folder") from err
    if not modes.S_ISREG(fact.st_mode):
        raise FileNotFoundError(2, "a folder or something foreign has this name")
    return stat_of(key, fact)


def _open(room: Room, parts: Sequence[str]) -> int:
    _stat(room, parts, "")
    with room.folder(parts[:-1]) as folder:
        return os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)


def _put(place: Place, data: bytes, *, fsync: bool) -> os.stat_result:
    descriptor = place.make()
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        return publish_over(descriptor, place, fsync=fsync)
    except BaseException:
        place.forget()
        raise
    finally:
        os.close(descriptor)


def _copy(source: int, place: Place, *, fsync: bool) -> os.stat_result:
    descriptor = place.make()
    try:
        clone_or_copy(source, descriptor)
        return publish(descriptor, place, fsync=fsync)
    except BaseException:
        place.forget()
        raise
    finally:
        os.close(descriptor)


def _forget_unfinished(
    room: Room, parts: tuple[str, ...], beginning: str
) -> tuple[list[tuple[str, ...]], int]:
    """The folders below one folder, and how many unfinished files of it are no more."""
    below: list[tuple[str, ...]] = []
    count = 0
    with suppress(FileNotFoundError, NotADirectoryError):
        with room.folder(parts) as folder, os.scandir(folder) as entries:
            for entry in entries:
                unfinished = _UNFINISHED.fullmatch(entry.name)
                if unfinished and unfinished[1].startswith(beginning):
                    with suppress(FileNotFoundError):
                        os.unlink(entry.name, dir_fd=folder)
                        count += 1
                elif (
                    entry.name.startswith(beginning)
                    and not entry.name.startswith(".")
                    and entry.is_dir(follow_symlinks=False)
                ):
                    below.append((*parts, entry.name))
        if not below:
            room.prune(parts)
    return below, count


def _listing(room: Room, parts: tuple[str, ...]) -> list[_Found]:
    """One folder in the order of whole keys: a folder sorts as its name and a slash."""
    found: list[tuple[str, _Found]] = []
    with (
        suppress(FileNotFoundError, NotADirectoryError),
        room.folder(parts) as folder,
        os.scandir(folder) as entries,
    ):
        for entry in entries:
            if entry.name.startswith("."):
                continue
            below = (*parts, entry.name)
            if entry.is_dir(follow_symlinks=False):
                found.append((entry.name + "/", _Found(below, None)))
            elif entry.is_file(follow_symlinks=False):
                with suppress(FileNotFoundError):
                    fact = os.stat(entry.name, dir_fd=folder, follow_symlinks=False)
                    found.append((entry.name, _Found(below, stat_of("/".join(below), fact))))
    return [one for _, one in sorted(found, key=lambda pair: pair[0])]
