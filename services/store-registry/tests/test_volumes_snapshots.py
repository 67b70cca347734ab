"""Volumes and snapshots: made, kept, restored elsewhere, and the pool's books."""

import msgspec
import pytest

from entrepot_contracts import motion as m
from entrepot_contracts import registry as r
from entrepot_contracts import values as v
from entrepot_contracts.errors import Code
from store_registry import rows

GIB = 1 << 30


async def volume_of(desk, volume_id, actor=None):
    return await desk.ask(r.GetVolume(actor=actor or desk.user, volume_id=volume_id))


async def snapshot_of(desk, snapshot_id):
    return await desk.ask(r.GetSnapshot(actor=desk.user, snapshot_id=snapshot_id))


async def booked(desk, pool_id):
    async with desk.registry.database.transaction() as tx:
        return (await tx.get(rows.StoragePool, pool_id)).used_bytes


async def row(desk, kind, key):
    async with desk.registry.database.transaction() as tx:
        return await tx.get(kind, key)


async def test_a_volume_of_a_template_is_a_copy_of_its_object_in_its_format(desk, house):
    template_id = await desk.template()
    command = desk.create_volume(template_id=template_id, zone_id=house.zone_b)
    before = await booked(desk, house.pool_b)
    await desk.ask(command)
    assert await booked(desk, house.pool_b) == before + 4 * GIB
    (ask,) = await desk.asks(command.job_id)
    assert ask.zone_id == house.zone_b
    assert ask.work.source.stored.digest.root == "ab" * 32
    assert ask.work.source.store.store_id == house.bucket
    assert ask.work.target == m.VolumeEnd(
        store=ask.work.target.store, volume_id=command.volume_id, format=v.ImageFormat.QCOW2
    )
    assert ask.work.target.store.store_id == house.pool_b
    await desk.succeed(ask, epoch=2)
    volume = await volume_of(desk, command.volume_id, desk.admin)
    assert (volume.state, volume.size_bytes) == (v.ResourceState.READY, 4 * GIB)
    assert (volume.path, volume.digest_root) == (f"/pool/{command.volume_id}", "ab" * 32)
    assert (await volume_of(desk, command.volume_id)).path is None
    assert (await row(desk, rows.Volume, command.volume_id)).epoch == 2


async def test_a_copy_in_the_zone_is_preferred_and_one_in_another_zone_is_no_use(desk, house):
    template_id = await desk.template(scope=v.Scope.ZONE, zone_ids=(house.zone_a,))
    command = desk.create_volume(template_id=template_id, zone_id=house.zone_a)
    await desk.ask(command)
    (ask,) = await desk.asks(command.job_id)
    assert ask.work.source.store.store_id == house.folder
    problem = await desk.refused(desk.create_volume(template_id=template_id, zone_id=house.zone_b))
    assert (problem.code, problem.field) == (Code.NO_STORE, "template_id")


async def test_a_blank_volume_has_its_pool_s_format_and_the_size_asked_for(desk, house):
    command = desk.create_volume(zone_id=house.zone_a, size_bytes=3 * GIB)
    await desk.ask(command)
    (ask,) = await desk.asks(command.job_id)
    assert ask.work == m.CreateVolumeWork(
        store=ask.work.store,
        volume_id=command.volume_id,
        format=v.ImageFormat.QCOW2,
        size_bytes=3 * GIB,
    )
    await desk.succeed(ask)
    assert (await volume_of(desk, command.volume_id)).size_bytes == 3 * GIB
    raw = await desk.store(
        desk.add_folder(
            house.zone_b,
            name="raw-pool",
            role=v.StoreRole.PRIMARY,
            config={"path": "/srv/raw", "format": "raw"},
        )
    )
    volume_id = await desk.volume(house.zone_b, store_id=raw)
    assert (await volume_of(desk, volume_id)).format is v.ImageFormat.RAW


async def test_a_failed_volume_is_cleaned_away_and_its_room_is_free_again(desk, house):
    before = await booked(desk, house.pool_a)
    command = desk.create_volume(zone_id=house.zone_a, size_bytes=GIB)
    await desk.ask(command)
    (ask,) = await desk.asks(command.job_id)
    await desk.fail(ask, Code.STORE_FULL)
    (undo,) = (await desk.asks(command.job_id))[1:]
    assert isinstance(undo.work, m.DeleteVolumeWork)
    await desk.succeed(undo)
    volume = await volume_of(desk, command.volume_id)
    assert (volume.state, volume.error.code) == (v.ResourceState.FAILED, Code.STORE_FULL)
    assert await booked(desk, house.pool_a) == before
    # Deleting what failed frees nothing twice.
    await desk.done(r.DeleteVolume(actor=desk.user, volume_id=command.volume_id, job_id=desk.new()))
    assert await booked(desk, house.pool_a) == before


