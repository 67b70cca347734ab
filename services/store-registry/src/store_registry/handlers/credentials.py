"""The key that details are sealed to, and secrets of stores sealed again to one mover's key."""

import msgspec

from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.registry import (
    GetSealingKey,
    SealCredentials,
    SealedCredentials,
    SealingKey,
)
from entrepot_contracts.values import Sealed
from store_registry.inventory import find_store, secrets_of
from store_registry.keys import Unopenable
from store_registry.registry import Registry

STORES_MAX = 256  # in one request


async def get_sealing_key(registry: Registry, _: GetSealingKey) -> SealingKey:
    return SealingKey(public_key=registry.keys.public_key)


async def seal_credentials(registry: Registry, command: SealCredentials) -> SealedCredentials:
    """Stores that are not ours (cache pools), or no longer, are left out of the answer."""
    if len(command.store_ids) > STORES_MAX:
        raise Refused(
            Code.TOO_LARGE,
            f"at most {STORES_MAX} stores in one request",
            field="store_ids",
            hint="ask in several requests",
        )
    items: dict[str, Sealed] = {}
    async with registry.database.transaction() as tx:
        for store_id in dict.fromkeys(command.store_ids):
            store = await find_store(tx, store_id)
            if store is not None:
                secrets = await secrets_of(tx, registry.keys, store)
                items[store_id] = _sealed(registry, command.recipient, secrets)
    return SealedCredentials(items=items)


def _sealed(registry: Registry, recipient: str, secrets: dict[str, object]) -> Sealed:
    try:
        box = registry.keys.seal(recipient, msgspec.json.encode(secrets))
    except Unopenable:
        raise Refused(
            Code.INVALID,
            "the recipient is no public key",
            field="recipient",
            hint="give the base64 text of a raw X25519 public key",
        ) from None
    return Sealed(recipient=recipient, box=box)
