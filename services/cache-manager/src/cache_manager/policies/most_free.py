"""`most-free`: the pool with the largest free share that can hold the object."""

from collections.abc import Sequence

from entrepot_plugin.ports import CachePolicy, LeaseAsk, Placement, PoolLoad, Refusal


class MostFree:
    name = "most-free"

    def place(self, ask: LeaseAsk, pools: Sequence[PoolLoad]) -> Placement | Refusal:
        """Ties go to the pool with fewer streams, then to the lower id: same input, same pool."""
        table = tuple((pool.pool_id, _verdict(ask, pool)) for pool in pools)
        fitting = [pool for pool in pools if not _obstacle(ask, pool)]
        if not fitting:
            return Refusal(reason="no cache pool of this zone can hold the object", table=table)
        best = min(fitting, key=lambda pool: (-_free_share(pool), pool.streams, pool.pool_id))
        return Placement(
            pool_id=best.pool_id,
            reason=f"most free: {_free_share(best):.0%} of {len(fitting)} fitting",
            table=table,
        )


def _obstacle(ask: LeaseAsk, pool: PoolLoad) -> str | None:
    if pool.draining:
        return "draining"
    missing = pool.used_bytes + ask.size_bytes - pool.capacity_bytes
    return f"{missing} bytes short" if missing > 0 else None


def _verdict(ask: LeaseAsk, pool: PoolLoad) -> str:
    return _obstacle(ask, pool) or f"fits, {_free_share(pool):.0%} free"


def _free_share(pool: PoolLoad) -> float:
    return 1 - pool.used_bytes / pool.capacity_bytes


POLICY: CachePolicy = MostFree()
