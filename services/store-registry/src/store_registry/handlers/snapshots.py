"""Snapshots: a pinned generation backed up to an image store; listed; deleted."""

from entrepot_chassis.ports import Transaction
from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.registry import (
    Accepted,
    CreateSnapshot,
    DeleteSnapshot,
    GetSnapshot,
    ListSnapshots,
    SnapshotList,
    SnapshotView,
)
from entrepot_contracts.values import CopyState, ResourceState, StoreRole
from store_registry.handlers.accepting import Opening, accept
from store_registry.handlers.placing import (
    add_refs,
    named_store,
    places_of,
    refs_by_owner,
    still_writable,
)
from store_registry.handlers.volumes import owned_volume
from store_registry.inventory import find_store, spec_of, stores_of
from store_registry.jobs import sagas
from store_registry.jobs.endings.copies import refs_of
from store_registry.jobs.endings.snapshots import announce_snapshot
from store_registry.jobs.holds import refuse_if_held
from store_registry.jobs.runner import Taken, begin
from store_registry.jobs.sagas import Kind, Place
from store_registry.registry import Registry
from store_registry.rows import ImageStore, Snapshot, SnapshotStoreRef, Store, Volume
from store_registry.rules.naming import snapshot_prefix
from store_registry.rules.ownership import account_filter, changeable, seen
from store_registry.rules.placement import for_backup
from store_registry.views import snapshot_view

_LISTED = [state for state in ResourceState if state is not ResourceState.DELETED]


async def create_snapshot(registry: Registry, command: CreateSnapshot) -> Accepted:
    async def decide(tx: Transaction, opening: Opening) -> Accepted:
        volume = await owned_volume(tx, command.actor, command.volume_id)
        await refuse_if_held(
            tx, volume.volume_id, noun="volume", field="volume_id", code=Code.CONFLICT
        )
        pool = await _pool_of(tx, volume)
        store = await _backup_store(tx, command, volume)
        prefix = snapshot_prefix(volume.account_id, command.snapshot_id)
        place = Place(store=spec_of(store), prefix=prefix)
        snapshot = _new_snapshot(command, opening, volume)
        if not await tx.add(snapshot):
            raise Taken
        saga = sagas.create_snapshot(opening.asker, snapshot, volume, spec_of(pool), place)
        backup = saga.steps[1].asks[0].transfer_id
        await add_refs(tx, SnapshotStoreRef, opening, [place], [backup])
        await announce_snapshot(tx, snapshot)
        return await begin(
            tx,
            opening.job(saga),
            exclusive=(snapshot.snapshot_id, volume.volume_id),
            reading=(store.store_id, pool.store_id),
        )

    return await accept(
        registry, command, Kind.SNAPSHOT_CREATE, decide, resource="snapshot_id", creates=True
    )


async def get_snapshot(registry: Registry, command: GetSnapshot) -> SnapshotView:
    async with registry.database.transaction() as tx:
        row = _there(await tx.get(Snapshot, command.snapshot_id))
        snapshot = seen(
            command.actor,
            row,
            noun="snapshot",
            resource_id=command.snapshot_id,
            field="snapshot_id",
        )
        refs = await refs_of(tx, SnapshotStoreRef, snapshot.snapshot_id)
    return snapshot_view(snapshot, refs)


async def list_snapshots(registry: Registry, command: ListSnapshots) -> SnapshotList:
    async with registry.database.transaction() as tx:
        rows = await tx.find(
            Snapshot,
            where={**account_filter(command.actor), "state": _LISTED},
            after=command.page.after,
            limit=command.page.limit,
        )
        refs = await refs_by_owner(tx, SnapshotStoreRef, [row.snapshot_id for row in rows])
    return SnapshotList(items=tuple(snapshot_view(row, refs[row.snapshot_id]) for row in rows))


async def delete_snapshot(registry: Registry, command: DeleteSnapshot) -> Accepted:
    async def decide(tx: Transaction, opening: Opening) -> Accepted:
        row = _there(await tx.get(Snapshot, command.snapshot_id, lock=True))
        snapshot = changeable(
            command.actor,
            row,
            noun="snapshot",
            resource_id=command.snapshot_id,
            field="snapshot_id",
        )
        await refuse_if_held(
            tx, snapshot.snapshot_id, noun="snapshot", field="snapshot_id", code=Code.IN_USE
        )
        refs = await refs_of(tx, SnapshotStoreRef, snapshot.snapshot_id, lock=True)
        places = await places_of(tx, refs)
        pool = await find_store(tx, snapshot.pool_id) if snapshot.pinned else None
        unpin = sagas.dropped(snapshot, spec_of(pool)) if pool else None
        for ref in refs:
            ref.state = CopyState.DESTROYING
            await tx.put(ref)
        snapshot.state = ResourceState.DELETING
        snapshot.job_id = opening.job_id
        await tx.put(snapshot)
        await announce_snapshot(tx, snapshot)
        return await begin(
            tx,
            opening.job(sagas.delete_snapshot(opening.asker, places, unpin)),
            exclusive=(snapshot.snapshot_id,),
            reading=tuple(place.store.store_id for place in places),
        )

    return await accept(registry, command, Kind.SNAPSHOT_DELETE, decide, resource="snapshot_id")


# --- taking one -------------------------------------------------------------------------------


async def _pool_of(tx: Transaction, volume: Volume) -> Store:
    if volume.state is not ResourceState.READY:
        raise Refused(
            Code.CONFLICT,
            f"the volume {volume.volume_id} is {volume.state}, not ready",
            field="volume_id",
            hint="wait for its job to end; one that failed is to be made anew",
        )
    pool = await find_store(tx, volume.store_id)
    assert pool is not None, "a pool with a ready volume can't be removed"
    return pool


async def _backup_store(tx: Transaction, command: CreateSnapshot, volume: Volume) -> Store:
    stores = await stores_of(tx, StoreRole.IMAGE)
    if command.store_id is not None:
        stores = [await named_store(tx, command.store_id, ImageStore)]
    (store,) = await still_writable(tx, [for_backup(stores, volume.zone_id)])
    return store


def _new_snapshot(command: CreateSnapshot, opening: Opening, volume: Volume) -> Snapshot:
    return Snapshot(
        snapshot_id=command.snapshot_id,
        account_id=volume.account_id,
        name=command.name,
        volume_id=volume.volume_id,
        zone_id=volume.zone_id,
        pool_id=volume.store_id,
        format=volume.format,
        size_bytes=volume.size_bytes,
        state=ResourceState.CREATING,
        created_at=opening.now,
        job_id=opening.job_id,
    )


def _there(row: Snapshot | None) -> Snapshot | None:
    return None if row is None or row.state is ResourceState.DELETED else row
