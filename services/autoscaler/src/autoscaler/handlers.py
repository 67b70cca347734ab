"""Command -> the function that answers it: the whole wiring of the service."""

from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct

from autoscaler import pools
from entrepot_contracts import fleet as words

HANDLERS: dict[type[Struct], Callable[[Any, Any], Awaitable[Struct]]] = {
    words.PutPool: pools.put_pool,
    words.ListPools: pools.list_pools,
}
