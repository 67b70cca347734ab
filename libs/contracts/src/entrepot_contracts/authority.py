"""Who may ask: the check that owners make of an actor before they decide."""

from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.values import Actor, Role


def only_admin(actor: Actor) -> None:
    """Raises Refused forbidden for everybody else."""
    if actor.role is not Role.ADMIN:
        raise Refused(
            Code.FORBIDDEN, "only an administrator may do this", hint="use an admin's key"
        )
