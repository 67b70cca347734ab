"""Every test here runs over the fakes and over real servers: they must answer alike."""

from contextlib import AsyncExitStack

import asyncpg
import pytest

from entrepot_chassis import bus, migrations, postgres
from entrepot_testkit.memory_bus import MemoryBroker
from entrepot_testkit.memory_database import MemoryDatabase
from entrepot_testkit.memory_transaction import Unique

SERVICE = "contract"
UNIQUE = {"token": [Unique(columns=("account_id", "token"))]}
TABLES = """
CREATE TABLE thing (
    thing_id text PRIMARY KEY, name text NOT NULL, shade text NOT NULL, size bigint NOT NULL,
    rate double precision NOT NULL, live boolean NOT NULL, at timestamptz, data bytea NOT NULL,
    parts jsonb NOT NULL, facts jsonb NOT NULL, best jsonb
);
CREATE TABLE token (
    token_id text PRIMARY KEY, account_id text NOT NULL, token text, UNIQUE (account_id, token)
);
"""


@pytest.fixture(params=["memory", "real"])
async def buses(request):
    """Makes connections to one bus: `bus = await buses()`."""
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            broker = MemoryBroker(ack_wait_s=1.0)

            async def connect():
                return broker.connection()

        else:
            url = request.getfixturevalue("nats_url")

            async def connect():
                client = await stack.enter_async_context(bus.connect(url, name=SERVICE))
                await client.stream_mark()  # makes the stream of a fresh server
                return client

        yield connect


@pytest.fixture(params=["memory", "real"])
async def databases(request):
    """Makes pools on one fresh database: `database = await databases()`."""
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            store = MemoryDatabase(service=SERVICE, unique=UNIQUE)

            async def connect():
                return store.connection()

        else:
            url = request.getfixturevalue("database_url")
            await _make_tables(url)

            async def connect():
                return await stack.enter_async_context(
                    postgres.open_database(url, service=SERVICE, schema=SERVICE, pool_max=2)
                )

        yield connect


async def _make_tables(url: str) -> None:
    await migrations.Migrations(package="entrepot_contracts", schema=SERVICE).apply(url)
    connection = await asyncpg.connect(url, server_settings={"search_path": SERVICE})
    try:
        await connection.execute(TABLES)
    finally:
        await connection.close()
