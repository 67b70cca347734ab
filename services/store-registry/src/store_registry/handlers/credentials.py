"""The key that secrets are sealed to, and those of stores and sources sealed to one mover."""

import msgspec

from entrepot_chassis.ports import Transaction
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
from store_registry.rows import Template
from store_registry.source_query import query_of

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
            secrets = await _secrets(registry, tx, store_id)
            if secrets is not None:
                items[store_id] = _sealed(registry, command.recipient, secrets)
    return SealedCredentials(items=items)


async def _secrets(registry: Registry, tx: Transaction, secret_id: str) -> dict[str, object] | None:
    """Of a store, or of a template that is still being fetched."""
    store = await find_store(tx, secret_id)
    if store is not None:
        return await secrets_of(tx, registry.keys, store)
    template = await tx.get(Template, secret_id)
    query = None if template is None else query_of(registry.keys, template)
    return None if query is None else {"query": query}


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
