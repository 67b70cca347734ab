"""Who may do what: every command, as an administrator, a tenant, and another tenant."""

import pytest

from entrepot_contracts import registry as r
from entrepot_contracts import values as v
from entrepot_contracts.catalog import commands_of_owner
from entrepot_contracts.errors import Code
from store_registry.handlers import HANDLERS

SEAL = "gateway-key"

# command -> (what the other tenant is answered, or None for "allowed")
FOREIGN = {
    r.GetTemplate: Code.NOT_FOUND,
    r.DeleteTemplate: Code.NOT_FOUND,
    r.ExtractTemplate: Code.NOT_FOUND,
    r.GetVolume: Code.NOT_FOUND,
    r.DeleteVolume: Code.NOT_FOUND,
    r.CreateSnapshot: Code.NOT_FOUND,
    r.GetSnapshot: Code.NOT_FOUND,
    r.DeleteSnapshot: Code.NOT_FOUND,
    r.GetJob: Code.NOT_FOUND,
    r.CreateVolume: Code.NOT_FOUND,
}
ADMIN_ONLY = {
    r.CreateZone,
    r.ListProviders,
    r.AddStore,
    r.DeleteStore,
    r.GetSettings,
    r.PutSetting,
}
LISTS = {r.ListTemplates, r.ListVolumes, r.ListSnapshots, r.ListJobs}
# Open to every tenant, without anything that belongs to one; and the internal two without an actor.
OPEN = {r.ListZones, r.ListStores, r.RegisterTemplate, r.GetSealingKey, r.SealCredentials}


def test_every_command_of_the_catalogue_has_a_handler_and_a_row_in_this_matrix():
    commands = {entry.message for entry in commands_of_owner("store-registry")}
    assert set(HANDLERS) == commands
    rows = [set(FOREIGN), ADMIN_ONLY, LISTS, OPEN]
    assert set().union(*rows) == commands
    assert sum(map(len, rows)) == len(commands), "a command is in two rows"


@pytest.fixture
async def owned(desk, house):
    template_id = await desk.template()
    volume_id = await desk.volume(house.zone_a)
    snapshot_id = await desk.snapshot(volume_id)
    jobs = await desk.ask(r.ListJobs(actor=desk.user))
    return {
        "template_id": template_id,
        "volume_id": volume_id,
        "snapshot_id": snapshot_id,
        "job_id": jobs.items[0].job_id,
    }


def foreign(desk, house, owned, actor):
    """Every command that names a thing of the tenant; volumes from template and from snapshot."""
    template = {"actor": actor, "template_id": owned["template_id"]}
    volume = {"actor": actor, "volume_id": owned["volume_id"]}
    snapshot = {"actor": actor, "snapshot_id": owned["snapshot_id"]}
    return [
        r.GetTemplate(**template),
        r.DeleteTemplate(**template, job_id=desk.new()),
        r.ExtractTemplate(**template, job_id=desk.new(), seal_to=SEAL),
        r.GetVolume(**volume),
        r.DeleteVolume(**volume, job_id=desk.new()),
        desk.create_snapshot(owned["volume_id"], actor=actor),
        r.GetSnapshot(**snapshot),
        r.DeleteSnapshot(**snapshot, job_id=desk.new()),
        r.GetJob(actor=actor, job_id=owned["job_id"]),
        desk.create_volume(actor=actor, zone_id=house.zone_a, template_id=owned["template_id"]),
        desk.create_volume(actor=actor, zone_id=house.zone_a, snapshot_id=owned["snapshot_id"]),
    ]


async def test_another_tenant_s_thing_is_answered_exactly_like_one_that_is_not_there(
    desk, house, owned
):
    commands = foreign(desk, house, owned, desk.other)
    assert {type(command) for command in commands} == set(FOREIGN)
    nowhere = {name: desk.new() for name in owned}
    absent = foreign(desk, house, nowhere, desk.other)
    before = await desk.dump()
    for command, ghost in zip(commands, absent, strict=True):
        there, not_there = await desk.refused(command), await desk.refused(ghost)
        assert there.code is Code.NOT_FOUND, command
        for name, value in owned.items():
            not_there = _with(not_there, nowhere[name], value)
        assert there == not_there, "the difference tells that it exists"
    assert await desk.dump() == before, "a refusal wrote something"


def _with(problem, old, new):
    import msgspec

    return msgspec.structs.replace(problem, message=problem.message.replace(old, new))


async def test_lists_hold_nothing_of_another_tenant(desk, house, owned):
    for kind in LISTS:
        mine = await desk.ask(kind(actor=desk.user))
        theirs = await desk.ask(kind(actor=desk.other))
        everything = await desk.ask(kind(actor=desk.admin))
        assert mine.items, kind
        assert theirs.items == (), kind
        assert len(everything.items) >= len(mine.items), kind


async def test_tenants_do_nothing_that_is_an_administrator_s(desk, house):
    commands = [
        r.CreateZone(actor=desk.user, zone_id=desk.new(), name="mine"),
        r.ListProviders(actor=desk.user),
        desk.add_bucket(actor=desk.user, name="mine", config={"bucket": "mine"}),
        r.DeleteStore(actor=desk.user, store_id=house.bucket),
        r.GetSettings(actor=desk.user),
        r.PutSetting(actor=desk.user, name="image-store.mixing", value="any"),
    ]
    assert {type(command) for command in commands} == ADMIN_ONLY
    before = await desk.dump()
    for command in commands:
        assert (await desk.refused(command)).code is Code.FORBIDDEN, command
    assert await desk.dump() == before


async def test_a_public_template_is_for_all_to_read_and_for_its_owner_to_change(desk, house):
    template_id = await desk.template(public=True)
    assert await desk.ask(r.GetTemplate(actor=desk.other, template_id=template_id))
    await desk.done(
        desk.create_volume(actor=desk.other, template_id=template_id, zone_id=house.zone_b)
    )
    await desk.done(
        r.ExtractTemplate(
            actor=desk.other, template_id=template_id, job_id=desk.new(), seal_to=SEAL
        )
    )
    problem = await desk.refused(
        r.DeleteTemplate(actor=desk.other, template_id=template_id, job_id=desk.new())
    )
    assert problem.code is Code.FORBIDDEN
    volumes = await desk.ask(r.ListVolumes(actor=desk.user))
    assert volumes.items == (), "the copy belongs to whoever made it"


async def test_an_administrator_may_do_all_of_it(desk, house, owned):
    for command in foreign(desk, house, owned, desk.admin):
        reply = await desk.ask(command)
        if isinstance(reply, r.Accepted):
            job = await desk.settle(reply.job_id)
            assert job.state is v.JobState.SUCCEEDED
        if isinstance(command, r.DeleteTemplate):
            owned["template_id"] = await desk.template()
        # What was deleted is made anew, so that the next command finds it.
        if isinstance(command, r.DeleteTemplate | r.DeleteVolume | r.DeleteSnapshot):
            break


async def test_a_tenant_can_not_repeat_another_tenant_s_command(desk, house):
    import msgspec

    command = desk.register()
    await desk.ask(command)
    theirs = msgspec.structs.replace(command, actor=desk.other)
    problem = await desk.refused(theirs)
    assert problem.code is Code.CONFLICT
    assert command.name not in f"{problem.message} {problem.hint} {problem.facts}"
