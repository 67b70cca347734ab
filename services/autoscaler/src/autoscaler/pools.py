"""Scaling pools: what an administrator sets, and what is shown of them."""

from autoscaler.context import Scaler
from autoscaler.rows import PoolRow
from entrepot_contracts.authority import only_admin
from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.fleet import ListPools, Mode, PoolList, PoolView, PutPool


async def put_pool(scaler: Scaler, command: PutPool) -> PoolView:
    """Create or change; a zone has one pool.

    Raises Refused invalid for a strategy that is not installed, for bounds that contradict each
    other and for mode active, which needs a provisioner.
    """
    only_admin(command.actor)
    _check(scaler, command)
    async with scaler.database.transaction() as tx:
        pool = await tx.get(PoolRow, command.pool_id, lock=True)
        if pool is None:
            pool = PoolRow(
                pool_id=command.pool_id,
                zone_id=command.zone_id,
                strategy=command.strategy,
                mode=command.mode,
                vms_min=command.vms_min,
                vms_max=command.vms_max,
            )
            if not await tx.add(pool):
                raise Refused(
                    Code.CONFLICT,
                    "this zone has a scaling pool already",
                    field="zone_id",
                    hint="change that pool instead",
                )
            return view(pool)
        if pool.zone_id != command.zone_id:
            raise Refused(
                Code.CONFLICT,
                "a pool stays in its zone",
                field="zone_id",
                hint="make a new pool in the other zone",
            )
        pool.strategy, pool.mode = command.strategy, command.mode
        pool.vms_min, pool.vms_max = command.vms_min, command.vms_max
        await tx.put(pool)
        return view(pool)


async def list_pools(scaler: Scaler, command: ListPools) -> PoolList:
    only_admin(command.actor)
    async with scaler.database.transaction() as tx:
        return PoolList(items=tuple(view(pool) for pool in await tx.find(PoolRow)))


def view(pool: PoolRow) -> PoolView:
    return PoolView(
        pool_id=pool.pool_id,
        zone_id=pool.zone_id,
        strategy=pool.strategy,
        mode=pool.mode,
        vms_min=pool.vms_min,
        vms_max=pool.vms_max,
        desired=pool.desired,
        ready=pool.ready,
        last_reason=pool.last_reason,
        sampled_at=pool.sampled_at,
    )


def _check(scaler: Scaler, command: PutPool) -> None:
    if command.strategy not in scaler.strategies:
        raise Refused(
            Code.INVALID,
            f"no scale strategy {command.strategy!r}",
            field="strategy",
            hint=f"installed: {', '.join(sorted(scaler.strategies))}",
        )
    if command.vms_min > command.vms_max:
        raise Refused(
            Code.INVALID,
            f"vms_min {command.vms_min} is above vms_max {command.vms_max}",
            field="vms_min",
            hint="lower vms_min or raise vms_max",
        )
    if command.mode is Mode.ACTIVE:
        raise Refused(
            Code.INVALID,
            "mode active needs a provisioner, and none is installed",
            field="mode",
            hint="use shadow: decisions are made and recorded, no VM is started",
        )
