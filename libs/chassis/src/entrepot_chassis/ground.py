"""What every service stands on: its database, the bus, its health listener, in that order."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from msgspec import Struct

from entrepot_chassis import bus, health, postgres


class GroundSettings(Protocol):
    """The settings every service has, whatever else it has."""

    @property
    def nats_url(self) -> str: ...
    @property
    def nats_nkey_file(self) -> str | None: ...
    @property
    def database_url(self) -> str: ...
    @property
    def health_host(self) -> str: ...
    @property
    def health_port(self) -> int: ...
    @property
    def pool_max(self) -> int: ...
    @property
    def drain_s(self) -> float: ...


class Ground(Struct, frozen=True, kw_only=True):
    database: postgres.PostgresDatabase
    nats: bus.NatsBus
    probe: health.Probe


@asynccontextmanager
async def opened(settings: GroundSettings, *, service: str) -> AsyncIterator[Ground]:
    """Leaving it closes in reverse; the schema is the service's name with underscores."""
    async with (
        postgres.open_database(
            settings.database_url,
            service=service,
            schema=service.replace("-", "_"),
            pool_max=settings.pool_max,
        ) as database,
        bus.connect(
            settings.nats_url,
            name=service,
            nkey_file=settings.nats_nkey_file,
            drain_s=settings.drain_s,
        ) as nats,
        health.serve(
            settings.health_host,
            settings.health_port,
            pings={"postgres": database.ping, "nats": nats.ping},
        ) as probe,
    ):
        yield Ground(database=database, nats=nats, probe=probe)
