"""Templates: one copy for the region or one per zone, all or none."""

import msgspec
import pytest

from entrepot_chassis.seal import KeyPair
from entrepot_contracts import motion as m
from entrepot_contracts import registry as r
from entrepot_contracts import values as v
from entrepot_contracts.errors import Code
from store_registry import rows
from store_registry.keys import Unopenable
from store_registry.source_query import query_of

SUM = v.Checksum(algorithm=v.ChecksumAlgorithm.SHA256, value="c" * 64)


async def get(desk, template_id, actor=None):
    return await desk.ask(r.GetTemplate(actor=actor or desk.user, template_id=template_id))


async def used(desk, store_id):
    async with desk.registry.database.transaction() as tx:
        return (await tx.get(rows.ImageStore, store_id)).used_bytes


async def test_a_region_wide_template_is_one_copy_on_a_region_wide_store(desk, house):
    command = desk.register(checksum=SUM)
    accepted = await desk.ask(command)
    assert accepted == r.Accepted(job_id=command.job_id, resource_id=command.template_id)
    before = await get(desk, command.template_id)
    assert before.state is v.ResourceState.CREATING
    assert [(c.store_id, c.state) for c in before.copies] == [(house.bucket, v.CopyState.CREATING)]

    (ask,) = await desk.asks(command.job_id)
    assert ask.work.source == m.UrlEnd(
        url=command.url,
        format=v.ImageFormat.QCOW2,
        checksum=SUM,
        size_bytes_max=500 << 30,
        virtual_size_bytes_max=2 << 40,
    )
    prefix = f"t/{desk.user.account_id}/templates/{command.template_id}/"
    assert (ask.work.target.prefix, ask.work.target.store.store_id) == (prefix, house.bucket)
    assert (ask.work_class, ask.zone_id) == (v.WorkClass.TEMPLATE, None)

    booked = await used(desk, house.bucket)
    await desk.succeed(ask, epoch=3)
    template = await get(desk, command.template_id)
    assert template.state is v.ResourceState.READY
    assert (template.size_bytes, template.virtual_size_bytes) == (1 << 30, 4 << 30)
    assert template.copies[0].state is v.CopyState.READY
    assert template.copies[0].stored.key == f"{prefix}{ask.transfer_id}.3/data"
    assert await used(desk, house.bucket) == booked + (1 << 29)
    async with desk.registry.database.transaction() as tx:
        (ref,) = await tx.find(rows.TemplateStoreRef, where={"template_id": template.template_id})
        assert (ref.epoch, ref.digest_root, ref.checksum) == (3, "ab" * 32, SUM)
        assert await tx.find(rows.Hold) == []
    states = [e.state for e in await desk.events(r.TemplateChanged)]
    assert states == [v.ResourceState.CREATING, v.ResourceState.READY]
    job_states = [e.state for e in await desk.events(r.JobChanged) if e.job_id == command.job_id]
    assert job_states == [v.JobState.RUNNING, v.JobState.SUCCEEDED]


async def test_a_zone_wide_template_is_ready_when_every_zone_has_its_copy(desk, house):
    folder_b = await desk.store(desk.add_folder(house.zone_b, name="nfs-b"))
    command = desk.register(scope=v.Scope.ZONE, zone_ids=(house.zone_a, house.zone_b))
    await desk.ask(command)
    one, two = await desk.asks(command.job_id)
    assert {one.zone_id, two.zone_id} == {house.zone_a, house.zone_b}
    await desk.succeed(one)
    assert (await get(desk, command.template_id)).state is v.ResourceState.CREATING
    await desk.succeed(two)
    template = await get(desk, command.template_id)
    assert template.state is v.ResourceState.READY
    assert {c.store_id for c in template.copies} == {house.folder, folder_b}
    assert {c.zone_id for c in template.copies} == {house.zone_a, house.zone_b}


