"""The kinds of work that move no image bytes: probe, link, delete, create, pin. All repeatable."""

from collections.abc import AsyncIterator, Callable

from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.motion import (
    CreateVolumeWork,
    Deleted,
    DeleteObjectsWork,
    DeleteVolumeWork,
    DropSnapshotWork,
    Linked,
    LinkWork,
    Pinned,
    Probed,
    ProbeWork,
    Result,
    SnapshotWork,
    VolumeMade,
    Work,
)
from entrepot_contracts.values import (
    Layout,
    ProbeCheck,
    ProbeReport,
    Sealed,
    StoreRole,
)
from entrepot_plugin.errors import StoreError
from entrepot_plugin.ports import ForgetsUploads, ObjectStat, ObjectStore, SharesLinks, VolumeRef
from motion_engine.mover.stores import Credentials, Stores

Seal = Callable[[str, bytes], bytes]  # (public key, data) -> box
DELETE_BATCH_MAX = 1_000


class SmallWorks:
    """Runs one piece of small work and gives its result."""

    def __init__(self, stores: Stores, seal: Seal) -> None:
        self._stores = stores
        self._seal = seal

    async def run(self, work: Work, credentials: Credentials) -> Result:
        match work:
            case ProbeWork():
                return await self._probe(work, credentials)
            case LinkWork():
                return await self._link(work, credentials)
            case DeleteObjectsWork():
                return await self._delete_objects(work, credentials)
            case CreateVolumeWork():
                return await self._create_volume(work, credentials)
            case DeleteVolumeWork():
                return await self._delete_volume(work, credentials)
            case SnapshotWork():
                return await self._snapshot(work, credentials)
            case DropSnapshotWork():
                return await self._drop_snapshot(work, credentials)
            case _:
                raise Refused(
                    Code.INVALID, "this mover does not know such work", hint="upgrade the mover"
                )

    async def _probe(self, work: ProbeWork, credentials: Credentials) -> Probed:
        """A store that cannot even be opened is an answer too."""
        try:
            if work.store.role is StoreRole.PRIMARY:
                async with self._stores.volumes(work.store, credentials) as volumes:
                    return Probed(report=await volumes.probe())
            async with self._stores.objects(work.store, credentials) as objects:
                return Probed(report=await objects.probe())
        except StoreError as err:
            check = ProbeCheck(name="open", ok=False, detail=str(err), hint=err.hint)
            return Probed(report=ProbeReport(checks=(check,)))

    async def _link(self, work: LinkWork, credentials: Credentials) -> Linked:
        if work.stored.layout is not Layout.PLAIN:
            raise Refused(
                Code.INVALID,
                "the stored copy leaves holes out, so it cannot be fetched as it is",
                hint="make a volume of it and fetch that",
            )
        async with self._stores.objects(work.store, credentials) as store:
            if not isinstance(store, SharesLinks):
                raise Refused(
                    Code.INVALID,
                    f"provider {work.store.provider} cannot share links",
                    field="store",
                    hint="extract from a copy on a store that can",
                )
            await store.stat(work.stored.key)
            link = await store.link(
                work.stored.key, expires_s=work.expires_s, file_name=work.file_name
            )
        box = self._seal(work.seal_to, link.encode())
        return Linked(link=Sealed(recipient=work.seal_to, box=box))

    async def _delete_objects(self, work: DeleteObjectsWork, credentials: Credentials) -> Deleted:
        count = 0
        async with self._stores.objects(work.store, credentials) as store:
            for prefix in work.prefixes:
                if not prefix.strip("/"):
                    raise Refused(
                        Code.INVALID,
                        "an empty prefix names everything",
                        field="prefixes",
                        hint="name the folder of one thing",
                    )
                before: list[str] = []
                while keys := await _first_keys(store.list(prefix)):
                    if keys == before:
                        raise StoreError("the listing still shows what was just deleted")
                    before = keys
                    for key in keys:
                        await store.delete(key)
                    count += len(keys)
                await _forget_uploads(store, prefix)
        return Deleted(count=count)

    async def _create_volume(self, work: CreateVolumeWork, credentials: Credentials) -> VolumeMade:
        async with self._stores.volumes(work.store, credentials) as store:
            volume = VolumeRef(volume_id=work.volume_id, format=work.format)
            stat = await store.create(volume, size_bytes=work.size_bytes)
        return VolumeMade(path=stat.path, size_bytes=stat.size_bytes)

    async def _delete_volume(self, work: DeleteVolumeWork, credentials: Credentials) -> Deleted:
        async with self._stores.volumes(work.store, credentials) as store:
            await store.delete(VolumeRef(volume_id=work.volume_id, format=work.format))
        return Deleted(count=1)

    async def _snapshot(self, work: SnapshotWork, credentials: Credentials) -> Pinned:
        async with self._stores.volumes(work.store, credentials) as store:
            volume = VolumeRef(volume_id=work.volume_id, format=work.format)
            stat = await store.snapshot(volume, work.snapshot_id)
        return Pinned(size_bytes=stat.size_bytes)

    async def _drop_snapshot(self, work: DropSnapshotWork, credentials: Credentials) -> Deleted:
        async with self._stores.volumes(work.store, credentials) as store:
            volume = VolumeRef(volume_id=work.volume_id, format=work.format)
            await store.drop_snapshot(volume, work.snapshot_id)
        return Deleted(count=1)


async def _first_keys(found: AsyncIterator[ObjectStat]) -> list[str]:
    """Listed to the end of a batch before the first one is deleted: no store likes both at once."""
    keys: list[str] = []
    async for stat in found:
        keys.append(stat.key)
        if len(keys) >= DELETE_BATCH_MAX:
            break
    return keys


async def _forget_uploads(store: ObjectStore, prefix: str) -> None:
    if isinstance(store, ForgetsUploads):
        await store.forget_uploads(prefix)
