"""The pytest plugin: real servers, one of each per session; a fresh database per test."""

import itertools
from collections.abc import Iterator

import pytest

from entrepot_testkit.servers import NatsServer, PostgresServer, nats_server, postgres_server

_names = itertools.count(1)


@pytest.fixture(scope="session")
def nats() -> Iterator[NatsServer]:
    """One server for the session; tests that kill or wipe start their own with `nats_server()`."""
    with nats_server() as server:
        yield server


@pytest.fixture(scope="session")
def nats_url(nats: NatsServer) -> str:
    return nats.url


@pytest.fixture
def own_nats() -> Iterator[NatsServer]:
    """A server of this test alone: to kill, restart, wipe, or keep its streams to itself."""
    with nats_server() as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A cluster of this test alone: to kill and restart."""
    with postgres_server() as server:
        yield server


@pytest.fixture
def database_url(postgres: PostgresServer) -> str:
    """DSN of a fresh, empty database."""
    name = f"test_{next(_names)}"
    postgres.ensure_database(name)
    return postgres.dsn(database=name)
