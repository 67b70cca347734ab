"""What every handler is given: ports, keys, and the two memories of this process."""

from msgspec import Struct

from entrepot_chassis.ports import Clock, Database, Ids
from store_registry.keys import Keys
from store_registry.progress import Progress
from store_registry.wakes import Wakes


class Registry(Struct, frozen=True, kw_only=True):
    database: Database
    clock: Clock
    ids: Ids
    keys: Keys
    wakes: Wakes
    progress: Progress

    @classmethod
    def over(cls, database: Database, *, clock: Clock, ids: Ids, keys: Keys) -> "Registry":
        return cls(
            database=database,
            clock=clock,
            ids=ids,
            keys=keys,
            wakes=Wakes(),
            progress=Progress(clock),
        )
