"""Volumes: made from a template, from a snapshot or blank; listed; deleted."""

from collections.abc import Sequence

from msgspec import Struct

from entrepot_chassis.ports import Transaction
from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.motion import ObjectEnd
from entrepot_contracts.registry import (
    Accepted,
    CreateVolume,
    DeleteVolume,
    GetVolume,
    ListVolumes,
    VolumeList,
    VolumeView,
)
from entrepot_contracts.values import Actor, ImageFormat, ResourceState, StoreRole
from store_registry.handlers.accepting import Opening, accept
from store_registry.handlers.placing import named_store, ready_refs, still_writable
from store_registry.inventory import (
    find_store,
    known_zone,
    load_limits,
    spec_of,
    stores_of,
    traits_of,
)
from store_registry.jobs import sagas
from store_registry.jobs.endings.volumes import announce_volume
from store_registry.jobs.holds import refuse_if_held
from store_registry.jobs.machine import Saga
from store_registry.jobs.runner import Taken, begin
from store_registry.jobs.sagas import Kind
from store_registry.registry import Registry
from store_registry.rows import (
    Snapshot,
    SnapshotStoreRef,
    StoragePool,
    Store,
    StoreRef,
    Template,
    TemplateStoreRef,
    Volume,
)
from store_registry.rules.limits import Limits
from store_registry.rules.ownership import account_filter, changeable, is_admin, seen
from store_registry.rules.placement import for_volume, has_room, readable_copy
from store_registry.rules.requests import Origin, check_disk, check_size, origin_of
from store_registry.views import volume_view

_LISTED = [state for state in ResourceState if state is not ResourceState.DELETED]

_DISKS = (ImageFormat.QCOW2, ImageFormat.RAW)


class Plan(Struct, frozen=True, kw_only=True):
    """What a volume will be made of. `format` None: whatever the pool likes best."""

    size_bytes: int
    format: ImageFormat | None = None
    source: ObjectEnd | None = None
    reading: tuple[str, ...] = ()


async def create_volume(registry: Registry, command: CreateVolume) -> Accepted:
    origin = origin_of(command)

    async def decide(tx: Transaction, opening: Opening) -> Accepted:
        await known_zone(tx, command.zone_id, "zone_id")
        limits = await load_limits(tx)
        plan = await _plan(tx, command, origin, limits)
        formats = await _pool_formats(tx)
        pool = await _pool(tx, command, plan, limits, formats)
        volume = _new_volume(command, opening, plan, pool, formats)
        if not await tx.add(volume):
            raise Taken
        pool.used_bytes += volume.reserved_bytes
        await tx.put(pool)
        await announce_volume(tx, volume)
        saga = sagas.create_volume(opening.asker, volume, spec_of(pool), plan.source)
        return await begin(
            tx,
            opening.job(saga),
            exclusive=(volume.volume_id,),
            reading=(*plan.reading, pool.store_id),
        )

    return await accept(
        registry, command, Kind.VOLUME_CREATE, decide, resource="volume_id", creates=True
    )


async def get_volume(registry: Registry, command: GetVolume) -> VolumeView:
    async with registry.database.transaction() as tx:
        row = _there(await tx.get(Volume, command.volume_id))
    volume = seen(
        command.actor, row, noun="volume", resource_id=command.volume_id, field="volume_id"
    )
    return volume_view(volume, inside=is_admin(command.actor))


async def list_volumes(registry: Registry, command: ListVolumes) -> VolumeList:
    async with registry.database.transaction() as tx:
        rows = await tx.find(
            Volume,
            where={**account_filter(command.actor), "state": _LISTED},
            after=command.page.after,
            limit=command.page.limit,
        )
    inside = is_admin(command.actor)
    return VolumeList(items=tuple(volume_view(row, inside=inside) for row in rows))


async def delete_volume(registry: Registry, command: DeleteVolume) -> Accepted:
    async def decide(tx: Transaction, opening: Opening) -> Accepted:
        volume = await owned_volume(tx, command.actor, command.volume_id)
        await refuse_if_held(
            tx, volume.volume_id, noun="volume", field="volume_id", code=Code.IN_USE
        )
        pool = await find_store(tx, volume.store_id)
        # A volume that failed may outlive its pool: then there is nothing left to delete.
        saga = (
            Saga(steps=())
            if pool is None
            else sagas.delete_volume(opening.asker, volume, spec_of(pool))
        )
        volume.state = ResourceState.DELETING
        volume.job_id = opening.job_id
        await tx.put(volume)
        await announce_volume(tx, volume)
        return await begin(
            tx,
            opening.job(saga),
            exclusive=(volume.volume_id,),
            reading=(volume.store_id,),
        )

    return await accept(registry, command, Kind.VOLUME_DELETE, decide, resource="volume_id")


async def owned_volume(tx: Transaction, actor: Actor, volume_id: str) -> Volume:
    """The volume, locked, if the actor may change it."""
    row = _there(await tx.get(Volume, volume_id, lock=True))
    return changeable(actor, row, noun="volume", resource_id=volume_id, field="volume_id")


def _there(row: Volume | None) -> Volume | None:
    return None if row is None or row.state is ResourceState.DELETED else row


# --- what it is made of -----------------------------------------------------------------------


