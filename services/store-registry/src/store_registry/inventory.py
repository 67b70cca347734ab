"""Reading the inventory inside a transaction: stores of either role, zones, settings, secrets."""

from collections.abc import Iterable

import msgspec

from entrepot_chassis.ports import Transaction
from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.values import StoreRole, StoreSpec, StoreState
from store_registry.keys import Keys
from store_registry.rows import (
    ImageStore,
    ImageStoreDetail,
    Provider,
    Setting,
    StoragePool,
    StoragePoolDetail,
    Store,
    StoreDetail,
    Zone,
)
from store_registry.rules.limits import Limits, limits_of
from store_registry.rules.ownership import not_found
from store_registry.rules.scope import LIVE

STORES_MAX = 1000  # of one role
PROVIDERS_MAX = 200

STORE_ROWS: dict[StoreRole, type[Store]] = {
    StoreRole.IMAGE: ImageStore,
    StoreRole.PRIMARY: StoragePool,
}
DETAIL_ROWS: dict[StoreRole, type[StoreDetail]] = {
    StoreRole.IMAGE: ImageStoreDetail,
    StoreRole.PRIMARY: StoragePoolDetail,
}


async def find_store(tx: Transaction, store_id: str, *, lock: bool = False) -> Store | None:
    """A store of any role that has not been removed."""
    for kind in STORE_ROWS.values():
        store = await tx.get(kind, store_id, lock=lock)
        if store is not None and store.state is not StoreState.REMOVED:
            return store
    return None


async def stores_of(tx: Transaction, role: StoreRole) -> list[Store]:
    """Those that have not been removed."""
    kind = STORE_ROWS[role]
    return list(await tx.find(kind, where={"state": sorted(LIVE)}, limit=STORES_MAX))


async def lock_stores(tx: Transaction, store_ids: Iterable[str]) -> dict[str, Store]:
    """Rows of stores to change, locked in one order by everybody."""
    locked: dict[str, Store] = {}
    for store_id in sorted(set(store_ids)):
        store = await find_store(tx, store_id, lock=True)
        if store is not None:
            locked[store_id] = store
    return locked


def spec_of(store: Store) -> StoreSpec:
    return StoreSpec(
        store_id=store.store_id,
        role=store.ROLE,
        provider=store.provider,
        config=store.config,
        zone_id=store.zone_id,
    )


async def known_zone(tx: Transaction, zone_id: str, field: str) -> Zone:
    zone = await tx.get(Zone, zone_id)
    if zone is None:
        raise not_found("zone", zone_id, field)
    return zone


async def load_limits(tx: Transaction) -> Limits:
    return limits_of({row.name: row.value for row in await tx.find(Setting)})


async def traits_of(tx: Transaction, provider: str) -> dict[str, object]:
    row = await tx.get(Provider, provider)
    return row.traits if row else {}


# --- secrets ----------------------------------------------------------------------------------


def _aad(store: Store, column: str) -> str:
    """A sealed value opens only in the place it was made for: owner, store and column."""
    return f"{store.account_id}/{store.store_id}/{column}"


async def keep_secrets(
    tx: Transaction, keys: Keys, store: Store, secrets: dict[str, object]
) -> None:
    kind = DETAIL_ROWS[store.ROLE]
    for name, value in secrets.items():
        sealed = keys.encrypt(msgspec.json.encode(value), _aad(store, name))
        await tx.put(
            kind(
                detail_id=f"{store.store_id}.{name}",
                store_id=store.store_id,
                name=name,
                sealed=sealed,
            )
        )


async def secrets_of(tx: Transaction, keys: Keys, store: Store) -> dict[str, object]:
    rows = await tx.find(DETAIL_ROWS[store.ROLE], where={"store_id": store.store_id})
    return {
        row.name: msgspec.json.decode(keys.decrypt(row.sealed, _aad(store, row.name)))
        for row in rows
    }


async def forget_secrets(tx: Transaction, store: Store) -> None:
    kind = DETAIL_ROWS[store.ROLE]
    for row in await tx.find(kind, where={"store_id": store.store_id}):
        await tx.remove(kind, row.detail_id)


def no_such_store(store_id: str, field: str = "store_id") -> Refused:
    return Refused(
        Code.NOT_FOUND,
        f"there is no store {store_id}",
        field=field,
        hint="list the stores and take the id of one of them",
    )
