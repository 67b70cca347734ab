"""Stores and URLs of a simulation: bytes that outlive movers, behind the real plugin ports.

A `SimDisk` is one bucket or pool. A mover gets a `StorePlugin` bound to its life; what it began
and never committed stays behind, as on a real store. Faults: calls that fail before or after their
effect, and writes whose bytes rot on the way.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from msgspec import Struct

from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.values import (
    ImageFormat,
    ProbeCheck,
    ProbeReport,
    Scope,
    StoreRole,
)
from entrepot_plugin.errors import (
    AlreadyThere,
    CommitUnclear,
    ObjectMissing,
    PartsRefused,
    ResumeLost,
    Unreachable,
)
from entrepot_plugin.plugin import StorePlugin
from entrepot_plugin.ports import (
    ObjectStat,
    PartBody,
    PartReceipt,
    PartWriter,
    VolumeReader,
    VolumeRef,
    VolumeStat,
)
from entrepot_plugin.traits import StoreTraits
from entrepot_testkit.fate import Fate
from entrepot_testkit.sim_loop import note
from entrepot_testkit.sim_process import Incarnation

PROVIDER = "sim"
BLOCK_BYTES = 64 * 1024
CHUNK_BYTES = 256 * 1024
SLOWER = 3.0  # stores than messages


class SimConfig(Struct, frozen=True, kw_only=True):
    bucket: str


class SimUpload:
    """Parts of something unfinished; `key` is the object's, or the token of a volume's writer."""

    def __init__(self, key: str, size_bytes: int | None) -> None:
        self.key = key
        self.size_bytes = size_bytes
        self.parts: dict[int, tuple[int, bytes, str]] = {}


class SimDisk:
    """What one store holds. `overwritten` and `deleted` are kept for the checks."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, SimUpload] = {}
        self.volumes: dict[str, bytes] = {}
        self.pins: dict[str, bytes] = {}
        self.overwritten: list[str] = []
        self.deleted: list[str] = []
        self.versions = 0

    def put(self, key: str, data: bytes) -> None:
        if self.objects.get(key, data) != data:
            self.overwritten.append(key)
        self.objects[key] = data
        note(f"{self.name} holds {key} ({len(data)} bytes)")

    def delete(self, key: str) -> None:
        if self.objects.pop(key, None) is not None:
            self.deleted.append(key)
            note(f"{self.name} deletes {key}")
        for token in [token for token, one in self.uploads.items() if one.key == key]:
            del self.uploads[token]


def sim_plugin(disks: Mapping[str, SimDisk], fate: Fate, life: Incarnation | None) -> StorePlugin:
    """The provider as one mover has it."""

    @asynccontextmanager
    async def objects(config: SimConfig) -> AsyncIterator[SimObjects]:
        yield SimObjects(disks[config.bucket], Calls(fate, life, config.bucket))

    @asynccontextmanager
    async def volumes(config: SimConfig) -> AsyncIterator[SimVolumes]:
        yield SimVolumes(disks[config.bucket], Calls(fate, life, config.bucket))

    return StorePlugin(
        name=PROVIDER,
        version="1",
        config=SimConfig,
        traits=StoreTraits(
            scopes=(Scope.REGION, Scope.ZONE),
            roles=(StoreRole.IMAGE, StoreRole.PRIMARY),
            lists_parts=True,
            shares_links=True,
            volume_formats=("raw",),
        ),
        open_objects=objects,
        open_volumes=volumes,
    )


