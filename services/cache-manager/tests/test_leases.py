"""Pools, leases and fills on a real PostgreSQL."""

import asyncio
from collections import Counter

import pytest

from cache_manager import leases, pools
from cache_manager.rows import EntryRow
from entrepot_chassis.clock import SystemIds
from entrepot_contracts import cache as words
from entrepot_contracts.cache import EntryState, LeaseRole, Purpose
from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.values import (
    Actor,
    ContentDigest,
    ImageFormat,
    Role,
    Scope,
    StoreRole,
    StoreSpec,
)

new = SystemIds().new
ZONE = new()
ADMIN = Actor(account_id=new(), role=Role.ADMIN)
USER = Actor(account_id=new(), role=Role.USER)
DIGEST = ContentDigest(root="ab" * 32, size_bytes=1000)


async def add_pool(cache, *, capacity_bytes=10_000, zone_id=ZONE, actor=ADMIN, **more):
    pool_id = more.pop("pool_id", None) or new()
    store = StoreSpec(store_id=pool_id, role=StoreRole.CACHE, provider="file", config={})
    command = words.AddPool(
        actor=actor,
        pool_id=pool_id,
        name=more.pop("name", f"pool {pool_id}"),
        scope=more.pop("scope", Scope.ZONE),
        zone_id=zone_id,
        store=store,
        capacity_bytes=capacity_bytes,
    )
    return await pools.add_pool(cache, command)


def ask(*, lease_id=None, digest=DIGEST, ttl_s=60.0, zone_id=ZONE):
    return words.AcquireLease(
        lease_id=lease_id or new(),
        holder="test",
        purpose=Purpose.REUSE,
        zone_id=zone_id,
        digest=digest,
        format=ImageFormat.QCOW2,
        ttl_s=ttl_s,
    )


async def entry_state(cache, entry_id):
    async with cache.database.transaction() as tx:
        return (await tx.get(EntryRow, entry_id)).state


async def test_two_hundred_askers_make_one_fill_and_two_hundred_leases(cache):
    await add_pool(cache)
    await add_pool(cache)
    views = await asyncio.gather(*(leases.acquire(cache, ask()) for _ in range(200)))
    assert Counter(view.role for view in views) == {LeaseRole.FILL: 1, LeaseRole.WAIT: 199}
    assert len({view.entry_id for view in views}) == 1
    assert sum(pool.leases for pool in (await listed(cache)).items) == 200


async def listed(cache, actor=ADMIN):
    return await pools.list_pools(cache, words.ListPools(actor=actor))


async def test_a_verified_fill_is_used_by_the_next_asker(cache):
    await add_pool(cache)
    filler = await leases.acquire(cache, ask())
    report = words.ReportFill(entry_id=filler.entry_id, epoch=filler.epoch, digest=DIGEST)
    assert (await leases.report_fill(cache, report)).state is EntryState.READY
    assert (await leases.report_fill(cache, report)).state is EntryState.READY
    assert (await leases.acquire(cache, ask())).role is LeaseRole.USE


async def test_other_bytes_than_asked_for_never_become_ready(cache):
    await add_pool(cache)
    filler = await leases.acquire(cache, ask())
    wrong = ContentDigest(root="cd" * 32, size_bytes=1000)
    report = words.ReportFill(entry_id=filler.entry_id, epoch=filler.epoch, digest=wrong)
    assert (await leases.report_fill(cache, report)).state is EntryState.FAILED
    again = await leases.acquire(cache, ask())
    assert (again.role, again.entry_id != filler.entry_id) == (LeaseRole.FILL, True)


async def test_a_lost_filler_is_replaced_and_its_late_report_refused(cache):
    await add_pool(cache)
    lost = await leases.acquire(cache, ask(ttl_s=0.05))
    await asyncio.sleep(0.1)
    heir = await leases.acquire(cache, ask())
    assert (heir.role, heir.epoch) == (LeaseRole.FILL, lost.epoch + 1)
    late = words.ReportFill(entry_id=lost.entry_id, epoch=lost.epoch, digest=DIGEST)
    with pytest.raises(Refused) as refused:
        await leases.report_fill(cache, late)
    assert refused.value.problem.code is Code.FENCED
    with pytest.raises(Refused) as refused:
        await leases.renew(cache, words.RenewLease(lease_id=lost.lease_id))
    assert refused.value.problem.code is Code.FENCED


