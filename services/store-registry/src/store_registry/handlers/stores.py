"""Stores of both roles: added after a probe, listed without secrets, removed when empty."""

from collections.abc import Sequence

from entrepot_chassis.ports import Transaction
from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.registry import (
    Accepted,
    AddStore,
    DeleteStore,
    Done,
    ListStores,
    StoreList,
)
from entrepot_contracts.values import CopyState, ResourceState, StoreRole, StoreState
from store_registry.handlers.accepting import Opening, accept
from store_registry.inventory import (
    PROVIDERS_MAX,
    STORE_ROWS,
    STORES_MAX,
    find_store,
    forget_secrets,
    keep_secrets,
    known_zone,
    load_limits,
    no_such_store,
    secrets_of,
    spec_of,
    stores_of,
)
from store_registry.jobs.endings.stores import announce_store
from store_registry.jobs.holds import holds_on
from store_registry.jobs.runner import Taken, begin
from store_registry.jobs.sagas import Kind
from store_registry.jobs.sagas import add_store as probing
from store_registry.keys import Unopenable
from store_registry.registry import Registry
from store_registry.rows import (
    Provider,
    Snapshot,
    SnapshotStoreRef,
    Store,
    StoreRef,
    TemplateStoreRef,
    Volume,
    VolumeStoreRef,
)
from store_registry.rules.details import Details, parse_details
from store_registry.rules.ownership import is_admin, require_admin
from store_registry.rules.scope import LIVE, check_mixing, check_role, scope_of, unknown_provider
from store_registry.views import store_view

_LATCH = "stores"
_BLOCKERS_MAX = 100
_OCCUPYING = [CopyState.ALLOCATED, CopyState.CREATING, CopyState.READY, CopyState.DESTROYING]
_ALIVE = [ResourceState.CREATING, ResourceState.READY, ResourceState.DELETING]
_REF_KINDS: tuple[type[StoreRef], ...] = (TemplateStoreRef, SnapshotStoreRef, VolumeStoreRef)


async def add_store(registry: Registry, command: AddStore) -> Accepted:
    require_admin(command.actor, "add stores")
    opened = _open_details(registry, command)

    async def decide(tx: Transaction, opening: Opening) -> Accepted:
        provider = await _provider(tx, command)
        details = parse_details(provider.name, provider.config_schema, opened)
        store = await _new_store(tx, command, provider, details, opening)
        await _refuse_rivals(tx, store)
        if not await tx.add(store):
            raise Taken
        await keep_secrets(tx, registry.keys, store, details.secret)
        await announce_store(tx, store)
        job = opening.job(probing(opening.asker, spec_of(store)))
        return await begin(tx, job, exclusive=(store.store_id,))

    accepted = await accept(
        registry, command, Kind.STORE_ADD, decide, resource="store_id", creates=True, latch=_LATCH
    )
    await _refuse_other_details(registry, command, opened)
    return accepted


async def list_stores(registry: Registry, command: ListStores) -> StoreList:
    kind = STORE_ROWS.get(command.role)
    if kind is None:
        raise Refused(
            Code.INVALID,
            f"stores of role {command.role} are not kept here",
            field="role",
            hint="roles here are image and primary; cache pools are listed by themselves",
        )
    async with registry.database.transaction() as tx:
        rows = await tx.find(
            kind,
            where={"state": sorted(LIVE)},
            after=command.page.after,
            limit=command.page.limit,
        )
    inside = is_admin(command.actor)
    return StoreList(items=tuple(store_view(row, inside=inside) for row in rows))


async def delete_store(registry: Registry, command: DeleteStore) -> Done:
    require_admin(command.actor, "delete stores")
    async with registry.database.transaction() as tx:
        store = await find_store(tx, command.store_id, lock=True)
        if store is None:
            if await _was_removed(tx, command.store_id):
                return Done()
            raise no_such_store(command.store_id)
        blockers = await _blockers(tx, store)
        if blockers:
            raise _in_use(store, blockers)
        await forget_secrets(tx, store)
        store.state = StoreState.REMOVED
        await tx.put(store)
        await announce_store(tx, store)
    return Done()


# --- adding -----------------------------------------------------------------------------------


def _open_details(registry: Registry, command: AddStore) -> bytes:
    try:
        return registry.keys.open(command.details.box)
    except Unopenable:
        raise Refused(
            Code.INVALID,
            "the details were not sealed to this registry's key",
            field="details",
            hint="ask for the sealing key again and seal the details to it",
        ) from None


async def _provider(tx: Transaction, command: AddStore) -> Provider:
    provider = await tx.get(Provider, command.provider)
    if provider is None:
        known = await tx.find(Provider, limit=PROVIDERS_MAX)
        raise unknown_provider(command.provider, [row.name for row in known])
    check_role(provider, command.role)
    return provider