class Calls:
    """The network between one mover and one store."""

    def __init__(self, fate: Fate, life: Incarnation | None, name: str) -> None:
        self.fate, self.life, self.name = fate, life, name

    async def before(self, what: str) -> None:
        """The request travels; it may be lost."""
        self._check()
        await asyncio.sleep(SLOWER * self.fate.delay_s())
        self._check()
        if self.fate.strikes("store_fails", f"{self.name} {what}"):
            raise Unreachable(f"{what} failed on {self.name}")

    async def after(self, what: str) -> None:
        """The answer travels; it may be lost though the effect is there."""
        if self.life is not None and self.fate.strikes("crash_at_effect", f"{self.name} {what}"):
            await self.life.die(f"after {what}")
        if self.life is not None and self.fate.strikes("pause_at_effect", f"{self.name} {what}"):
            self.life.pause(self.fate.stream("pause").uniform(28, 60))
        unsaid = self.fate.strikes("store_unsaid", f"{self.name} {what}")
        await asyncio.sleep(self.fate.delay_s())
        self._check()
        if unsaid:
            raise Unreachable(f"no answer to {what} from {self.name}")

    def _check(self) -> None:
        if self.life is not None:
            self.life.check()

    def carried(self, data: bytes) -> bytes:
        """The bytes as they arrive."""
        if data and self.fate.strikes("write_rots", self.name):
            return data[:-1] + bytes([data[-1] ^ 1])
        return data


