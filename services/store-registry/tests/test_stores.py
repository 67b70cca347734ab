"""Adding, listing and removing stores."""

import pytest

from entrepot_contracts import motion as m
from entrepot_contracts import registry as r
from entrepot_contracts import values as v
from entrepot_contracts.errors import Code
from store_registry import rows


async def stores(desk, role=v.StoreRole.IMAGE, actor=None):
    reply = await desk.ask(r.ListStores(actor=actor or desk.admin, role=role))
    return {store.store_id: store for store in reply.items}


async def test_a_store_is_up_with_its_capacity_only_after_the_probe(desk):
    await desk.learn()
    command = desk.add_bucket()
    accepted = await desk.ask(command)
    assert (await stores(desk))[command.store_id].state is v.StoreState.PROBING

    (ask,) = await desk.asks(accepted.job_id)
    assert isinstance(ask.work, m.ProbeWork)
    await desk.succeed(ask)

    store = (await stores(desk))[command.store_id]
    assert store.state is v.StoreState.UP
    assert (store.capacity_bytes, store.used_bytes) == (100 << 30, 10 << 30)
    assert store.report.ok
    assert (await desk.job(accepted.job_id)).state is v.JobState.SUCCEEDED
    states = [event.state for event in await desk.events(r.StoreChanged)]
    assert states == [v.StoreState.PROBING, v.StoreState.UP]


async def test_a_failed_probe_leaves_nothing_but_the_job_that_tells_why(desk, canary):
    await desk.learn()
    command = desk.add_bucket()
    accepted = await desk.ask(command)
    (ask,) = await desk.asks(accepted.job_id)
    checks = (
        v.ProbeCheck(name="connect", ok=True),
        v.ProbeCheck(name="bucket", ok=False, detail="no such bucket", hint="create it"),
        v.ProbeCheck(name="write", ok=False),
    )
    await desk.succeed(ask, m.Probed(report=v.ProbeReport(checks=checks)))

    job = await desk.job(accepted.job_id)
    assert job.state is v.JobState.FAILED
    assert job.error.code is Code.PROBE_FAILED
    assert "bucket" in job.error.message
    assert job.error.hint == "create it"
    assert job.error.facts == {"check": "bucket", "failing": "bucket, write"}
    assert await stores(desk) == {}
    async with desk.registry.database.transaction() as tx:
        assert await tx.find(rows.ImageStore) == []
        assert await tx.find(rows.ImageStoreDetail) == []
        assert await tx.find(rows.Hold) == []
    # The same store can be added again, corrected, under a fresh id.
    await desk.store(desk.add_bucket())


async def test_a_probe_no_mover_could_run_fails_the_same_way(desk):
    await desk.learn()
    accepted = await desk.ask(desk.add_bucket())
    (ask,) = await desk.asks(accepted.job_id)
    await desk.fail(ask, Code.NO_MOVER)
    assert (await desk.job(accepted.job_id)).error.code is Code.NO_MOVER
    assert await stores(desk) == {}


async def test_adding_the_same_store_twice_is_one_intent(desk):
    await desk.learn()
    command = desk.add_bucket()
    first = await desk.ask(command)
    # The gateway seals anew each time, so the box differs and the intent does not.
    again = r.AddStore(**{**_fields(command), "details": desk.details(desk.bucket_config())})
    assert again.details.box != command.details.box
    assert await desk.ask(again) == first
    assert len(await desk.asks(first.job_id)) == 1
    other = {**_fields(command), "details": desk.details(desk.bucket_config(secret_key="x"))}
    problem = await desk.refused(r.AddStore(**other))
    assert (problem.code, problem.field) == (Code.CONFLICT, "store_id")
    problem = await desk.refused(r.AddStore(**{**_fields(command), "name": "renamed"}))
    assert problem.code is Code.CONFLICT


def _fields(command):
    return {name: getattr(command, name) for name in command.__struct_fields__}


async def test_a_second_provider_is_refused_until_the_setting_allows_it(desk):
    await desk.learn()
    zone_id = await desk.zone("a")
    await desk.store(desk.add_bucket())
    await desk.store(desk.add_bucket(name="s3-2", config={"bucket": "more"}))

    problem = await desk.refused(desk.add_folder(zone_id))
    assert (problem.code, problem.field) == (Code.PROVIDER_MIXING, "provider")
    assert "image-store.mixing = any" in problem.hint
    assert problem.facts["present"] == "bucket"

    await desk.mixing("any")
    await desk.store(desk.add_folder(zone_id))


async def test_primary_stores_are_free_of_the_mixing_rule(desk):
    await desk.learn()
    zone_id = await desk.zone("a")
    await desk.store(desk.add_bucket())
    await desk.store(desk.add_folder(zone_id, role=v.StoreRole.PRIMARY))


async def test_two_stores_never_share_a_name_or_a_place(desk):
    await desk.learn()
    zone_id = await desk.zone("a")
    there = await desk.store(desk.add_bucket())
    problem = await desk.refused(desk.add_bucket(config={"bucket": "other"}))
    assert (problem.code, problem.field) == (Code.CONFLICT, "name")
    same_place = {"endpoint": "HTTPS://s3.example.org:443/", "bucket": "images", "attempts": 9}
    problem = await desk.refused(desk.add_bucket(name="twin", config=same_place))
    assert (problem.code, problem.field) == (Code.CONFLICT, "details")
    assert problem.facts == {"store_id": there}
    await desk.mixing()
    await desk.store(desk.add_folder(zone_id, config={"path": "/srv/x"}))
    pool = desk.add_folder(
        zone_id,
        role=v.StoreRole.PRIMARY,
        name="pool",
        config={"path": "/srv//x/", "host": "local"},
    )
    assert (await desk.refused(pool)).field == "details"


