"""Which scope a store gets, which zones it serves, and which providers may stand side by side."""

from collections.abc import Iterable
from enum import StrEnum

from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.values import Scope, StoreRole, StoreState
from store_registry.rows import Provider, Store

LIVE = frozenset({StoreState.PROBING, StoreState.UP, StoreState.DEGRADED})
READABLE = frozenset({StoreState.UP, StoreState.DEGRADED})


class Mixing(StrEnum):
    SAME_PROVIDER = "same-provider"
    ANY = "any"


def scope_of(provider: Provider, role: StoreRole, zone_id: str | None) -> Scope:
    """The scope of a new store. A zone says zone-wide, none says region-wide; the provider must
    be able to.
    """
    if role is StoreRole.PRIMARY:
        if zone_id is None:
            raise Refused(
                Code.INVALID,
                "a primary store belongs to one zone",
                field="zone_id",
                hint="name the zone whose volumes it shall hold",
            )
        return Scope.ZONE
    wanted = Scope.REGION if zone_id is None else Scope.ZONE
    if wanted in provider.scopes:
        return wanted
    if wanted is Scope.REGION:
        message, hint = "serves one zone only", "name the zone it shall serve"
    else:
        message, hint = "serves the whole region", "leave zone_id out"
    raise Refused(
        Code.INVALID,
        f"an image store of provider {provider.name} {message}",
        field="zone_id",
        hint=hint,
    )


def check_role(provider: Provider, role: StoreRole) -> None:
    if role is StoreRole.CACHE:
        raise Refused(
            Code.INVALID,
            "cache stores are not added here",
            field="role",
            hint="add a cache pool instead; roles here are image and primary",
        )
    if role not in provider.roles:
        able = ", ".join(sorted(provider.roles)) or "none"
        raise Refused(
            Code.INVALID,
            f"provider {provider.name} can't be a {role} store",
            field="role",
            hint=f"its roles are: {able}",
        )


def check_mixing(provider: str, stores: Iterable[Store], mixing: Mixing) -> None:
    """Image stores are of one provider unless an administrator allowed otherwise."""
    others = sorted({store.provider for store in stores if store.state in LIVE} - {provider})
    if mixing is Mixing.ANY or not others:
        return
    raise Refused(
        Code.PROVIDER_MIXING,
        f"the image stores here are of provider {', '.join(others)}; {provider} would be a second",
        field="provider",
        hint=f"add a store of provider {others[0]}, or let an administrator set "
        f"image-store.mixing = {Mixing.ANY}",
        facts={"present": ", ".join(others), "setting": "image-store.mixing"},
    )


def unknown_provider(name: str, known: Iterable[str]) -> Refused:
    names = ", ".join(sorted(known))
    return Refused(
        Code.UNKNOWN_PROVIDER,
        f"no mover has announced a provider {name}",
        field="provider",
        hint=f"known providers: {names}"
        if names
        else "no mover has announced any: start a mover with the provider's plugin",
        facts={"known": names},
    )


def serves(store_zone_id: str | None, zone_id: str) -> bool:
    """A region-wide store serves every zone."""
    return store_zone_id is None or store_zone_id == zone_id