async def test_a_failed_volume_can_be_deleted_after_its_pool_is_gone(desk, house):
    command = desk.create_volume(zone_id=house.zone_a, size_bytes=GIB)
    await desk.ask(command)
    (ask,) = await desk.asks(command.job_id)
    await desk.fail(ask)
    await desk.settle(command.job_id)
    await desk.ask(r.DeleteStore(actor=desk.admin, store_id=house.pool_a))
    delete = r.DeleteVolume(actor=desk.user, volume_id=command.volume_id, job_id=desk.new())
    accepted = await desk.ask(delete)
    assert (await desk.job(accepted.job_id)).state is v.JobState.SUCCEEDED


async def test_a_pool_is_never_promised_away_twice(desk, house):
    put = r.PutSetting(actor=desk.admin, name="primary-store.overprovisioning", value="1")
    await desk.ask(put)
    await desk.ask(desk.create_volume(zone_id=house.zone_a, size_bytes=60 * GIB))
    problem = await desk.refused(desk.create_volume(zone_id=house.zone_a, size_bytes=60 * GIB))
    assert (problem.code, problem.field) == (Code.STORE_FULL, "size_bytes")


async def test_a_volume_is_deleted_and_its_room_is_free_again(desk, house):
    before = await booked(desk, house.pool_a)
    volume_id = await desk.volume(house.zone_a)
    command = r.DeleteVolume(actor=desk.user, volume_id=volume_id, job_id=desk.new())
    await desk.ask(command)
    assert (await volume_of(desk, volume_id)).state is v.ResourceState.DELETING
    await desk.settle(command.job_id)
    assert await booked(desk, house.pool_a) == before
    problem = await desk.refused(r.GetVolume(actor=desk.user, volume_id=volume_id))
    assert problem.code is Code.NOT_FOUND
    reply = await desk.ask(r.ListVolumes(actor=desk.user))
    assert reply.items == ()


async def test_a_snapshot_is_pinned_backed_up_and_unpinned_in_this_order(desk, house):
    volume_id = await desk.volume(house.zone_a)
    command = desk.create_snapshot(volume_id)
    await desk.ask(command)
    (pin,) = await desk.asks(command.job_id)
    assert isinstance(pin.work, m.SnapshotWork)
    assert pin.work.snapshot_id == command.snapshot_id
    assert (await desk.job(command.job_id)).step == "pin"

    await desk.succeed(pin)
    (backup,) = (await desk.asks(command.job_id))[1:]
    assert backup.work.source.snapshot_id == command.snapshot_id
    assert backup.work.target.store.store_id == house.bucket, "every zone can restore from it"
    prefix = f"t/{desk.user.account_id}/snapshots/{command.snapshot_id}/"
    assert backup.work.target.prefix == prefix
    await desk.succeed(backup)
    (unpin,) = (await desk.asks(command.job_id))[2:]
    assert isinstance(unpin.work, m.DropSnapshotWork)
    assert (await snapshot_of(desk, command.snapshot_id)).state is v.ResourceState.CREATING
    await desk.succeed(unpin)

    snapshot = await snapshot_of(desk, command.snapshot_id)
    assert (snapshot.state, snapshot.digest_root) == (v.ResourceState.READY, "ab" * 32)
    assert snapshot.size_bytes == 4 * GIB
    assert [c.state for c in snapshot.copies] == [v.CopyState.READY]
    assert not (await row(desk, rows.Snapshot, command.snapshot_id)).pinned
    reply = await desk.ask(r.ListSnapshots(actor=desk.user))
    assert reply.items == (snapshot,)


@pytest.mark.parametrize("fails_at", [0, 1])
async def test_a_snapshot_that_fails_leaves_neither_pin_nor_object(desk, house, fails_at):
    volume_id = await desk.volume(house.zone_a)
    command = desk.create_snapshot(volume_id)
    await desk.ask(command)
    for _ in range(fails_at):
        await desk.succeed((await desk.asks(command.job_id))[-1])
    await desk.fail((await desk.asks(command.job_id))[-1], Code.STORE_FULL)
    undo = (await desk.asks(command.job_id))[fails_at + 1 :]
    kinds = {type(ask.work) for ask in undo}
    wanted = {m.DropSnapshotWork, m.DeleteObjectsWork} if fails_at else {m.DropSnapshotWork}
    assert kinds == wanted
    job = await desk.settle(command.job_id)
    assert job.error.code is Code.STORE_FULL
    snapshot = await snapshot_of(desk, command.snapshot_id)
    assert (snapshot.state, snapshot.error.code) == (v.ResourceState.FAILED, Code.STORE_FULL)
    assert not (await row(desk, rows.Snapshot, command.snapshot_id)).pinned
    assert (await volume_of(desk, volume_id)).state is v.ResourceState.READY
    await desk.snapshot(volume_id)


