"""Ends of store.add: up with what the probe found, or gone without a trace but the job."""

from entrepot_chassis.ports import Transaction
from entrepot_contracts.errors import Problem
from entrepot_contracts.motion import Probed
from entrepot_contracts.registry import StoreChanged
from entrepot_contracts.values import StoreState
from store_registry.announce import announce
from store_registry.inventory import find_store, forget_secrets
from store_registry.rows import Job, Store


async def added(tx: Transaction, job: Job) -> None:
    store = await _store(tx, job)
    (outcome,) = job.saga.outcomes.values()
    assert isinstance(outcome.result, Probed), "a probe answers with a report"
    report = outcome.result.report
    store.state = StoreState.UP
    store.report = report
    store.capacity_bytes = report.capacity_bytes
    if report.capacity_bytes is not None and report.free_bytes is not None:
        store.used_bytes = max(0, report.capacity_bytes - report.free_bytes)
    await tx.put(store)
    await announce_store(tx, store)


async def not_added(tx: Transaction, job: Job, _: Problem) -> None:
    store = await _store(tx, job)
    await forget_secrets(tx, store)
    await tx.remove(type(store), store.store_id)
    store.state = StoreState.REFUSED
    await announce_store(tx, store)


async def announce_store(tx: Transaction, store: Store) -> None:
    await announce(
        tx,
        StoreChanged(
            store_id=store.store_id, role=store.ROLE, state=store.state, at=await tx.now()
        ),
    )


async def _store(tx: Transaction, job: Job) -> Store:
    store = await find_store(tx, job.resource_id, lock=True)
    assert store is not None, "its job holds the store, so nobody removed it"
    return store