async def _plan(tx: Transaction, command: CreateVolume, origin: Origin, limits: Limits) -> Plan:
    match origin:
        case Origin.TEMPLATE:
            return await _from_template(tx, command)
        case Origin.SNAPSHOT:
            return await _from_snapshot(tx, command)
        case Origin.BLANK:
            assert command.size_bytes is not None, "blank means that a size was given"
            check_size(command.size_bytes, limits)
            return Plan(size_bytes=command.size_bytes)


async def _from_template(tx: Transaction, command: CreateVolume) -> Plan:
    template_id = command.template_id or ""
    row = await tx.get(Template, template_id, lock=True)
    if row is not None and row.state is ResourceState.DELETED:
        row = None
    template = seen(
        command.actor,
        row,
        noun="template",
        resource_id=template_id,
        field="template_id",
        public=row is not None and row.public,
    )
    check_disk(template.format, "template_id")
    _require_ready(template.state, "template", template_id)
    refs = await ready_refs(tx, TemplateStoreRef, template_id)
    ref, store = await _copy_for(tx, refs, command.zone_id, "template", template_id)
    return _of_copy(template_id, ref, store)


async def _from_snapshot(tx: Transaction, command: CreateVolume) -> Plan:
    snapshot_id = command.snapshot_id or ""
    row = await tx.get(Snapshot, snapshot_id, lock=True)
    if row is not None and row.state is ResourceState.DELETED:
        row = None
    snapshot = seen(
        command.actor, row, noun="snapshot", resource_id=snapshot_id, field="snapshot_id"
    )
    _require_ready(snapshot.state, "snapshot", snapshot_id)
    refs = await ready_refs(tx, SnapshotStoreRef, snapshot_id)
    ref, store = await _copy_for(tx, refs, command.zone_id, "snapshot", snapshot_id)
    return _of_copy(snapshot_id, ref, store)


def _of_copy(owner_id: str, ref: StoreRef, store: Store) -> Plan:
    assert ref.stored is not None, "a ready copy names its object"
    return Plan(
        size_bytes=ref.stored.virtual_size_bytes,
        format=ref.stored.format,
        source=ObjectEnd(store=spec_of(store), prefix=ref.prefix, stored=ref.stored),
        reading=(owner_id, store.store_id),
    )


async def _copy_for(
    tx: Transaction, refs: Sequence[StoreRef], zone_id: str, noun: str, owner_id: str
) -> tuple[StoreRef, Store]:
    found = readable_copy(refs, await stores_of(tx, StoreRole.IMAGE), zone_id)
    if found is None:
        raise Refused(
            Code.NO_STORE,
            f"no copy of the {noun} {owner_id} can be read from zone {zone_id}",
            field=f"{noun}_id",
            hint="use a zone that has a copy, or put one on a region-wide image store",
        )
    return found


def _require_ready(state: ResourceState, noun: str, resource_id: str) -> None:
    if state is not ResourceState.READY:
        raise Refused(
            Code.CONFLICT,
            f"the {noun} {resource_id} is {state}, not ready",
            field=f"{noun}_id",
            hint="wait for its job to end; one that failed is to be made anew",
        )


# --- where it goes ----------------------------------------------------------------------------


async def _pool_formats(tx: Transaction) -> dict[str, tuple[str, ...]]:
    """Per primary store, the volume formats its provider named; empty where it named none."""
    formats = {}
    for pool in await stores_of(tx, StoreRole.PRIMARY):
        named = (await traits_of(tx, pool.provider)).get("volume_formats", ())
        formats[pool.store_id] = (
            tuple(name for name in named if name in _DISKS)
            if isinstance(named, list | tuple)
            else ()
        )
    return formats


async def _pool(
    tx: Transaction,
    command: CreateVolume,
    plan: Plan,
    limits: Limits,
    formats: dict[str, tuple[str, ...]],
) -> Store:
    pools = await stores_of(tx, StoreRole.PRIMARY)
    if command.store_id is not None:
        pools = [await named_store(tx, command.store_id, StoragePool)]
    chosen = for_volume(
        pools,
        zone_id=command.zone_id,
        size_bytes=plan.size_bytes,
        overprovision=limits.overprovision,
        holds_format=lambda pool: (
            not formats.get(pool.store_id)
            or plan.format is None
            or plan.format in formats[pool.store_id]
        ),
    )
    (pool,) = await still_writable(tx, [chosen])
    if not has_room(pool, plan.size_bytes, limits.overprovision):
        raise Taken  # by another volume, between the choice and the lock
    return pool


def _new_volume(
    command: CreateVolume,
    opening: Opening,
    plan: Plan,
    pool: Store,
    formats: dict[str, tuple[str, ...]],
) -> Volume:
    return Volume(
        volume_id=command.volume_id,
        account_id=opening.account_id,
        name=command.name,
        zone_id=command.zone_id,
        store_id=pool.store_id,
        format=plan.format or _blank_format(pool, formats.get(pool.store_id, ())),
        size_bytes=plan.size_bytes,
        reserved_bytes=plan.size_bytes,
        state=ResourceState.CREATING,
        created_at=opening.now,
        template_id=command.template_id,
        snapshot_id=command.snapshot_id,
        job_id=opening.job_id,
    )


def _blank_format(pool: Store, formats: tuple[str, ...]) -> ImageFormat:
    """What the pool's config says, else qcow2, which grows with its content."""
    wanted = (pool.config.get("format"), ImageFormat.QCOW2, *formats)
    fitting = [name for name in wanted if name in _DISKS and (not formats or name in formats)]
    return ImageFormat(fitting[0])