async def test_tenants_see_that_a_store_exists_and_nothing_of_its_inside(desk, house):
    for role in (v.StoreRole.IMAGE, v.StoreRole.PRIMARY):
        inside = await stores(desk, role)
        outside = await stores(desk, role, desk.user)
        assert set(inside) == set(outside)
        for store_id, store in outside.items():
            assert store.name == inside[store_id].name
            assert (store.config, store.capacity_bytes, store.used_bytes) == ({}, None, 0)
            assert store.report is None
        assert all(store.config for store in inside.values())


async def test_an_empty_store_is_removed_with_its_secrets(desk, house):
    reply = await desk.ask(r.DeleteStore(actor=desk.admin, store_id=house.bucket))
    assert reply == r.Done()
    assert house.bucket not in await stores(desk)
    async with desk.registry.database.transaction() as tx:
        assert await tx.find(rows.ImageStoreDetail) == []
    # Done is done: again, and the place is free again.
    assert await desk.ask(r.DeleteStore(actor=desk.admin, store_id=house.bucket)) == r.Done()
    await desk.store(desk.add_bucket())


@pytest.mark.parametrize("what", ["template", "snapshot", "volume", "job"])
async def test_a_store_with_something_on_it_is_refused_with_the_blockers_ids(desk, house, what):
    store_id, blocker = house.bucket, None
    if what == "template":
        blocker = await desk.template()
    elif what == "job":
        blocker = (await desk.ask(desk.register())).job_id
    else:
        volume_id = await desk.volume(house.zone_a)
        if what == "volume":
            store_id, blocker = house.pool_a, volume_id
        else:
            blocker = await desk.snapshot(volume_id)
    problem = await desk.refused(r.DeleteStore(actor=desk.admin, store_id=store_id))
    assert (problem.code, problem.field) == (Code.IN_USE, "store_id")
    assert blocker in problem.facts["blockers"]
    assert store_id in (await stores(desk)) | (await stores(desk, v.StoreRole.PRIMARY))


async def test_a_store_whose_template_was_deleted_can_go(desk, house):
    template_id = await desk.template()
    await desk.done(r.DeleteTemplate(actor=desk.user, template_id=template_id, job_id=desk.new()))
    await desk.ask(r.DeleteStore(actor=desk.admin, store_id=house.bucket))


async def test_credentials_are_sealed_to_one_mover_and_only_secret_fields_travel(desk, house):
    import msgspec

    from entrepot_chassis.seal import KeyPair, SealError

    mover, stranger = KeyPair.new(), KeyPair.new()
    reply = await desk.ask(
        r.SealCredentials(
            store_ids=(house.bucket, house.folder, desk.new()), recipient=mover.public_key
        )
    )
    assert set(reply.items) == {house.bucket, house.folder}
    opened = msgspec.json.decode(mover.open(reply.items[house.bucket].box))
    config = desk.bucket_config()
    assert opened == {name: config[name] for name in ("access_key", "secret_key")}
    assert msgspec.json.decode(mover.open(reply.items[house.folder].box)) == {}
    with pytest.raises(SealError):
        stranger.open(reply.items[house.bucket].box)


async def test_a_secret_moved_to_another_store_does_not_open(desk, house):
    from store_registry.keys import Unopenable

    other = await desk.store(desk.add_bucket(name="s3-2", config={"bucket": "more"}))
    async with desk.registry.database.transaction() as tx:
        (mine, *_) = await tx.find(rows.ImageStoreDetail, where={"store_id": house.bucket})
        mine.detail_id = f"{other}.{mine.name}"
        mine.store_id = other
        await tx.put(mine)
    with pytest.raises(Unopenable):
        await desk.ask(
            r.SealCredentials(store_ids=(other,), recipient=desk.registry.keys.public_key)
        )


async def test_the_latest_mover_s_word_on_a_provider_stands(desk):
    import msgspec

    await desk.learn()
    newer = msgspec.structs.replace(conftest_bucket(await _providers(desk)), version="2")
    await desk.learn(newer)
    assert (await _providers(desk))["bucket"].version == "2"


async def _providers(desk):
    reply = await desk.ask(r.ListProviders(actor=desk.admin))
    return {provider.name: provider for provider in reply.items}


def conftest_bucket(providers):
    view = providers["bucket"]
    return m.ProviderFact(
        name=view.name,
        version=view.version,
        roles=view.roles,
        scopes=view.scopes,
        traits=view.traits,
        config_schema=view.config_schema,
    )


async def test_a_provider_with_an_unusable_schema_is_not_learned(desk):
    await desk.learn()
    good = conftest_bucket(await _providers(desk))
    import msgspec

    bad = msgspec.structs.replace(good, name="broken", config_schema={"type": "no such type"})
    await desk.learn(bad, good)
    assert set(await _providers(desk)) == {"bucket", "folder"}