async def test_one_failed_copy_stops_the_others_and_no_copy_stays(desk, house):
    await desk.store(desk.add_folder(house.zone_b, name="nfs-b"))
    command = desk.register(scope=v.Scope.ZONE, zone_ids=(house.zone_a, house.zone_b))
    await desk.ask(command)
    one, two = await desk.asks(command.job_id)
    await desk.fail(one, Code.CHECKSUM_MISMATCH, expected="cc", actual="dd")
    assert [e.transfer_id for e in await desk.events(r.MotionCancelled)] == [two.transfer_id]
    assert (await desk.job(command.job_id)).step == "stopping"
    await desk.succeed(two)  # it had finished before it could be stopped

    cleanups = (await desk.asks(command.job_id))[2:]
    prefix = f"t/{desk.user.account_id}/templates/{command.template_id}/"
    assert {c.work.store.store_id for c in cleanups} == {
        one.work.target.store.store_id,
        two.work.target.store.store_id,
    }
    assert all(c.work.prefixes == (prefix,) for c in cleanups)
    assert (await desk.job(command.job_id)).state is v.JobState.RUNNING
    for cleanup in cleanups:
        await desk.succeed(cleanup)

    job = await desk.job(command.job_id)
    assert (job.state, job.error.code) == (v.JobState.FAILED, Code.CHECKSUM_MISMATCH)
    assert job.error.facts == {"expected": "cc", "actual": "dd"}
    template = await get(desk, command.template_id)
    assert (template.state, template.error) == (v.ResourceState.FAILED, job.error)
    assert all(c.state is v.CopyState.FAILED and c.stored is None for c in template.copies)


async def test_a_failed_cleanup_fails_the_job_with_the_original_problem(desk, house):
    command = desk.register()
    await desk.ask(command)
    (ask,) = await desk.asks(command.job_id)
    await desk.fail(ask, Code.SOURCE_STATUS)
    (cleanup,) = (await desk.asks(command.job_id))[1:]
    await desk.fail(cleanup, Code.STORE_DENIED)
    assert (await desk.job(command.job_id)).error.code is Code.SOURCE_STATUS


async def test_registering_twice_is_one_intent_and_a_changed_one_is_refused(desk, house):
    command = desk.register()
    first = await desk.ask(command)
    assert await desk.ask(command) == first
    retried = msgspec.structs.replace(command, job_id=desk.new())
    assert await desk.ask(retried) == first
    assert len(await desk.asks(first.job_id)) == 1
    changed = msgspec.structs.replace(command, name="other")
    assert (await desk.refused(changed)).code is Code.CONFLICT
    stolen = msgspec.structs.replace(command, template_id=desk.new())
    assert (await desk.refused(stolen)).field == "job_id"
    foreign = msgspec.structs.replace(command, actor=desk.other, job_id=desk.new())
    assert (await desk.refused(foreign)).field == "template_id"
    await desk.settle(first.job_id)
    assert await desk.ask(command) == first


async def test_without_a_fitting_store_the_answer_names_the_remedy(desk, house):
    await desk.ask(r.DeleteStore(actor=desk.admin, store_id=house.bucket))
    problem = await desk.refused(desk.register())
    assert (problem.code, problem.field) == (Code.NO_STORE, "scope")
    problem = await desk.refused(desk.register(scope=v.Scope.ZONE, zone_ids=(house.zone_b,)))
    assert (problem.code, problem.field) == (Code.NO_STORE, "zone_ids")


async def test_quotas_of_the_settings_go_with_the_source(desk, house):
    put = r.PutSetting(actor=desk.admin, name="template.size.max", value="1MiB")
    await desk.ask(put)
    command = desk.register()
    await desk.ask(command)
    (ask,) = await desk.asks(command.job_id)
    assert ask.work.source.size_bytes_max == 1 << 20


async def query_given(desk, secret_id):
    """What a mover would read, or None if nothing is given for that id."""
    pair = KeyPair.new()
    answer = await desk.ask(r.SealCredentials(store_ids=(secret_id,), recipient=pair.public_key))
    sealed = answer.items.get(secret_id)
    return None if sealed is None else msgspec.json.decode(pair.open(sealed.box))


