"""Object and volume stores in memory: no threads, no clock, the same run for the same calls.

    world = MemoryWorld(); world.make("images"); world.plugin()       # a StorePlugin `memory`

A world outlives the processes of a simulation: two clients of one bucket see the same bytes, and
an upload is resumed by its token from another client. Every call gives way once, so that a
simulation can put a crash or another process there.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import msgspec
from msgspec import Struct

from entrepot_contracts.values import ProbeReport, Scope, StoreRole
from entrepot_plugin.errors import BucketMissing, ObjectMissing, ResumeLost, Unreachable
from entrepot_plugin.plugin import StorePlugin
from entrepot_plugin.ports import Buffer, ObjectStat
from entrepot_plugin.probing import ProbeNotes, probe_canary
from entrepot_plugin.traits import StoreTraits
from entrepot_testkit.memory_parts import MemoryWriter, Upload
from entrepot_testkit.memory_volumes import MemoryVolumes

CHUNK_BYTES = 1 << 20
CAPACITY_BYTES = 1 << 40
Pause = Callable[[], Awaitable[None]]


class MemoryConfig(Struct, frozen=True, kw_only=True):
    bucket: str
    host: str = "local"


class Bucket:
    """What one store holds. `data` is by key; volumes and snapshots have keys of their own."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.versions: dict[str, int] = {}
        self.uploads: dict[str, Upload] = {}
        self.open_elsewhere: set[str] = set()
        self._counter = 0

    def number(self) -> int:
        self._counter += 1
        return self._counter

    def store(self, key: str, data: bytes) -> ObjectStat:
        self.data[key] = data
        self.versions[key] = self.number()
        return self.stat(key)

    def stat(self, key: str) -> ObjectStat:
        if key not in self.data:
            raise ObjectMissing("no such object", key=key)
        return ObjectStat(key=key, size_bytes=len(self.data[key]), version=f"v{self.versions[key]}")

    def forget(self, key: str) -> None:
        self.data.pop(key, None)
        for token, upload in list(self.uploads.items()):
            if upload.key == key:
                del self.uploads[token]

    def upload(self, key: str, token: str) -> Upload:
        upload = self.uploads.get(token)
        if upload is None or upload.key != key:
            raise ResumeLost("no such upload", key=key)
        return upload


class MemoryObjects:
    def __init__(self, world: "MemoryWorld", name: str, pause: Pause) -> None:
        self._world = world
        self._name = name
        self._pause = pause

    async def stat(self, key: str) -> ObjectStat:
        return (await self._bucket()).stat(key)

    async def read(self, key: str, start: int, end: int) -> AsyncIterator[Buffer]:
        bucket = await self._bucket()
        bucket.stat(key)
        view = memoryview(bucket.data[key])  # what was there when the read began
        for at in range(start, end, CHUNK_BYTES):
            chunk = view[at : min(at + CHUNK_BYTES, end)]
            if chunk:
                yield chunk
            if len(chunk) < min(CHUNK_BYTES, end - at):
                raise Unreachable("the object ends before the range does", key=key)
            await self._pause()

    async def begin(self, key: str, size_bytes: int | None, resume: str | None) -> MemoryWriter:
        bucket = await self._bucket()
        if resume is None:
            resume = f"u{bucket.number()}"
            bucket.uploads[resume] = Upload(key=key, size_bytes=size_bytes, sparse=False)
        bucket.upload(key, resume)
        return MemoryWriter(
            find=partial(bucket.upload, key, resume),
            publish=partial(_publish, bucket, key, resume),
            forget=lambda: bucket.uploads.pop(resume, None),
            resume=resume,
            pause=self._pause,
        )

    async def put(self, key: str, data: bytes) -> ObjectStat:
        bucket = await self._bucket()
        if bucket.data.get(key) == data:
            return bucket.stat(key)
        return bucket.store(key, bytes(data))

    async def copy(self, source: str, target: str) -> ObjectStat:
        bucket = await self._bucket()
        bucket.stat(source)
        return bucket.store(target, bucket.data[source])

    async def list(self, prefix: str) -> AsyncIterator[ObjectStat]:
        bucket = await self._bucket()
        for key in sorted(key for key in bucket.data if key.startswith(prefix)):
            if key in bucket.data:
                yield bucket.stat(key)
            await self._pause()

    async def delete(self, key: str) -> None:
        (await self._bucket()).forget(key)

    async def forget_uploads(self, prefix: str) -> int:
        uploads = (await self._bucket()).uploads
        found = [token for token, upload in uploads.items() if upload.key.startswith(prefix)]
        for token in found:
            del uploads[token]
        return len(found)

    async def capacity(self) -> tuple[int, int]:
        used = sum(map(len, (await self._bucket()).data.values()))
        return CAPACITY_BYTES, CAPACITY_BYTES - used

    async def probe(self) -> ProbeReport:
        notes = ProbeNotes()
        if await notes.step("bucket", self._bucket, hint="make the bucket in its world"):
            await probe_canary(self, notes, folder="_probe/canary")
        return notes.report()

    async def _bucket(self) -> Bucket:
        await self._pause()
        return self._world.bucket(self._name)


class LinkingMemoryObjects(MemoryObjects):
    """With links that lead nowhere: for sagas that only carry them about."""

    async def link(self, key: str, *, expires_s: int, file_name: str) -> str:
        await self.stat(key)
        return f"http://{self._name}.memory.invalid/{key}?expires={expires_s}&name={file_name}"


class MemoryWorld:
    """All buckets, by name. `bucket()` of a name that nobody made is a store that is broken."""

    def __init__(self) -> None:
        self._buckets: dict[str, Bucket] = {}

    def make(self, name: str) -> Bucket:
        return self._buckets.setdefault(name, Bucket())

    def bucket(self, name: str) -> Bucket:
        if name not in self._buckets:
            raise BucketMissing("no such bucket", hint="make it in its world")
        return self._buckets[name]

    def objects(self, name: str, *, pause: Pause | None = None) -> MemoryObjects:
        return MemoryObjects(self, name, pause or give_way)

    def volumes(self, name: str, *, pause: Pause | None = None) -> MemoryVolumes:
        return MemoryVolumes(partial(self.bucket, name), pause or give_way)

    def plugin(
        self, name: str = "memory", *, scopes: tuple[Scope, ...] = (Scope.REGION, Scope.ZONE)
    ) -> StorePlugin:
        """As discovery would give it; several names make several providers of one world."""

        @asynccontextmanager
        async def open_objects(config: MemoryConfig) -> AsyncIterator[MemoryObjects]:
            yield LinkingMemoryObjects(self, config.bucket, give_way)

        @asynccontextmanager
        async def open_volumes(config: MemoryConfig) -> AsyncIterator[MemoryVolumes]:
            yield self.volumes(config.bucket)

        return StorePlugin(
            name=name,
            version="0",
            config=MemoryConfig,
            traits=msgspec.structs.replace(TRAITS, scopes=scopes, shares_links=True),
            open_objects=open_objects,
            open_volumes=open_volumes,
        )


TRAITS = StoreTraits(
    scopes=(Scope.REGION, Scope.ZONE),
    roles=(StoreRole.IMAGE, StoreRole.PRIMARY, StoreRole.CACHE),
    lists_parts=True,
    copies_inside=True,
    reports_capacity=True,
    volume_formats=("qcow2", "raw"),
)


async def give_way() -> None:
    await asyncio.sleep(0)


def _publish(bucket: Bucket, key: str, token: str, data: bytes) -> ObjectStat:
    stat = bucket.store(key, data)
    bucket.uploads.pop(token, None)
    return stat
