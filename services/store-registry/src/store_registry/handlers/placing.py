"""Choosing stores for copies inside a transaction, and the rows of copies that go with them."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, TypeVar

from entrepot_chassis.ports import Transaction
from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.values import CopyState
from store_registry.handlers.accepting import Opening
from store_registry.inventory import find_store, lock_stores, no_such_store, spec_of
from store_registry.jobs.runner import Taken
from store_registry.jobs.sagas import Place
from store_registry.rows import Store, StoreRef
from store_registry.rules.placement import writable

REFS_MAX = 10_000  # of one page of a list
RefT = TypeVar("RefT", bound=StoreRef)


async def still_writable(tx: Transaction, chosen: Sequence[Store]) -> list[Store]:
    """The chosen stores, locked; if one changed since it was chosen, choose again."""
    locked = await lock_stores(tx, (store.store_id for store in chosen))
    if any(
        store.store_id not in locked or not writable(locked[store.store_id]) for store in chosen
    ):
        raise Taken
    return [locked[store.store_id] for store in chosen]


async def named_store(tx: Transaction, store_id: str, kind: type[Store]) -> Store:
    """A store the caller asked for by id: there, of the role, up and writable."""
    store = await find_store(tx, store_id, lock=True)
    if store is None or not isinstance(store, kind):
        raise no_such_store(store_id)
    if not writable(store):
        raise Refused(
            Code.NO_STORE,
            f"the store {store_id} is {'read-only' if store.read_only else store.state}",
            field="store_id",
            hint="name another store, or none to have one chosen",
        )
    return store


async def add_refs(
    tx: Transaction,
    kind: type[StoreRef],
    opening: Opening,
    places: Sequence[Place],
    transfer_ids: Sequence[str],
) -> None:
    """One row per copy in the making, each with the transfer that makes it."""
    for place, transfer_id in zip(places, transfer_ids, strict=True):
        owner: dict[str, Any] = {kind.OWNER: opening.resource_id}
        await tx.put(
            kind(
                ref_id=f"{opening.resource_id}.{place.store.store_id}",
                store_id=place.store.store_id,
                zone_id=place.store.zone_id,
                state=CopyState.CREATING,
                prefix=place.prefix,
                created_at=opening.now,
                updated_at=opening.now,
                transfer_id=transfer_id,
                job_id=opening.job_id,
                **owner,
            )
        )


async def places_of(tx: Transaction, refs: Sequence[StoreRef]) -> list[Place]:
    """Where the copies lie, so far as their stores are still ours."""
    places = []
    for ref in sorted(refs, key=lambda ref: ref.store_id):
        store = await find_store(tx, ref.store_id)
        if store is not None:
            places.append(Place(store=spec_of(store), prefix=ref.prefix))
    return places


async def ready_refs(tx: Transaction, kind: type[RefT], owner_id: str) -> list[RefT]:
    return await tx.find(kind, where={kind.OWNER: owner_id, "state": CopyState.READY})


async def refs_by_owner(
    tx: Transaction, kind: type[RefT], owner_ids: Sequence[str]
) -> defaultdict[str, list[RefT]]:
    """The copies of one page of things, destroyed ones left out, in one query."""
    found: defaultdict[str, list[RefT]] = defaultdict(list)
    if owner_ids:
        states = [state for state in CopyState if state is not CopyState.DESTROYED]
        where = {kind.OWNER: list(owner_ids), "state": states}
        for ref in await tx.find(kind, where=where, limit=REFS_MAX):
            found[getattr(ref, kind.OWNER)].append(ref)
    return found
