"""A cache-manager without its bus, on a real PostgreSQL."""

import pytest

from cache_manager.context import Cache
from cache_manager.policies.most_free import POLICY
from entrepot_chassis import postgres
from entrepot_chassis.clock import SystemClock, SystemIds


@pytest.fixture
async def cache(database_url):
    await postgres.Migrations(package="cache_manager", schema="cache_manager").apply(database_url)
    async with postgres.open_database(
        database_url, service="cache-manager", schema="cache_manager", pool_max=8
    ) as database:
        yield Cache(database=database, clock=SystemClock(), ids=SystemIds(), policy=POLICY)
