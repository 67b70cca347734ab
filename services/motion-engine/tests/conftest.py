"""Both ledgers on their databases, and an engine on real servers with a fake registry."""

from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from entrepot_chassis import postgres
from entrepot_testkit.memory_database import MemoryDatabase
from entrepot_testkit.memory_ledger import MemoryLedger
from entrepot_testkit.motion_asks import Asks
from motion_engine import ledger as words
from motion_engine.ledger_sql import PostgresLedger
from motion_engine.machine import step
from motion_engine.planner import new_transfer
from motion_engine.rows import Mover
from motion_engine.stimuli import Planned


@pytest.fixture
def asks():
    return Asks()


@pytest.fixture
def now():
    return datetime(2026, 1, 1, tzinfo=UTC)


class Desktop:
    """A ledger on a database, with the few steps that every ledger test takes."""

    def __init__(self, database, ledger):
        self.database, self.ledger = database, ledger

    def tx(self):
        return self.database.transaction()

    async def queue(self, ask, *, needs=(), zones=(), strategy="direct"):
        """Enqueue and plan one ask, as intake does."""
        async with self.tx() as tx:
            transfer = new_transfer(ask, now=await tx.now())
            assert await self.ledger.enqueue(tx, transfer)
            plan = Planned(strategy=strategy, bids=(), legs=(), needs=needs, zones=zones)
            planned, _ = step(transfer, plan)
            await self.ledger.save(tx, planned, before=transfer, why="planned")
        return ask.transfer_id

    async def get(self, transfer_id):
        async with self.tx() as tx:
            return await tx.get(words.Transfer, transfer_id)

    async def ready(self, *, has=(), zones=(), full=None, per_account=10):
        async with self.tx() as tx:
            found = await self.ledger.ready(
                tx,
                words.Reach(has=has, zones=zones),
                full=full or words.Full(),
                per_account=per_account,
            )
        return [one.transfer_id for one in found]

    async def claim(self, *transfer_ids, mover_id, boot_id, lease_s=30.0):
        holder = words.Holder(mover_id=mover_id, boot_id=boot_id, lease_s=lease_s)
        async with self.tx() as tx:
            return list(await self.ledger.claim(tx, transfer_ids, holder))

    async def apply(self, transfer_id, stimulus, why="test"):
        async with self.tx() as tx:
            before = await tx.get(words.Transfer, transfer_id, lock=True)
            after, instructions = step(before, stimulus)
            if after is not before:
                await self.ledger.save(tx, after, before=before, why=why)
        return after, instructions


@asynccontextmanager
async def on_postgres(url):
    await postgres.Migrations(package="motion_engine", schema="motion_engine").apply(url)
    async with postgres.open_database(
        url, service="motion-engine", schema="motion_engine", pool_max=12
    ) as database:
        yield Desktop(database, PostgresLedger())


@pytest.fixture
async def sql(database_url):
    """The ledger on a real, freshly migrated PostgreSQL."""
    async with on_postgres(database_url) as desktop:
        yield desktop


@pytest.fixture(params=["memory", "postgres"])
async def desk(request):
    if request.param == "memory":
        store = MemoryDatabase(service="motion-engine")
        yield Desktop(store.connection(), MemoryLedger(words))
        return
    async with on_postgres(request.getfixturevalue("database_url")) as desktop:
        yield desktop


@pytest.fixture
def mover_row(now):
    """A Mover row from an announcement."""

    def make(announced, *, seen_at=now):
        return Mover(
            mover_id=announced.mover_id,
            boot_id=announced.boot_id,
            zone_ids=announced.zone_ids,
            labels=announced.labels,
            slots=announced.slots,
            public_key=announced.public_key,
            providers=announced.providers,
            version="1",
            registered_at=seen_at,
            seen_at=seen_at,
        )

    return make