@pytest.mark.parametrize("well", [True, False])
async def test_a_query_is_given_to_movers_only_and_forgotten_with_the_job(
    desk, house, canary, well
):
    query = f"sig={canary}%2B&x=1"
    command = desk.register(query=desk.sealed(query))
    await desk.ask(command)
    (ask,) = await desk.asks(command.job_id)
    assert (ask.work.source.url, ask.work.source.secret_id) == (command.url, command.template_id)
    assert await query_given(desk, command.template_id) == {"query": query}
    async with desk.registry.database.transaction() as tx:
        assert (await tx.get(rows.Template, command.template_id)).source_query
    dump = await desk.dump()
    assert command.template_id.encode() in dump
    assert canary.encode() not in dump, "rows and events"
    await (desk.succeed(ask) if well else desk.fail(ask))
    await desk.settle(command.job_id)
    async with desk.registry.database.transaction() as tx:
        assert (await tx.get(rows.Template, command.template_id)).source_query is None
    assert await query_given(desk, command.template_id) is None


async def test_a_query_sealed_anew_is_the_same_intent_and_another_query_is_not(desk, house):
    command = desk.register(query=desk.sealed("sig=1"))
    first = await desk.ask(command)
    again = msgspec.structs.replace(command, query=desk.sealed("sig=1"))
    assert again.query.box != command.query.box
    assert await desk.ask(again) == first
    for query in (desk.sealed("sig=2"), None):
        other = msgspec.structs.replace(command, query=query)
        assert (await desk.refused(other)).code is Code.CONFLICT
    assert await query_given(desk, command.template_id) == {"query": "sig=1"}


async def test_a_sealed_query_does_not_open_for_another_template(desk, house):
    one, two = (desk.register(query=desk.sealed(f"sig={n}")) for n in (1, 2))
    await desk.ask(one)
    await desk.ask(two)
    async with desk.registry.database.transaction() as tx:
        template = await tx.get(rows.Template, one.template_id, lock=True)
        template.source_query = (await tx.get(rows.Template, two.template_id)).source_query
        with pytest.raises(Unopenable):
            query_of(desk.registry.keys, template)


async def test_a_list_holds_the_own_and_the_public_ones_in_pages(desk, house):
    mine = [await desk.template() for _ in range(3)]
    public = await desk.template(actor=desk.other, public=True)
    hidden = await desk.template(actor=desk.other)

    async def ids(actor, **page):
        reply = await desk.ask(r.ListTemplates(actor=actor, page=r.Page(**page)))
        return [t.template_id for t in reply.items]

    assert await ids(desk.user) == sorted([*mine, public])
    assert await ids(desk.admin) == sorted([*mine, public, hidden])
    first = await ids(desk.user, limit=2)
    rest = await ids(desk.user, limit=100, after=first[-1])
    assert first + rest == sorted([*mine, public])
    reply = await desk.ask(r.ListTemplates(actor=desk.user))
    assert all(len(t.copies) == 1 for t in reply.items)


async def test_deleting_waits_for_nobody_and_frees_the_room(desk, house):
    template_id = await desk.template()
    booked = await used(desk, house.bucket)
    command = r.DeleteTemplate(actor=desk.user, template_id=template_id, job_id=desk.new())
    await desk.ask(command)
    assert (await get(desk, template_id)).state is v.ResourceState.DELETING
    (ask,) = await desk.asks(command.job_id)
    assert ask.work.prefixes == (f"t/{desk.user.account_id}/templates/{template_id}/",)
    await desk.succeed(ask)
    problem = await desk.refused(r.GetTemplate(actor=desk.user, template_id=template_id))
    assert problem.code is Code.NOT_FOUND
    assert await used(desk, house.bucket) == booked - (1 << 29)
    # The same command again is answered as before; a new one finds nothing.
    assert (await desk.ask(command)).job_id == command.job_id
    again = msgspec.structs.replace(command, job_id=desk.new())
    assert (await desk.refused(again)).code is Code.NOT_FOUND


