"""Ends of snapshot.create and snapshot.delete."""

from entrepot_chassis.ports import Transaction
from entrepot_contracts.errors import Problem
from entrepot_contracts.motion import DropSnapshotWork, Pinned
from entrepot_contracts.registry import SnapshotChanged
from entrepot_contracts.values import ResourceState
from store_registry.announce import announce
from store_registry.jobs.endings.copies import (
    refs_of,
    settle_destroyed,
    settle_failed,
    settle_ready,
)
from store_registry.rows import Job, Snapshot, SnapshotStoreRef


async def created(tx: Transaction, job: Job) -> None:
    snapshot = await _snapshot(tx, job)
    refs = await refs_of(tx, SnapshotStoreRef, snapshot.snapshot_id, lock=True)
    first, *_ = await settle_ready(tx, job, refs)
    snapshot.digest_root = first.digest.root
    snapshot.size_bytes = _pinned_size(job) or snapshot.size_bytes
    snapshot.pinned = _pin_stayed(job)
    await _put(tx, snapshot, ResourceState.READY)


async def not_created(tx: Transaction, job: Job, problem: Problem) -> None:
    snapshot = await _snapshot(tx, job)
    refs = await refs_of(tx, SnapshotStoreRef, snapshot.snapshot_id, lock=True)
    await settle_failed(tx, refs, problem)
    snapshot.error = problem
    snapshot.pinned = _pin_stayed(job)
    await _put(tx, snapshot, ResourceState.FAILED)


async def deleted(tx: Transaction, job: Job) -> None:
    snapshot = await _snapshot(tx, job)
    refs = await refs_of(tx, SnapshotStoreRef, snapshot.snapshot_id, lock=True)
    await settle_destroyed(tx, refs)
    snapshot.pinned = False
    await _put(tx, snapshot, ResourceState.DELETED)


async def not_deleted(tx: Transaction, job: Job, problem: Problem) -> None:
    """Some of it may be gone: it is of no use any more, and can be deleted again."""
    snapshot = await _snapshot(tx, job)
    snapshot.error = problem
    await _put(tx, snapshot, ResourceState.FAILED)


async def announce_snapshot(tx: Transaction, snapshot: Snapshot) -> None:
    await announce(
        tx,
        SnapshotChanged(
            snapshot_id=snapshot.snapshot_id,
            account_id=snapshot.account_id,
            state=snapshot.state,
            at=await tx.now(),
        ),
    )


def _pin_stayed(job: Job) -> bool:
    """Whether the transfer that was to drop the pin failed."""
    asks = [ask for step in job.saga.steps for ask in (*step.asks, *step.undo)]
    drops = {ask.transfer_id for ask in asks if isinstance(ask.work, DropSnapshotWork)}
    return not drops.isdisjoint(job.saga.spoiled)


def _pinned_size(job: Job) -> int | None:
    sizes = [
        outcome.result.size_bytes
        for outcome in job.saga.outcomes.values()
        if isinstance(outcome.result, Pinned)
    ]
    return sizes[0] if sizes else None


async def _put(tx: Transaction, snapshot: Snapshot, state: ResourceState) -> None:
    snapshot.state = state
    await tx.put(snapshot)
    await announce_snapshot(tx, snapshot)


async def _snapshot(tx: Transaction, job: Job) -> Snapshot:
    snapshot = await tx.get(Snapshot, job.resource_id, lock=True)
    assert snapshot is not None, "snapshots are marked deleted, never removed"
    return snapshot
