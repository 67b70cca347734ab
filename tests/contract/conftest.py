"""Every test here runs over the fakes and over real servers: they must answer alike."""

from contextlib import AsyncExitStack

import pytest

from entrepot_testkit.memory_bus import MemoryBroker
from entrepot_testkit.memory_database import MemoryDatabase

SERVICE = "contract"
UNIQUE = {"token": [("account_id", "token")]}


@pytest.fixture(params=["memory"])
async def buses(request):
    """Makes connections to one bus: `bus = await buses()`."""
    async with AsyncExitStack() as _stack:
        broker = MemoryBroker(ack_wait_s=1.0)

        async def connect():
            return broker.connection()

        yield connect


@pytest.fixture(params=["memory"])
async def databases(request):
    """Makes pools on one fresh database: `database = await databases()`."""
    store = MemoryDatabase(service=SERVICE, unique=UNIQUE)

    async def connect():
        return store.connection()

    yield connect
