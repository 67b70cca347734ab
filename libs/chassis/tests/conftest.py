"""Fixtures of the chassis tests: a migrated schema on a real server, and patience."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from entrepot_chassis import bus, postgres
from entrepot_chassis.bus import NatsBus
from entrepot_chassis.postgres import PostgresDatabase
from entrepot_testkit.servers import NatsServer

THINGS = """
CREATE TABLE thing (
    id text PRIMARY KEY, n bigint NOT NULL, state text NOT NULL, inner_part jsonb,
    tags jsonb NOT NULL, blob bytea NOT NULL, at timestamptz, note text UNIQUE
)
"""


@pytest.fixture
async def schema_url(database_url: str) -> str:
    """A fresh database with the schema `svc` migrated."""
    await postgres.Migrations(package="entrepot_testkit", schema="svc").apply(database_url)
    return database_url


@pytest.fixture
async def database(schema_url: str) -> AsyncIterator[PostgresDatabase]:
    async with postgres.open_database(schema_url, service="svc", schema="svc") as opened:
        async with opened.transaction() as tx:
            await tx.connection.execute(THINGS)
        yield opened


@pytest.fixture
async def own_bus(own_nats: NatsServer) -> AsyncIterator[NatsBus]:
    """A connection to a server of this test alone."""
    async with bus.connect(own_nats.url, name="svc", drain_s=10) as connected:
        yield connected


@pytest.fixture
async def core_bus(nats_url: str) -> AsyncIterator[NatsBus]:
    """A connection to the shared server: core messages only, no streams."""
    async with bus.connect(nats_url, name="svc", drain_s=10) as connected:
        yield connected


Condition = Callable[[], bool | Awaitable[bool]]


@pytest.fixture
def eventually() -> Callable[[Condition], Awaitable[None]]:
    async def wait(condition: Condition) -> None:
        """Polls until true; far beyond any healthy duration it fails."""
        for _ in range(1500):
            result = condition()
            if result if isinstance(result, bool) else await result:
                return
            await asyncio.sleep(0.02)
        raise AssertionError("it never became true")

    return wait