async def _new_store(
    tx: Transaction, command: AddStore, provider: Provider, details: Details, opening: Opening
) -> Store:
    scope = scope_of(provider, command.role, command.zone_id)
    region = command.region
    if command.zone_id is not None:
        region = (await known_zone(tx, command.zone_id, "zone_id")).region
    return STORE_ROWS[command.role](
        store_id=command.store_id,
        account_id=opening.account_id,
        name=command.name,
        provider=provider.name,
        scope=scope,
        zone_id=command.zone_id,
        region=region,
        state=StoreState.PROBING,
        config=details.public,
        place=details.place,
        read_only=command.read_only,
        created_at=opening.now,
        job_id=opening.job_id,
    )


async def _refuse_rivals(tx: Transaction, store: Store) -> None:
    """Mixing, a taken name, and a place another store of either role has already."""
    same_role = await stores_of(tx, store.ROLE)
    if len(same_role) >= STORES_MAX:
        raise Refused(
            Code.QUOTA_EXCEEDED,
            f"there are {STORES_MAX} {store.ROLE} stores already",
            hint="remove one first",
        )
    if store.ROLE is StoreRole.IMAGE:
        check_mixing(store.provider, same_role, (await load_limits(tx)).mixing)
    if any(other.name == store.name for other in same_role):
        raise Refused(
            Code.CONFLICT,
            f"there is a {store.ROLE} store named {store.name} already",
            field="name",
            hint="store names are unique: choose another",
        )
    for role in STORE_ROWS:
        for other in await stores_of(tx, role):
            if other.place == store.place:
                raise Refused(
                    Code.CONFLICT,
                    f"the store {other.store_id} keeps its bytes in that place already",
                    field="details",
                    hint="give another bucket, path or prefix, or use the store that is there",
                    facts={"store_id": other.store_id},
                )


async def _refuse_other_details(registry: Registry, command: AddStore, opened: bytes) -> None:
    """A repeat of the command must mean the same place with the same credentials."""
    async with registry.database.transaction() as tx:
        store = await find_store(tx, command.store_id)
        provider = await tx.get(Provider, command.provider)
        if store is None or provider is None:
            return  # its probe failed, or it was removed: the job tells
        given = parse_details(provider.name, provider.config_schema, opened)
        kept = await secrets_of(tx, registry.keys, store)
    if (given.public, given.secret) != (store.config, kept):
        raise Refused(
            Code.CONFLICT,
            "this store_id was used with other details",
            field="store_id",
            hint="mint a fresh id for another store",
        )


# --- removing ---------------------------------------------------------------------------------


async def _was_removed(tx: Transaction, store_id: str) -> bool:
    rows = [await tx.get(kind, store_id) for kind in STORE_ROWS.values()]
    return any(row is not None for row in rows)


async def _blockers(tx: Transaction, store: Store) -> list[str]:
    """Ids of what lives on the store, or of jobs that use it."""
    found: list[str] = []
    for kind in _REF_KINDS:
        where = {"store_id": store.store_id, "state": _OCCUPYING}
        refs = await tx.find(kind, where=where, limit=_BLOCKERS_MAX)
        found += [getattr(ref, kind.OWNER) for ref in refs]
    found += await _on_pool(tx, store)
    found += [hold.job_id for hold in await holds_on(tx, store.store_id)]
    return list(dict.fromkeys(found))


async def _on_pool(tx: Transaction, store: Store) -> Sequence[str]:
    """Volumes that take room, and generations still pinned. A volume that failed and was cleaned
    away takes none.
    """
    if store.ROLE is not StoreRole.PRIMARY:
        return ()
    alive = {"store_id": store.store_id, "state": _ALIVE}
    volumes = await tx.find(Volume, where=alive, limit=_BLOCKERS_MAX)
    failed = {"store_id": store.store_id, "state": ResourceState.FAILED}
    volumes += [row for row in await tx.find(Volume, where=failed) if row.reserved_bytes]
    pinned = {"pool_id": store.store_id, "pinned": True, "state": [*_ALIVE, ResourceState.FAILED]}
    pins = await tx.find(Snapshot, where=pinned, limit=_BLOCKERS_MAX)
    return [row.volume_id for row in volumes] + [row.snapshot_id for row in pins]


def _in_use(store: Store, blockers: list[str]) -> Refused:
    return Refused(
        Code.IN_USE,
        f"{len(blockers)} things use the store {store.store_id}",
        field="store_id",
        hint="delete them, or wait for the jobs among them to end, then delete the store",
        facts={"blockers": ", ".join(blockers[:_BLOCKERS_MAX]), "count": str(len(blockers))},
    )
