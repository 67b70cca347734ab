"""Cache pools: add, list, remove; how full each is."""

from cache_manager.context import Cache
from cache_manager.entries import ENDED
from cache_manager.rows import EntryRow, LeaseRow, PoolRow
from entrepot_chassis.ports import Transaction
from entrepot_contracts.authority import only_admin
from entrepot_contracts.cache import (
    AddPool,
    ListPools,
    PoolGone,
    PoolList,
    PoolView,
    RemovePool,
)
from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.values import Scope
from entrepot_plugin.ports import PoolLoad

ENTRIES_MAX = 100_000


async def add_pool(cache: Cache, command: AddPool) -> PoolView:
    """Repeating it with the same id is the same pool. Raises Refused conflict for a taken name."""
    only_admin(command.actor)
    if command.scope is Scope.REGION:
        raise Refused(
            Code.INVALID,
            "a cache pool serves a zone, a pod or a cluster, not a region",
            field="scope",
            hint="use zone, pod or cluster",
        )
    row = PoolRow(
        pool_id=command.pool_id,
        name=command.name,
        scope=command.scope,
        zone_id=command.zone_id,
        store=command.store,
        capacity_bytes=command.capacity_bytes,
    )
    async with cache.database.transaction() as tx:
        kept = await tx.get(PoolRow, command.pool_id)
        if kept is None and not await tx.add(row):
            raise Refused(
                Code.CONFLICT,
                f"a cache pool named {command.name!r} exists",
                field="name",
                hint="choose another name",
            )
        if kept is not None and kept != row:
            raise Refused(
                Code.CONFLICT,
                "this pool id is taken by a pool with other settings",
                field="pool_id",
                hint="mint a new id",
            )
        return await _view(tx, kept or row)


async def list_pools(cache: Cache, command: ListPools) -> PoolList:
    only_admin(command.actor)
    async with cache.database.transaction() as tx:
        pools = await tx.find(PoolRow)
        return PoolList(items=tuple([await _view(tx, pool) for pool in pools]))


async def remove_pool(cache: Cache, command: RemovePool) -> PoolGone:
    """Gone already = success. Raises Refused in_use while live entries lie there."""
    only_admin(command.actor)
    async with cache.database.transaction() as tx:
        pool = await tx.get(PoolRow, command.pool_id, lock=True)
        if pool is None:
            return PoolGone(pool_id=command.pool_id)
        blockers = [entry for entry in await _entries(tx, pool.pool_id) if entry.live_key]
        if blockers:
            raise Refused(
                Code.IN_USE,
                f"{len(blockers)} entries live in this pool",
                field="pool_id",
                hint="wait for their leases to end",
                facts={"entries": ",".join(entry.entry_id for entry in blockers[:50])},
            )
        for entry in await _entries(tx, pool.pool_id):
            for lease in await tx.find(LeaseRow, where={"entry_id": entry.entry_id}):
                await tx.remove(LeaseRow, lease.lease_id)
            await tx.remove(EntryRow, entry.entry_id)
        await tx.remove(PoolRow, pool.pool_id)
    return PoolGone(pool_id=command.pool_id)


async def loads(tx: Transaction, pools: list[PoolRow], live_key: str) -> list[PoolLoad]:
    """What a policy may know of each pool: reservations count as used."""
    facts = []
    for pool in pools:
        entries = [e for e in await _entries(tx, pool.pool_id) if e.state not in ENDED]
        filling = [entry for entry in entries if entry.filler]
        facts.append(
            PoolLoad(
                pool_id=pool.pool_id,
                scope=pool.scope,
                capacity_bytes=pool.capacity_bytes,
                used_bytes=sum(entry.digest.size_bytes for entry in entries),
                streams=len(filling),
                in_flight_bytes=sum(entry.digest.size_bytes for entry in filling),
                has_copy=any(entry.live_key == live_key for entry in entries),
                draining=pool.draining,
            )
        )
    return facts


async def _view(tx: Transaction, pool: PoolRow) -> PoolView:
    entries = [e for e in await _entries(tx, pool.pool_id) if e.state not in ENDED]
    now = await tx.now()
    leases = [
        lease
        for entry in entries
        for lease in await tx.find(LeaseRow, where={"entry_id": entry.entry_id, "released": False})
        if lease.expires_at > now
    ]
    return PoolView(
        pool_id=pool.pool_id,
        name=pool.name,
        scope=pool.scope,
        zone_id=pool.zone_id,
        store=pool.store,
        capacity_bytes=pool.capacity_bytes,
        used_bytes=sum(entry.digest.size_bytes for entry in entries),
        leases=len(leases),
        draining=pool.draining,
    )


async def _entries(tx: Transaction, pool_id: str) -> list[EntryRow]:
    return await tx.find(EntryRow, where={"pool_id": pool_id}, limit=ENTRIES_MAX)