async def test_a_pin_that_stays_costs_no_backup_and_goes_with_the_snapshot(desk, house):
    volume_id = await desk.volume(house.zone_a)
    command = desk.create_snapshot(volume_id)
    await desk.ask(command)
    for _ in range(2):
        await desk.succeed((await desk.asks(command.job_id))[-1])
    await desk.fail((await desk.asks(command.job_id))[-1])
    assert (await desk.job(command.job_id)).state is v.JobState.SUCCEEDED
    assert (await snapshot_of(desk, command.snapshot_id)).state is v.ResourceState.READY
    await desk.done(r.DeleteVolume(actor=desk.user, volume_id=volume_id, job_id=desk.new()))
    problem = await desk.refused(r.DeleteStore(actor=desk.admin, store_id=house.pool_a))
    assert problem.facts["blockers"] == command.snapshot_id
    delete = r.DeleteSnapshot(actor=desk.user, snapshot_id=command.snapshot_id, job_id=desk.new())
    await desk.ask(delete)
    assert isinstance((await desk.asks(delete.job_id))[0].work, m.DropSnapshotWork)
    await desk.settle(delete.job_id)
    await desk.ask(r.DeleteStore(actor=desk.admin, store_id=house.pool_a))


async def test_a_volume_is_neither_deleted_nor_snapshotted_while_a_snapshot_is_taken(desk, house):
    volume_id = await desk.volume(house.zone_a)
    job = await desk.ask(desk.create_snapshot(volume_id))
    delete = r.DeleteVolume(actor=desk.user, volume_id=volume_id, job_id=desk.new())
    problem = await desk.refused(delete)
    assert (problem.code, problem.facts["job_id"]) == (Code.IN_USE, job.job_id)
    problem = await desk.refused(desk.create_snapshot(volume_id))
    assert (problem.code, problem.facts["job_id"]) == (Code.CONFLICT, job.job_id)
    await desk.settle(job.job_id)
    await desk.done(delete)


async def test_a_snapshot_outlives_its_volume_and_restores_in_another_zone(desk, house):
    volume_id = await desk.volume(house.zone_a)
    snapshot_id = await desk.snapshot(volume_id)
    await desk.done(r.DeleteVolume(actor=desk.user, volume_id=volume_id, job_id=desk.new()))
    command = desk.create_volume(snapshot_id=snapshot_id, zone_id=house.zone_b)
    await desk.ask(command)
    (ask,) = await desk.asks(command.job_id)
    assert ask.work.source.stored.key.startswith(f"t/{desk.user.account_id}/snapshots/")
    assert ask.work.target.store.store_id == house.pool_b
    delete = r.DeleteSnapshot(actor=desk.user, snapshot_id=snapshot_id, job_id=desk.new())
    assert (await desk.refused(delete)).code is Code.IN_USE
    await desk.settle(command.job_id)
    restored = await volume_of(desk, command.volume_id)
    assert restored.snapshot_id == snapshot_id
    assert restored.digest_root == (await snapshot_of(desk, snapshot_id)).digest_root
    await desk.done(delete)
    problem = await desk.refused(r.GetSnapshot(actor=desk.user, snapshot_id=snapshot_id))
    assert problem.code is Code.NOT_FOUND


async def test_a_zone_wide_backup_restores_in_its_own_zone_only(desk, house):
    volume_id = await desk.volume(house.zone_a)
    snapshot_id = await desk.snapshot(volume_id, store_id=house.folder)
    problem = await desk.refused(desk.create_volume(snapshot_id=snapshot_id, zone_id=house.zone_b))
    assert (problem.code, problem.field) == (Code.NO_STORE, "snapshot_id")
    await desk.volume(house.zone_a, snapshot_id=snapshot_id, size_bytes=None)


async def test_an_administrator_s_snapshot_of_a_tenant_s_volume_is_the_tenant_s(desk, house):
    volume_id = await desk.volume(house.zone_a)
    snapshot_id = await desk.snapshot(volume_id, actor=desk.admin)
    snapshot = await snapshot_of(desk, snapshot_id)
    assert snapshot.account_id == desk.user.account_id
    key = snapshot.copies[0].stored.key
    assert key.startswith(f"t/{desk.user.account_id}/"), key


@pytest.mark.parametrize("kind", ["volume", "snapshot"])
async def test_commands_repeated_are_one_intent(desk, house, kind):
    if kind == "volume":
        command = desk.create_volume(zone_id=house.zone_a, size_bytes=GIB)
    else:
        command = desk.create_snapshot(await desk.volume(house.zone_a))
    first = await desk.ask(command)
    assert await desk.ask(command) == first
    assert await desk.ask(msgspec.structs.replace(command, job_id=desk.new())) == first
    renamed = msgspec.structs.replace(command, name="other")
    assert (await desk.refused(renamed)).code is Code.CONFLICT
    assert len(await desk.asks(first.job_id)) == 1
    await desk.settle(first.job_id)
    assert await desk.ask(command) == first