async def test_the_sweep_frees_a_fill_nobody_asks_for_again(cache):
    await add_pool(cache)
    lost = await leases.acquire(cache, ask(ttl_s=0.05))
    await asyncio.sleep(0.1)
    await leases.sweep(cache)
    assert await entry_state(cache, lost.entry_id) is EntryState.RESERVED


async def test_a_filler_that_lets_go_hands_the_fill_on(cache):
    await add_pool(cache)
    filler = await leases.acquire(cache, ask())
    for _ in range(2):
        await leases.release(cache, words.ReleaseLease(lease_id=filler.lease_id))
    assert (await leases.acquire(cache, ask())).role is LeaseRole.FILL


async def test_the_same_lease_id_is_the_same_lease(cache):
    await add_pool(cache)
    lease_id = new()
    first = await leases.acquire(cache, ask(lease_id=lease_id))
    assert await leases.acquire(cache, ask(lease_id=lease_id)) == first
    other = ContentDigest(root="ef" * 32, size_bytes=5)
    with pytest.raises(Refused, match="another object"):
        await leases.acquire(cache, ask(lease_id=lease_id, digest=other))


async def test_reservations_count_as_used_and_a_full_zone_says_why(cache):
    pool = await add_pool(cache, capacity_bytes=1500)
    await leases.acquire(cache, ask())
    with pytest.raises(Refused) as refused:
        await leases.acquire(cache, ask(digest=ContentDigest(root="12" * 32, size_bytes=600)))
    problem = refused.value.problem
    assert (problem.code, problem.facts) == (Code.STORE_FULL, {pool.pool_id: "100 bytes short"})


async def test_a_zone_without_a_pool_is_told_so(cache):
    await add_pool(cache)
    with pytest.raises(Refused) as refused:
        await leases.acquire(cache, ask(zone_id=new()))
    assert (refused.value.problem.code, refused.value.problem.field) == (Code.NO_STORE, "zone_id")


async def test_adding_a_pool_twice_is_adding_it_once(cache):
    pool_id = new()
    first = await add_pool(cache, pool_id=pool_id, name="a")
    assert await add_pool(cache, pool_id=pool_id, name="a") == first
    with pytest.raises(Refused) as refused:
        await add_pool(cache, name="a")
    assert (refused.value.problem.code, refused.value.problem.field) == (Code.CONFLICT, "name")
    with pytest.raises(Refused) as refused:
        await add_pool(cache, pool_id=pool_id, name="a", capacity_bytes=1)
    assert refused.value.problem.field == "pool_id"


async def test_a_pool_with_live_entries_is_not_removed(cache):
    pool = await add_pool(cache)
    filler = await leases.acquire(cache, ask())
    remove = words.RemovePool(actor=ADMIN, pool_id=pool.pool_id)
    with pytest.raises(Refused) as refused:
        await pools.remove_pool(cache, remove)
    assert refused.value.problem.facts == {"entries": filler.entry_id}
    await leases.report_fill(
        cache, words.ReportFill(entry_id=filler.entry_id, epoch=filler.epoch, reason="gave up")
    )
    for _ in range(2):
        await pools.remove_pool(cache, remove)
    assert (await listed(cache)).items == ()


async def test_a_region_is_no_scope_for_a_cache(cache):
    with pytest.raises(Refused) as refused:
        await add_pool(cache, scope=Scope.REGION)
    assert refused.value.problem.field == "scope"


async def test_users_have_no_business_with_pools(cache):
    for call in (add_pool(cache, actor=USER), listed(cache, USER)):
        with pytest.raises(Refused) as refused:
            await call
        assert refused.value.problem.code is Code.FORBIDDEN
