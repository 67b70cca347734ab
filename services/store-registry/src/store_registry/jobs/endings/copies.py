"""Settling the rows of copies: what a transfer left, what a deletion freed, what failed."""

from collections.abc import Sequence
from typing import TypeVar

from entrepot_chassis.ports import Transaction
from entrepot_contracts.errors import Problem
from entrepot_contracts.motion import Copied
from entrepot_contracts.values import CopyState
from store_registry.inventory import lock_stores
from store_registry.jobs.machine import Outcome
from store_registry.rows import Job, StoreRef

COPIES_MAX = 1000  # of one template or snapshot
RefT = TypeVar("RefT", bound=StoreRef)


async def refs_of(
    tx: Transaction, kind: type[RefT], owner_id: str, *, lock: bool = False
) -> list[RefT]:
    """The copies that are, or may be, there; destroyed ones are history."""
    rows = await tx.find(kind, where={kind.OWNER: owner_id}, limit=COPIES_MAX, lock=lock)
    return [row for row in rows if row.state is not CopyState.DESTROYED]


async def settle_ready(tx: Transaction, job: Job, refs: Sequence[StoreRef]) -> list[Copied]:
    """Point each ref at what its transfer left; count the bytes against the stores."""
    stores = await lock_stores(tx, (ref.store_id for ref in refs))
    results = []
    for ref in refs:
        outcome = _outcome(job, ref)
        result = outcome.result
        assert isinstance(result, Copied) and result.stored is not None, "a copy leaves an object"  # noqa: PT018
        stored = result.stored
        ref.state = CopyState.READY
        ref.stored = stored
        ref.digest_root = stored.digest.root
        ref.checksum = stored.checksum
        ref.size_bytes = stored.digest.size_bytes
        ref.physical_size_bytes = stored.stored_bytes
        ref.epoch = outcome.epoch
        await _put(tx, ref)
        stores[ref.store_id].used_bytes += stored.stored_bytes
        results.append(result)
    for store in stores.values():
        await tx.put(store)
    return results


async def settle_failed(tx: Transaction, refs: Sequence[StoreRef], problem: Problem) -> None:
    for ref in refs:
        ref.state = CopyState.FAILED
        ref.error = problem
        await _put(tx, ref)


async def settle_destroyed(tx: Transaction, refs: Sequence[StoreRef]) -> None:
    stores = await lock_stores(tx, (ref.store_id for ref in refs))
    for ref in refs:
        store = stores.get(ref.store_id)
        if store is not None:
            store.used_bytes = max(0, store.used_bytes - ref.physical_size_bytes)
        ref.state = CopyState.DESTROYED
        ref.stored = None
        ref.physical_size_bytes = 0
        await _put(tx, ref)
    for store in stores.values():
        await tx.put(store)


async def _put(tx: Transaction, ref: StoreRef) -> None:
    ref.updated_at = await tx.now()
    await tx.put(ref)


def _outcome(job: Job, ref: StoreRef) -> Outcome:
    assert ref.transfer_id is not None, "a copy in the making names its transfer"
    return job.saga.outcomes[ref.transfer_id]
