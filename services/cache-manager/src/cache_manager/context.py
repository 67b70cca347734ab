"""What the handlers share; put together once in app.py."""

from msgspec import Struct

from entrepot_chassis.ports import Clock, Database, Ids
from entrepot_plugin.ports import CachePolicy


class Cache(Struct, frozen=True, kw_only=True):
    database: Database
    clock: Clock
    ids: Ids
    policy: CachePolicy
