"""What a piece of work needs of a mover, what a mover offers, and the words for what is missing."""

from collections.abc import Mapping, Sequence

from entrepot_contracts.motion import ProviderFact
from entrepot_contracts.values import StoreSpec
from entrepot_plugin.ports import EndFact, Leg, MoverFact
from motion_engine.ledger import Reach
from motion_engine.rows import Mover, Transfer

_HOST_DEFAULT = "local"


def label_of_store(store: StoreSpec, providers: Mapping[str, ProviderFact]) -> str | None:
    """`<reach label>:<value>` that a mover must carry to use this store; None: any mover may."""
    fact = providers.get(store.provider)
    label = fact.traits.get("reach_label") if fact else None
    if fact is None or not label:
        return None
    field = fact.traits.get("reach_config") or ""
    rule = fact.config_schema.get("properties", {}).get(field, {})
    value = store.config.get(field) or rule.get("default") or _HOST_DEFAULT
    return f"{label}:{value}"


def missing(mover: MoverFact, ends: Sequence[tuple[str, EndFact]]) -> str:
    """The first thing this mover lacks for the named ends; empty if it can."""
    for role, end in ends:
        if end.provider and end.provider not in mover.providers:
            return f"{role}: provider {end.provider} is not installed"
        if end.zone_id and mover.zone_ids and end.zone_id not in mover.zone_ids:
            return f"{role}: does not serve zone {end.zone_id}"
        if end.reach_label and end.reach_label not in labels_of(mover.labels):
            return f"{role}: lacks label {end.reach_label}"
    return ""


def labels_of(labels: Mapping[str, str]) -> frozenset[str]:
    return frozenset(f"{name}:{value}" for name, value in labels.items())


def needs_of(legs: Sequence[Leg]) -> tuple[str, ...]:
    providers = {f"provider:{name}" for leg in legs for name in leg.providers}
    labels = {f"label:{label}" for leg in legs for label in leg.labels}
    return tuple(sorted(providers | labels))


def within_reach(transfer: Transfer, mover: MoverFact) -> bool:
    """As the ledger's `ready` has it, for a mover of the topology."""
    labels = {f"label:{label}" for label in labels_of(mover.labels)}
    has = labels | {f"provider:{name}" for name in mover.providers}
    zones = not mover.zone_ids or set(transfer.zones) <= set(mover.zone_ids)
    return zones and set(transfer.needs) <= has


def reach_of(mover: Mover) -> Reach:
    providers = {f"provider:{fact.name}" for fact in mover.providers}
    labels = {f"label:{label}" for label in labels_of(mover.labels)}
    return Reach(has=tuple(sorted(providers | labels)), zones=mover.zone_ids)
