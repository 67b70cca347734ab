"""Who is calling: the caller a credential stands for. Role and account come from nowhere else."""

from msgspec import Struct

from entrepot_contracts.values import Actor


class Caller(Struct, frozen=True, kw_only=True):
    actor: Actor
    account_name: str
    key_id: str

    @property
    def is_admin(self) -> bool:
        return self.actor.role == "admin"