class SimObjects:
    """ObjectStore, SharesLinks."""

    def __init__(self, disk: SimDisk, calls: Calls) -> None:
        self._disk, self._calls = disk, calls

    async def stat(self, key: str) -> ObjectStat:
        await self._calls.before("stat")
        return self._stat(key)

    def _stat(self, key: str) -> ObjectStat:
        data = self._disk.objects.get(key)
        if data is None:
            raise ObjectMissing(f"no object {key}", key=key)
        return ObjectStat(key=key, size_bytes=len(data), version=str(len(data)))

    async def read(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        await self._calls.before("read")
        self._stat(key)
        data = self._disk.objects[key][start:end]
        for cut in range(0, len(data), CHUNK_BYTES):
            yield data[cut : cut + CHUNK_BYTES]
        if len(data) < end - start:
            raise Unreachable(f"{key} ended early")

    async def begin(self, key: str, size_bytes: int | None, resume: str | None) -> PartWriter:
        await self._calls.before("begin")
        if resume is not None:
            if resume not in self._disk.uploads:
                raise ResumeLost(f"no upload {resume}", key=key)
            return SimWriter(self._disk, self._calls, resume, self._finish)
        self._disk.versions += 1
        token = f"upload-{self._disk.versions}"
        self._disk.uploads[token] = SimUpload(key, size_bytes)
        await self._calls.after("begin")
        return SimWriter(self._disk, self._calls, token, self._finish)

    def _finish(self, upload: SimUpload, data: bytes) -> None:
        self._disk.put(upload.key, data)

    async def put(self, key: str, data: bytes) -> ObjectStat:
        await self._calls.before("put")
        self._disk.put(key, bytes(data))
        await self._calls.after("put")
        return self._stat(key)

    async def list(self, prefix: str) -> AsyncIterator[ObjectStat]:
        await self._calls.before("list")
        for key in sorted(self._disk.objects):
            if key.startswith(prefix):
                yield self._stat(key)

    async def delete(self, key: str) -> None:
        await self._calls.before("delete")
        self._disk.delete(key)
        await self._calls.after("delete")

    async def forget_uploads(self, prefix: str) -> int:
        await self._calls.before("forget uploads")
        found = [token for token, one in self._disk.uploads.items() if one.key.startswith(prefix)]
        for token in found:
            del self._disk.uploads[token]
        return len(found)

    async def link(self, key: str, *, expires_s: int, file_name: str) -> str:
        await self._calls.before("link")
        return f"sim://{self._disk.name}/{key}?expires={expires_s}&name={file_name}"

    async def probe(self) -> ProbeReport:
        return _sound()


class SimWriter:
    """PartWriter of both kinds of store; `finish` publishes the assembled bytes."""

    def __init__(
        self,
        disk: SimDisk,
        calls: Calls,
        token: str,
        finish: Callable[[SimUpload, bytes], None],
        *,
        padded: bool = False,
    ) -> None:
        self.resume = token
        self._disk, self._calls, self._finish, self._padded = disk, calls, finish, padded
        self._upload = disk.uploads[token]
        self._done: int | None = None

    async def write(self, number: int, offset: int, body: PartBody) -> PartReceipt:
        await self._calls.before("write")
        self._known()
        data = await self._taken(offset, body)
        self._disk.versions += 1
        tag = f"etag-{self._disk.versions}"
        self._known().parts[number] = (offset, self._calls.carried(data), tag)
        await self._calls.after("write")
        return PartReceipt(number=number, offset=offset, length=len(body), tag=tag)

    async def _taken(self, offset: int, body: PartBody) -> bytes:
        if not self._padded:
            return b"".join([bytes(piece) async for piece in body])
        held = bytearray(len(body))
        async for at, piece in body.pieces():
            held[at - offset : at - offset + len(piece)] = piece
        return bytes(held)

    def _known(self) -> SimUpload:
        if self._disk.uploads.get(self.resume) is not self._upload:
            raise ResumeLost(f"no upload {self.resume}", key=self._upload.key)
        return self._upload

    async def parts(self) -> Sequence[PartReceipt]:
        await self._calls.before("parts")
        return [
            PartReceipt(number=number, offset=offset, length=len(data), tag=tag)
            for number, (offset, data, tag) in sorted(self._known().parts.items())
        ]

    async def commit(self, parts: Sequence[PartReceipt], size_bytes: int) -> ObjectStat:
        await self._calls.before("commit")
        if self._done is None:
            self._finish(self._known(), self._assembled(parts, size_bytes))
            self._done = size_bytes
            del self._disk.uploads[self.resume]
        try:
            await self._calls.after("commit")
        except Unreachable as error:
            raise CommitUnclear("commit was sent", key=self._upload.key) from error
        return ObjectStat(key=self._upload.key, size_bytes=size_bytes, version="1")

    def _assembled(self, parts: Sequence[PartReceipt], size_bytes: int) -> bytes:
        data = bytearray(size_bytes)
        for part in parts:
            held = self._upload.parts.get(part.number)
            if held is None or (part.tag and held[2] != part.tag) or len(held[1]) != part.length:
                raise PartsRefused(f"part {part.number} is not what it was", key=self._upload.key)
            data[held[0] : held[0] + part.length] = held[1]
        covered = sum(part.length for part in parts)
        if len(data) != size_bytes or (covered != size_bytes and not self._padded):
            raise PartsRefused(f"{covered} of {size_bytes} bytes", key=self._upload.key)
        return bytes(data)

    async def abort(self) -> None:
        await self._calls.before("abort")
        self._disk.uploads.pop(self.resume, None)

    async def close(self) -> None:
        """Nothing is held open."""


class SimVolumes:
    """VolumeStore of raw volumes."""

    def __init__(self, disk: SimDisk, calls: Calls) -> None:
        self._disk, self._calls = disk, calls

    async def create(self, volume: VolumeRef, *, size_bytes: int) -> VolumeStat:
        await self._calls.before("create")
        self._disk.volumes.setdefault(volume.volume_id, bytes(size_bytes))
        await self._calls.after("create")
        return self._stat(volume.volume_id)

    async def begin(
        self, volume: VolumeRef, *, size_bytes: int, token: str, resume: str | None
    ) -> PartWriter:
        await self._calls.before("begin")
        name = f"{volume.volume_id}/{token}"
        if resume is not None and resume not in self._disk.uploads:
            raise ResumeLost(f"no upload {resume}", key=name)
        known = resume or name
        if known not in self._disk.uploads:
            self._disk.uploads[known] = SimUpload(name, size_bytes)
        return SimWriter(self._disk, self._calls, known, self._finish, padded=True)

    def _finish(self, upload: SimUpload, data: bytes) -> None:
        volume_id = upload.key.split("/")[0]
        if volume_id in self._disk.volumes:
            raise AlreadyThere(f"volume {volume_id} is there", key=volume_id)
        self._disk.volumes[volume_id] = data
        note(f"{self._disk.name} has volume {volume_id}")

    async def stat(self, volume: VolumeRef) -> VolumeStat:
        await self._calls.before("stat")
        return self._stat(volume.volume_id)

    def _stat(self, volume_id: str) -> VolumeStat:
        data = self._disk.volumes.get(volume_id)
        if data is None:
            raise ObjectMissing(f"no volume {volume_id}", key=volume_id)
        return VolumeStat(
            path=f"/{self._disk.name}/{volume_id}",
            format=ImageFormat.RAW,
            size_bytes=len(data),
            file_bytes=len(data),
        )

    async def delete(self, volume: VolumeRef) -> None:
        await self._calls.before("delete")
        self._disk.volumes.pop(volume.volume_id, None)
        for token in list(self._disk.uploads):
            if self._disk.uploads[token].key.startswith(f"{volume.volume_id}/"):
                del self._disk.uploads[token]
        note(f"{self._disk.name} deletes volume {volume.volume_id}")
        await self._calls.after("delete")

    async def snapshot(self, volume: VolumeRef, snapshot_id: str) -> VolumeStat:
        await self._calls.before("snapshot")
        stat = self._stat(volume.volume_id)
        self._disk.pins.setdefault(snapshot_id, self._disk.volumes[volume.volume_id])
        note(f"{self._disk.name} pins {snapshot_id}")
        await self._calls.after("snapshot")
        return stat

    async def drop_snapshot(self, volume: VolumeRef, snapshot_id: str) -> None:
        del volume
        await self._calls.before("drop snapshot")
        self._disk.pins.pop(snapshot_id, None)
        await self._calls.after("drop snapshot")

    @asynccontextmanager
    async def open_read(
        self, volume: VolumeRef, snapshot_id: str | None
    ) -> AsyncIterator[VolumeReader]:
        await self._calls.before("open")
        held = self._disk.volumes if snapshot_id is None else self._disk.pins
        key = volume.volume_id if snapshot_id is None else snapshot_id
        if key not in held:
            raise ObjectMissing(f"nothing to read under {key}", key=key)
        yield SimReader(held[key])

    async def probe(self) -> ProbeReport:
        return _sound()


class SimReader:
    """VolumeReader over bytes; blocks of zeros are holes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size_bytes = len(data)

    async def extents(self, align: int) -> Sequence[tuple[int, int]]:
        step = max(align, BLOCK_BYTES)
        found: list[tuple[int, int]] = []
        for offset in range(0, self.size_bytes, step):
            block = self._data[offset : offset + step]
            if not block.strip(b"\0"):
                continue
            if found and sum(found[-1]) == offset:
                found[-1] = (found[-1][0], found[-1][1] + len(block))
            else:
                found.append((offset, len(block)))
        return found

    def pread(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]


class SimSources:
    """The web as movers see it: bytes by URL. `opened` makes what the mover's fetcher answers
    (its `Fetched`, handed in because libraries do not import services).
    """

    def __init__(self, opened: Callable[..., Any]) -> None:
        self.pages: dict[str, bytes] = {}
        self._opened = opened

    def fetch(self, fate: Fate, life: Incarnation | None) -> Callable[..., Any]:
        calls = Calls(fate, life, "web")

        @asynccontextmanager
        async def fetch(
            url: str, *, size_bytes_max: int, start: int = 0, etag: str | None = None
        ) -> AsyncIterator[Any]:
            await _reached(calls, "GET")
            page = self.pages.get(url)
            if page is None:
                raise Refused(Code.SOURCE_STATUS, "the source answers 404", field="url")
            if len(page) > size_bytes_max:
                raise Refused(Code.SOURCE_TOO_LARGE, "the source is too large", field="url")
            begin = start if etag == _ETAG else 0
            yield self._opened(
                size_bytes=len(page), etag=_ETAG, start=begin, chunks=_body(page[begin:], calls)
            )

        return fetch


_ETAG = '"v1"'


async def _body(data: bytes, calls: Calls) -> AsyncIterator[bytes]:
    for cut in range(0, len(data), CHUNK_BYTES):
        await _reached(calls, "body")
        yield data[cut : cut + CHUNK_BYTES]


async def _reached(calls: Calls, what: str) -> None:
    try:
        await calls.before(what)
    except Unreachable as error:
        raise Refused(Code.SOURCE_UNREACHABLE, str(error), field="url") from error


def _sound() -> ProbeReport:
    return ProbeReport(
        checks=(ProbeCheck(name="write", ok=True),), capacity_bytes=1 << 40, free_bytes=1 << 40
    )
