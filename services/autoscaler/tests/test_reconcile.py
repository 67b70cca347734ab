"""Pools and ticks on a real PostgreSQL."""

from datetime import UTC, datetime

import pytest

from autoscaler import pools, reconcile
from autoscaler.context import Scaler
from autoscaler.rows import DecisionRow
from autoscaler.strategies.backlog import STRATEGY as BACKLOG
from autoscaler.strategies.fixed import STRATEGY as FIXED
from autoscaler.window import LoadWindow
from entrepot_chassis import postgres
from entrepot_chassis.clock import SystemClock, SystemIds
from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.fleet import ClassLoad, ListPools, LoadSample, Mode, PutPool
from entrepot_contracts.values import Actor, Role, WorkClass

new = SystemIds().new
ADMIN = Actor(account_id=new(), role=Role.ADMIN)
ZONE, POOL = new(), new()


class Broken:
    name = "broken"

    def decide(self, snapshot, state):
        raise ZeroDivisionError


@pytest.fixture
async def scaler(database_url):
    await postgres.Migrations(package="autoscaler", schema="autoscaler").apply(database_url)
    strategies = {"fixed": FIXED, "backlog": BACKLOG, "broken": Broken()}
    async with postgres.open_database(
        database_url, service="autoscaler", schema="autoscaler", pool_max=4
    ) as database:
        yield Scaler(
            database=database,
            clock=SystemClock(),
            ids=SystemIds(),
            window=LoadWindow(),
            strategies=strategies,
        )


def put(**more):
    return PutPool(**({"actor": ADMIN, "pool_id": POOL, "zone_id": ZONE, "vms_max": 9} | more))


def hear(scaler, *, queued_bytes, seq=1):
    load = ClassLoad(
        work_class=WorkClass.BATCH,
        queued_n=1,
        queued_bytes=queued_bytes,
        running_n=0,
        remaining_bytes=0,
        oldest_wait_s=0,
    )
    sample = LoadSample(
        zone_id=ZONE,
        source="test",
        epoch=1,
        seq=seq,
        observed_at=datetime(2026, 11, 20, tzinfo=UTC),
        interval_s=600,
        complete=True,
        by_class=(load,),
        workers=(),
    )
    scaler.window.hear(sample, at_s=scaler.clock.monotonic())


async def shown(scaler):
    return (await pools.list_pools(scaler, ListPools(actor=ADMIN))).items[0]


async def decisions(scaler):
    async with scaler.database.transaction() as tx:
        return await tx.find(DecisionRow)


async def test_without_a_sample_a_pool_holds_and_says_so(scaler):
    await pools.put_pool(scaler, put(strategy="fixed", vms_min=2))
    await reconcile.tick(scaler)
    pool = await shown(scaler)
    assert (pool.desired, pool.last_reason) == (0, "hold: no load sample yet")


async def test_a_backlog_is_decided_on_once_with_its_clamp_and_an_event(scaler):
    await pools.put_pool(scaler, put(strategy="backlog"))
    hear(scaler, queued_bytes=9 * 675 * 10**9)
    for _ in range(4):  # the fourth changes nothing
        await reconcile.tick(scaler)
    kept = sorted(await decisions(scaler), key=lambda row: row.decision_id)
    assert [(row.proposed, row.desired, row.clamps) for row in kept] == [
        (9, 4, ("velocity",)),
        (9, 8, ("velocity",)),
        (9, 9, ()),
    ]
    async with scaler.database.transaction() as tx:
        count = await tx.connection.fetchval("SELECT count(*) FROM event_log")
    assert count == len(kept)


async def test_a_strategy_that_raises_holds(scaler):
    await pools.put_pool(scaler, put(strategy="broken"))
    hear(scaler, queued_bytes=1)
    await reconcile.tick(scaler)
    assert (await shown(scaler)).last_reason == "hold: strategy broken raised ZeroDivisionError"


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"strategy": "magic"}, "strategy"),
        ({"vms_min": 10}, "vms_min"),
        ({"mode": Mode.ACTIVE}, "mode"),
    ],
)
async def test_a_pool_that_cannot_work_is_refused_by_its_field(scaler, more, field):
    with pytest.raises(Refused) as refused:
        await pools.put_pool(scaler, put(**more))
    assert (refused.value.problem.code, refused.value.problem.field) == (Code.INVALID, field)


async def test_a_zone_has_one_pool_and_a_pool_one_zone(scaler):
    await pools.put_pool(scaler, put())
    assert await pools.put_pool(scaler, put(vms_max=3)) == await shown(scaler)
    for more in ({"pool_id": new()}, {"zone_id": new()}):
        with pytest.raises(Refused) as refused:
            await pools.put_pool(scaler, put(**more))
        assert refused.value.problem.field == "zone_id"


async def test_only_administrators_scale(scaler):
    user = Actor(account_id=new(), role=Role.USER)
    for call in (
        pools.put_pool(scaler, put(actor=user)),
        pools.list_pools(scaler, ListPools(actor=user)),
    ):
        with pytest.raises(Refused) as refused:
            await call
        assert refused.value.problem.code is Code.FORBIDDEN
