"""How a layer stands around a store: it sees each call, each body sent and each stream read."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from entrepot_contracts.values import ProbeReport
from entrepot_plugin.ports import (
    Buffer,
    ClonesVolumes,
    CopiesInside,
    ForgetsUploads,
    ObjectStat,
    ObjectStore,
    PartBody,
    PartReceipt,
    PartWriter,
    ReportsCapacity,
    SharesLinks,
    VolumeReader,
    VolumeRef,
    VolumeStat,
    VolumeStore,
)

T = TypeVar("T")
Read = Callable[[str, int, int], AsyncIterator[Buffer]]
Listing = Callable[[str], AsyncIterator[ObjectStat]]
Write = Callable[[int, int, PartBody], Awaitable[PartReceipt]]


class Layer:
    """Does nothing; a layer overrides what it changes. `op` is the name of the port's method."""

    async def call(self, op: str, key: str, action: Callable[[], Awaitable[T]]) -> T:
        del op, key
        return await action()

    async def write(
        self, key: str, write: Write, number: int, offset: int, body: PartBody
    ) -> PartReceipt:
        return await self.call("write", key, lambda: write(number, offset, body))

    async def put(
        self, key: str, put: Callable[[str, bytes], Awaitable[ObjectStat]], data: bytes
    ) -> ObjectStat:
        return await self.call("put", key, lambda: put(key, data))

    def read(self, key: str, read: Read, start: int, end: int) -> AsyncIterator[Buffer]:
        return read(key, start, end)

    def list(self, listing: Listing, prefix: str) -> AsyncIterator[ObjectStat]:
        return listing(prefix)


def wrap_objects(store: ObjectStore, layer: Layer) -> ObjectStore:
    """The store inside the layer, with the powers the store has."""
    powers = [
        mixin
        for power, mixin in (
            (SharesLinks, _Links),
            (CopiesInside, _Copies),
            (ForgetsUploads, _Forgets),
            (ReportsCapacity, _Room),
        )
        if isinstance(store, power)
    ]
    kind = type("WrappedObjects", (*powers, _Objects), {})
    wrapped: ObjectStore = kind(store, layer)
    return wrapped


def wrap_volumes(store: VolumeStore, layer: Layer) -> VolumeStore:
    powers = [
        mixin
        for power, mixin in ((ClonesVolumes, _Clones), (ReportsCapacity, _Room))
        if isinstance(store, power)
    ]
    kind = type("WrappedVolumes", (*powers, _Volumes), {})
    wrapped: VolumeStore = kind(store, layer)
    return wrapped


class _Wrapped:
    def __init__(self, inner: Any, layer: Layer) -> None:
        self._inner = inner
        self._layer = layer

    async def probe(self) -> ProbeReport:
        """A probe is a report about the store itself: no layer touches it."""
        report: ProbeReport = await self._inner.probe()
        return report


class _Objects(_Wrapped):
    async def stat(self, key: str) -> ObjectStat:
        return await self._layer.call("stat", key, lambda: self._inner.stat(key))

    def read(self, key: str, start: int, end: int) -> AsyncIterator[Buffer]:
        return self._layer.read(key, self._inner.read, start, end)

    async def begin(self, key: str, size_bytes: int | None, resume: str | None) -> PartWriter:
        writer = await self._layer.call(
            "begin", key, lambda: self._inner.begin(key, size_bytes, resume)
        )
        return _Writer(writer, self._layer, key)

    async def put(self, key: str, data: bytes) -> ObjectStat:
        return await self._layer.put(key, self._inner.put, data)

    def list(self, prefix: str) -> AsyncIterator[ObjectStat]:
        return self._layer.list(self._inner.list, prefix)

    async def delete(self, key: str) -> None:
        await self._layer.call("delete", key, lambda: self._inner.delete(key))


class _Volumes(_Wrapped):
    async def create(self, volume: VolumeRef, *, size_bytes: int) -> VolumeStat:
        return await self._layer.call(
            "create", volume.volume_id, lambda: self._inner.create(volume, size_bytes=size_bytes)
        )

    async def begin(
        self, volume: VolumeRef, *, size_bytes: int, token: str, resume: str | None
    ) -> PartWriter:
        writer = await self._layer.call(
            "begin",
            volume.volume_id,
            lambda: self._inner.begin(volume, size_bytes=size_bytes, token=token, resume=resume),
        )
        return _Writer(writer, self._layer, volume.volume_id)

    async def stat(self, volume: VolumeRef) -> VolumeStat:
        return await self._layer.call("stat", volume.volume_id, lambda: self._inner.stat(volume))

    async def delete(self, volume: VolumeRef) -> None:
        await self._layer.call("delete", volume.volume_id, lambda: self._inner.delete(volume))

    async def snapshot(self, volume: VolumeRef, snapshot_id: str) -> VolumeStat:
        return await self._layer.call(
            "snapshot", volume.volume_id, lambda: self._inner.snapshot(volume, snapshot_id)
        )

    async def drop_snapshot(self, volume: VolumeRef, snapshot_id: str) -> None:
        await self._layer.call(
            "drop_snapshot",
            volume.volume_id,
            lambda: self._inner.drop_snapshot(volume, snapshot_id),
        )

    def open_read(
        self, volume: VolumeRef, snapshot_id: str | None
    ) -> AbstractAsyncContextManager[VolumeReader]:
        """Passed through: `pread` blocks in worker threads, where no layer can wait."""
        opened: AbstractAsyncContextManager[VolumeReader] = self._inner.open_read(
            volume, snapshot_id
        )
        return opened


class _Writer:
    def __init__(self, inner: PartWriter, layer: Layer, key: str) -> None:
        self._inner = inner
        self._layer = layer
        self._key = key
        self.resume = inner.resume

    async def write(self, number: int, offset: int, body: PartBody) -> PartReceipt:
        return await self._layer.write(self._key, self._inner.write, number, offset, body)

    async def parts(self) -> Sequence[PartReceipt]:
        return await self._layer.call("parts", self._key, self._inner.parts)

    async def commit(self, parts: Sequence[PartReceipt], size_bytes: int) -> ObjectStat:
        return await self._layer.call(
            "commit", self._key, lambda: self._inner.commit(parts, size_bytes)
        )

    async def abort(self) -> None:
        await self._layer.call("abort", self._key, self._inner.abort)

    async def close(self) -> None:
        await self._inner.close()


class _Links(_Wrapped):
    async def link(self, key: str, *, expires_s: int, file_name: str) -> str:
        return await self._layer.call(
            "link",
            key,
            lambda: self._inner.link(key, expires_s=expires_s, file_name=file_name),
        )


class _Copies(_Wrapped):
    async def copy(self, source: str, target: str) -> ObjectStat:
        return await self._layer.call("copy", target, lambda: self._inner.copy(source, target))


class _Forgets(_Wrapped):
    async def forget_uploads(self, prefix: str) -> int:
        return await self._layer.call(
            "forget_uploads", prefix, lambda: self._inner.forget_uploads(prefix)
        )


class _Room(_Wrapped):
    async def capacity(self) -> tuple[int, int]:
        return await self._layer.call("capacity", "", self._inner.capacity)


class _Clones(_Wrapped):
    async def clone(
        self, source: VolumeRef, snapshot_id: str | None, target: VolumeRef
    ) -> VolumeStat:
        return await self._layer.call(
            "clone", target.volume_id, lambda: self._inner.clone(source, snapshot_id, target)
        )
