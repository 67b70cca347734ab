"""Plain SQL migrations of one schema, in order, once each, one service at a time (ADR 0001)."""

import hashlib
from collections.abc import Sequence
from importlib import resources

import asyncpg  # type: ignore[import-untyped]
from msgspec import Struct

from entrepot_chassis import logs
from entrepot_chassis.ports import DatabaseUnavailable, Misconfigured

_log = logs.get("migrations")
_CHASSIS = "entrepot_chassis"
_TIMEOUT = "5s"
_LOCK_WAIT = "60s"  # for another instance's migration, not for tables in use
_LEDGER = """
CREATE TABLE IF NOT EXISTS migration (
    name text PRIMARY KEY,
    digest text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""


class MigrationFailed(Misconfigured):
    """One step did not apply; everything of it was rolled back."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"migration {name}: {why}")
        self.name = name


class Step(Struct, frozen=True, kw_only=True):
    name: str
    sql: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


class Migrations(Struct, frozen=True, kw_only=True):
    """The tables every service has, then `<package>/migrations/*.sql` by name, into `schema`."""

    package: str
    schema: str

    async def apply(self, database_url: str) -> Sequence[str]:
        """What was missing; returns the names. Each step is a transaction that gives up after
        5 s of waiting for a lock or of running, rather than stop the service that uses the table.
        """
        try:
            connection = await asyncpg.connect(database_url, timeout=10)
        except (OSError, asyncpg.PostgresError, TimeoutError) as err:
            raise DatabaseUnavailable(f"cannot connect to migrate: {type(err).__name__}") from err
        try:
            return await self._apply(connection)
        finally:
            await connection.close()

    def steps(self) -> list[Step]:
        own = _steps_of(self.package, "migrations", prefix="")
        return [*_steps_of(_CHASSIS, "tables", prefix="chassis/"), *own]

    async def _apply(self, connection: asyncpg.Connection) -> list[str]:
        await connection.execute(f"SET lock_timeout = '{_LOCK_WAIT}'")
        await connection.execute(
            "SELECT pg_advisory_lock(hashtextextended($1, 0))", f"migrate:{self.schema}"
        )
        known = await connection.fetchval(
            "SELECT 1 FROM information_schema.schemata WHERE schema_name = $1", self.schema
        )
        if not known:
            await connection.execute(f'CREATE SCHEMA "{self.schema}"')
        await connection.execute(f'SET search_path = "{self.schema}"')
        await connection.execute(_LEDGER)
        applied = {
            record["name"]: record["digest"]
            for record in await connection.fetch("SELECT name, digest FROM migration")
        }
        missing = []
        for step in self.steps():
            if step.name not in applied:
                missing.append(step)
            elif applied[step.name] != step.digest:
                raise MigrationFailed(step.name, "was changed after it had been applied")
        for step in missing:
            await self._one(connection, step)
        return [step.name for step in missing]

    async def _one(self, connection: asyncpg.Connection, step: Step) -> None:
        _log.info("migration.applying", schema=self.schema, migration=step.name)
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = '{_TIMEOUT}'")
                await connection.execute(f"SET LOCAL statement_timeout = '{_TIMEOUT}'")
                await connection.execute(step.sql)
                await connection.execute(
                    "INSERT INTO migration (name, digest) VALUES ($1, $2)", step.name, step.digest
                )
        except asyncpg.PostgresError as err:
            raise MigrationFailed(step.name, str(err)) from err


def _steps_of(package: str, folder: str, *, prefix: str) -> list[Step]:
    place = resources.files(package) / folder
    if not place.is_dir():
        return []
    names = sorted(one.name for one in place.iterdir() if one.name.endswith(".sql"))
    return [Step(name=prefix + name, sql=(place / name).read_text()) for name in names]
