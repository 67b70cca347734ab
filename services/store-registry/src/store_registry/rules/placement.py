"""Where a new copy or volume goes: the store with the most free room, by share."""

from collections.abc import Callable, Iterable, Sequence

from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.values import StoreState
from store_registry.rows import Store, StoreRef
from store_registry.rules.scope import READABLE, serves


def writable(store: Store) -> bool:
    return store.state is StoreState.UP and not store.read_only


def free_share(store: Store, overprovision: float = 1.0) -> float:
    """Free part of what the store may hold; one whose size nobody knows counts as empty."""
    if not store.capacity_bytes:
        return 1.0
    return 1.0 - store.used_bytes / (store.capacity_bytes * overprovision)


def has_room(store: Store, size_bytes: int, overprovision: float = 1.0) -> bool:
    if store.capacity_bytes is None:
        return True
    return store.used_bytes + size_bytes <= store.capacity_bytes * overprovision


def for_region(stores: Iterable[Store]) -> Store:
    """A region-wide image store for one copy that serves all zones."""
    fitting = [store for store in stores if writable(store) and store.zone_id is None]
    if not fitting:
        raise Refused(
            Code.NO_STORE,
            "no region-wide image store is up and writable",
            field="scope",
            hint="ask an administrator to add one (a provider of scope region), "
            "or use scope zone and name the zones",
        )
    return _best(fitting)


def for_zone(stores: Iterable[Store], zone_id: str) -> Store:
    """A zone-wide image store of this zone."""
    fitting = [store for store in stores if writable(store) and store.zone_id == zone_id]
    if not fitting:
        raise Refused(
            Code.NO_STORE,
            f"zone {zone_id} has no image store of its own that is up and writable",
            field="zone_ids",
            hint="ask an administrator to add one to the zone, or use scope region",
        )
    return _best(fitting)


def for_backup(stores: Sequence[Store], zone_id: str) -> Store:
    """An image store a zone can use; region-wide first, so that every zone can restore from it."""
    fitting = [store for store in stores if writable(store) and serves(store.zone_id, zone_id)]
    if not fitting:
        raise Refused(
            Code.NO_STORE,
            f"no image store that is up and writable serves zone {zone_id}",
            field="store_id",
            hint="ask an administrator to add a region-wide image store, or one in the zone",
        )
    return _best([store for store in fitting if store.zone_id is None] or fitting)


def for_volume(
    pools: Iterable[Store],
    *,
    zone_id: str,
    size_bytes: int,
    overprovision: float,
    holds_format: Callable[[Store], bool],
) -> Store:
    """A primary store of the zone that knows the format and has room for the virtual size."""
    in_zone = [pool for pool in pools if writable(pool) and pool.zone_id == zone_id]
    fitting = [pool for pool in in_zone if holds_format(pool)]
    if not fitting:
        raise Refused(
            Code.NO_STORE,
            f"zone {zone_id} has no primary store for this format that is up and writable",
            field="zone_id",
            hint="ask an administrator to add a primary store to the zone",
        )
    roomy = [pool for pool in fitting if has_room(pool, size_bytes, overprovision)]
    if not roomy:
        raise Refused(
            Code.STORE_FULL,
            f"no primary store of zone {zone_id} has room for {size_bytes} bytes",
            field="size_bytes",
            hint="delete volumes, or ask an administrator to add a primary store",
        )
    return _best(roomy, overprovision)


def readable_copy(
    refs: Iterable[StoreRef], stores: Iterable[Store], zone_id: str | None
) -> tuple[StoreRef, Store] | None:
    """The copy to read for a zone: one in the zone before a region-wide one. Zone None: any."""
    by_id = {store.store_id: store for store in stores if store.state in READABLE}
    found = [
        (ref, by_id[ref.store_id])
        for ref in refs
        if ref.stored is not None
        and ref.store_id in by_id
        and (zone_id is None or serves(by_id[ref.store_id].zone_id, zone_id))
    ]
    return min(found, key=_nearness, default=None)


def _nearness(pair: tuple[StoreRef, Store]) -> tuple[bool, bool, str]:
    _, store = pair
    return (store.state is not StoreState.UP, store.zone_id is None, store.store_id)


def _best(stores: Sequence[Store], overprovision: float = 1.0) -> Store:
    return min(stores, key=lambda store: (-free_share(store, overprovision), store.store_id))
