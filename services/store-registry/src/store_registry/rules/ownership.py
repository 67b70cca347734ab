"""The one place that says who may see and change what.

Another tenant's private thing does not exist: the answer is the same as for an id nobody has.
"""

from typing import Protocol, TypeVar

from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.values import Actor, Role


class Owned(Protocol):
    account_id: str


OwnedT = TypeVar("OwnedT", bound=Owned)


def is_admin(actor: Actor) -> bool:
    return actor.role is Role.ADMIN


def require_admin(actor: Actor, to_do: str) -> None:
    if not is_admin(actor):
        raise Refused(
            Code.FORBIDDEN,
            f"only an administrator may {to_do}",
            hint="use an administrator's key",
        )


def not_found(noun: str, resource_id: str, field: str) -> Refused:
    return Refused(
        Code.NOT_FOUND,
        f"there is no {noun} {resource_id}",
        field=field,
        hint=f"list the {noun}s you have",
    )


def sees(actor: Actor, account_id: str, *, public: bool = False) -> bool:
    return is_admin(actor) or account_id == actor.account_id or public


def seen(
    actor: Actor,
    row: OwnedT | None,
    *,
    noun: str,
    resource_id: str,
    field: str,
    public: bool = False,
) -> OwnedT:
    """The row, if this actor may read it; else it was not found."""
    if row is None or not sees(actor, row.account_id, public=public):
        raise not_found(noun, resource_id, field)
    return row


def changeable(
    actor: Actor,
    row: OwnedT | None,
    *,
    noun: str,
    resource_id: str,
    field: str,
    public: bool = False,
) -> OwnedT:
    """The row, if this actor may change it: somebody else's public thing is seen, not changed."""
    found = seen(actor, row, noun=noun, resource_id=resource_id, field=field, public=public)
    if not sees(actor, found.account_id):
        raise Refused(
            Code.FORBIDDEN,
            f"only its owner may change the {noun} {resource_id}",
            field=field,
            hint="ask its owner, or an administrator",
        )
    return found


def account_filter(actor: Actor) -> dict[str, object]:
    """The part of a `where` that keeps a list to what the actor owns."""
    return {} if is_admin(actor) else {"account_id": actor.account_id}
