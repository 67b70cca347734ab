"""What the handlers share; put together once in app.py."""

from collections.abc import Mapping

from msgspec import Struct

from autoscaler.window import LoadWindow
from entrepot_chassis.ports import Clock, Database, Ids
from entrepot_plugin.ports import ScaleStrategy


class Scaler(Struct, frozen=True, kw_only=True):
    database: Database
    clock: Clock
    ids: Ids
    window: LoadWindow
    strategies: Mapping[str, ScaleStrategy]
