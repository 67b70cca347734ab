"""Command -> the function that answers it: the whole wiring of the service."""

from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct

from cache_manager import leases, pools
from entrepot_contracts import cache as words

HANDLERS: dict[type[Struct], Callable[[Any, Any], Awaitable[Struct]]] = {
    words.AddPool: pools.add_pool,
    words.ListPools: pools.list_pools,
    words.RemovePool: pools.remove_pool,
    words.AcquireLease: leases.acquire,
    words.RenewLease: leases.renew,
    words.ReleaseLease: leases.release,
    words.ReportFill: leases.report_fill,
}