async def test_a_deletion_that_failed_can_be_tried_again(desk, house):
    template_id = await desk.template()
    command = r.DeleteTemplate(actor=desk.user, template_id=template_id, job_id=desk.new())
    await desk.ask(command)
    (ask,) = await desk.asks(command.job_id)
    await desk.fail(ask, Code.STORE_DENIED)
    assert (await get(desk, template_id)).state is v.ResourceState.FAILED
    await desk.done(msgspec.structs.replace(command, job_id=desk.new()))


@pytest.mark.parametrize("use", ["registering", "extracting", "volume", "deleting"])
async def test_a_template_in_use_is_not_deleted_and_the_job_is_named(desk, house, use):
    if use == "registering":
        job = await desk.ask(desk.register())
    else:
        template_id = await desk.template()
        command = {
            "extracting": r.ExtractTemplate(
                actor=desk.user, template_id=template_id, job_id=desk.new(), seal_to="k"
            ),
            "volume": desk.create_volume(template_id=template_id, zone_id=house.zone_a),
            "deleting": r.DeleteTemplate(
                actor=desk.user, template_id=template_id, job_id=desk.new()
            ),
        }[use]
        job = await desk.ask(command)
    template_id = job.resource_id if use == "registering" else template_id
    problem = await desk.refused(
        r.DeleteTemplate(actor=desk.user, template_id=template_id, job_id=desk.new())
    )
    assert (problem.code, problem.facts["job_id"]) == (Code.IN_USE, job.job_id)
    assert job.job_id in problem.message


async def test_a_link_comes_back_sealed_in_the_job(desk, house):
    template_id = await desk.template(name="Debian 12")
    command = r.ExtractTemplate(
        actor=desk.user, template_id=template_id, job_id=desk.new(), seal_to="gateway", expires_s=60
    )
    await desk.ask(command)
    (ask,) = await desk.asks(command.job_id)
    assert (ask.work.file_name, ask.work.expires_s) == ("Debian-12.qcow2", 60)
    await desk.succeed(ask)
    job = await desk.job(command.job_id)
    assert job.link == v.Sealed(recipient="gateway", box=b"a link")


async def test_a_link_needs_a_store_that_gives_out_links(desk, house):
    template_id = await desk.template(scope=v.Scope.ZONE, zone_ids=(house.zone_a,))
    problem = await desk.refused(
        r.ExtractTemplate(actor=desk.user, template_id=template_id, job_id=desk.new(), seal_to="g")
    )
    assert problem.code is Code.NO_STORE


async def test_two_copies_of_different_bytes_are_no_template(desk, house):
    await desk.store(desk.add_folder(house.zone_b, name="nfs-b"))
    command = desk.register(scope=v.Scope.ZONE, zone_ids=(house.zone_a, house.zone_b))
    await desk.ask(command)
    one, two = await desk.asks(command.job_id)
    await desk.succeed(one, desk.result(one, root="aa" * 32))
    await desk.succeed(two, desk.result(two, root="bb" * 32))
    job = await desk.settle(command.job_id)
    assert job.error.code is Code.SOURCE_CHANGED


async def test_answers_told_twice_or_late_change_nothing(desk, house):
    command = desk.register()
    await desk.ask(command)
    (ask,) = await desk.asks(command.job_id)
    done = m.TransferSucceeded(
        transfer_id=ask.transfer_id, job_id=ask.job_id, epoch=1, result=desk.result(ask)
    )
    await desk.tell(done, "motion:same")
    booked = await used(desk, house.bucket)
    await desk.tell(done, "motion:same")
    await desk.tell(done, "motion:again")
    await desk.fail(ask)
    assert await used(desk, house.bucket) == booked
    assert (await get(desk, command.template_id)).state is v.ResourceState.READY


async def test_an_answer_to_a_job_nobody_knows_is_let_go(desk):
    await desk.tell(
        m.TransferSucceeded(transfer_id=desk.new(), job_id=desk.new(), epoch=1, result=m.Deleted())
    )
