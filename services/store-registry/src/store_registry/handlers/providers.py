"""Store providers, as movers announced them."""

import structlog

from entrepot_chassis.ports import Transaction
from entrepot_contracts.motion import MoverRegistered, ProviderFact
from entrepot_contracts.registry import ListProviders, ProviderList
from store_registry.inventory import PROVIDERS_MAX
from store_registry.registry import Registry
from store_registry.rows import Provider
from store_registry.rules.details import check_schema
from store_registry.rules.ownership import require_admin
from store_registry.views import provider_view

log = structlog.get_logger()


async def list_providers(registry: Registry, command: ListProviders) -> ProviderList:
    require_admin(command.actor, "list providers")
    async with registry.database.transaction() as tx:
        rows = await tx.find(Provider, limit=PROVIDERS_MAX)
    return ProviderList(items=tuple(map(provider_view, rows)))


async def learn(tx: Transaction, event: MoverRegistered) -> None:
    """The latest mover's word on a provider stands; sorted, so that all lock in one order."""
    for fact in sorted(event.providers, key=lambda fact: fact.name):
        why_not = check_schema(fact.config_schema)
        if why_not is not None:
            log.warning(
                "provider.schema_unusable",
                provider=fact.name,
                mover_id=event.mover_id,
                reason=why_not,
            )
            continue
        await _keep(tx, fact)


async def _keep(tx: Transaction, fact: ProviderFact) -> None:
    await tx.put(
        Provider(
            name=fact.name,
            version=fact.version,
            roles=fact.roles,
            scopes=fact.scopes,
            traits=fact.traits,
            config_schema=fact.config_schema,
            seen_at=await tx.now(),
        )
    )
