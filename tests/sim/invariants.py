"""What must hold after every run, whatever happened in it (reliability.md 4.1)."""

from collections import Counter

from blake3 import blake3
from installation import BUCKET, Installation
from msgspec import json
from tenants import Tenant

from entrepot_contracts.motion import Copied, TransferState
from entrepot_contracts.values import (
    ContentDigest,
    CopyState,
    JobState,
    Layout,
    ResourceState,
    StoredObject,
)
from entrepot_testkit.memory_stream import subject_matches
from entrepot_testkit.memory_transaction import DeadLetter
from entrepot_testkit.sim_stores import SimDisk
from motion_engine import intake
from motion_engine.desk import SERVICE as ENGINE
from motion_engine.mover.manifest import SUFFIX, Manifest
from motion_engine.rows import TERMINAL, Transfer
from store_registry import consumer
from store_registry.rows import (
    Hold,
    ImageStore,
    Job,
    Snapshot,
    SnapshotStoreRef,
    StoragePool,
    Template,
    TemplateStoreRef,
    Volume,
)

LEAF_BYTES = 4 << 20
GONE = {ResourceState.DELETED, ResourceState.FAILED}


def unfinished(installation: Installation) -> str | None:
    """For `settle`: what has not come to its end yet."""
    running = [job for job in installation.registry.rows(Job) if job.state is JobState.RUNNING]
    if running:
        job = running[0]
        return f"{len(running)} jobs run, first {job.kind} {job.job_id} waiting for {job.saga.open}"
    open_ones = [one for one in installation.engine.rows(Transfer) if one.state not in TERMINAL]
    if open_ones:
        one = open_ones[0]
        return f"{len(open_ones)} transfers open, first {one.transfer_id} {one.kind} {one.state}"
    return installation.world.unpublished()


def check(installation: Installation, tenants: list[Tenant]) -> None:
    accepted_jobs_exist_and_ended(installation, tenants)
    jobs_end_once(installation)
    transfers_obey_epochs(installation)
    every_event_was_applied(installation)
    quarantined_work_is_parked(installation)
    ready_copies_hold_the_source(installation, tenants)
    volumes_hold_the_source(installation, tenants)
    nothing_of_failed_or_deleted_stays(installation, tenants)
    capacity_is_counted_once(installation)
    assert not installation.believed, f"fenced movers were believed: {installation.believed}"
    assert not installation.registry.rows(Hold), "holds of ended jobs stay"
    for disk in installation.disks.values():
        assert not disk.overwritten, f"{disk.name}: overwritten {disk.overwritten}"


def accepted_jobs_exist_and_ended(installation: Installation, tenants: list[Tenant]) -> None:
    jobs = {job.job_id: job for job in installation.registry.rows(Job)}
    for tenant in tenants:
        for accepted in tenant.accepted:
            assert accepted.job_id in jobs, f"accepted and lost: {accepted.job_id}"
            assert jobs[accepted.job_id].state is not JobState.RUNNING
            assert jobs[accepted.job_id].resource_id == accepted.resource_id


def jobs_end_once(installation: Installation) -> None:
    for job in installation.registry.rows(Job):
        states = [row.state for row in installation.registry.versions_of(Job, job.job_id) if row]
        assert sum(state is not JobState.RUNNING for state in states) == 1, (job.job_id, states)
        told = _told(installation, f"evt.registry.job.{job.job_id}.changed")
        ends = [one for one in told if one["state"] != JobState.RUNNING]
        assert len(ends) == 1, f"job {job.job_id} told its end {len(ends)} times"


def transfers_obey_epochs(installation: Installation) -> None:
    """Each claim its own epoch; one end; what is told of it, however often, is that end."""
    for transfer in installation.engine.rows(Transfer):
        rows = [
            row
            for row in installation.engine.versions_of(Transfer, transfer.transfer_id)
            if row is not None
        ]
        claims = [row.epoch for row in rows if row.state is TransferState.RUNNING]
        holders = {(row.epoch, row.boot_id) for row in rows if row.boot_id and row.epoch}
        assert claims == sorted(claims), f"{transfer.transfer_id}: epochs fell {claims}"
        by_epoch = Counter(epoch for epoch, _boot in holders)
        assert max(by_epoch.values(), default=1) == 1, f"one epoch, two holders: {holders}"
        assert sum(row.state in TERMINAL for row in rows) == 1, transfer.transfer_id
        prefix = f"evt.motion.transfer.{transfer.transfer_id}"
        ended = _told(installation, f"{prefix}.succeeded") + _told(installation, f"{prefix}.failed")
        assert ended, f"{transfer.transfer_id} never told its end"
        assert all(one == ended[0] for one in ended), f"{transfer.transfer_id} told two ends"
        if transfer.state is TransferState.DONE:
            assert ended[0]["epoch"] == transfer.epoch
            _written_by_this_transfer(transfer)


def _written_by_this_transfer(transfer: Transfer) -> None:
    result = transfer.result
    if not isinstance(result, Copied) or result.stored is None:
        return
    name, _, epoch = result.stored.key.removesuffix("/data").rsplit("/", 1)[1].rpartition(".")
    assert name == transfer.transfer_id, result.stored.key
    assert 1 <= int(epoch) <= transfer.epoch, result.stored.key


def every_event_was_applied(installation: Installation) -> None:
    """I7, I9: what one owner told, the other has in its inbox, whatever the broker lost."""
    hears = (
        (installation.engine, installation.registry, consumer.CONSUMER, consumer.SUBJECTS),
        (installation.registry, installation.engine, ENGINE, intake.SUBJECTS),
    )
    for teller, hearer, name, subjects in hears:
        told = {
            entry.event.msg_id
            for entry in teller.log.values()
            if any(subject_matches(pattern, entry.event.subject) for pattern in subjects)
        }
        applied = {msg_id for durable, msg_id in hearer.inbox if durable == name}
        assert told <= applied, f"{name} never applied {sorted(told - applied)[:3]}"


def quarantined_work_is_parked(installation: Installation) -> None:
    """I22: what was given up has its story in dead_letter."""
    given_up = {
        f"quarantined:{one.transfer_id}"
        for one in installation.engine.rows(Transfer)
        if one.state is TransferState.QUARANTINED
    }
    assert given_up == {letter.msg_id for letter in installation.engine.dead_letters}


def is_quarantine(letter: DeadLetter) -> bool:
    return letter.msg_id.startswith("quarantined:")


def ready_copies_hold_the_source(installation: Installation, tenants: list[Tenant]) -> None:
    """A Ready copy is whole: object, manifest, digests, and they are the bytes of the source."""
    expected = _expected(tenants)
    owners = {
        TemplateStoreRef: {row.template_id: row for row in installation.registry.rows(Template)},
        SnapshotStoreRef: {row.snapshot_id: row for row in installation.registry.rows(Snapshot)},
    }
    for kind, known in owners.items():
        for ref in installation.registry.rows(kind):
            if ref.state is not CopyState.READY:
                continue
            owner_id = getattr(ref, kind.OWNER)
            assert known[owner_id].state is ResourceState.READY, f"orphan Ready: {ref.ref_id}"
            assert ref.stored is not None
            bytes_ = stored_bytes(installation.disks[BUCKET], ref.stored)
            assert bytes_ == expected[owner_id], f"{ref.ref_id} holds other bytes than its source"
            assert digest_of(bytes_) == ref.stored.digest
            assert ref.digest_root == ref.stored.digest.root


def volumes_hold_the_source(installation: Installation, tenants: list[Tenant]) -> None:
    expected = _expected(tenants)
    written = set().union(*(tenant.written for tenant in tenants))
    pools = {pool.store_id: pool for pool in installation.registry.rows(StoragePool)}
    for volume in installation.registry.rows(Volume):
        disk = installation.disks[pools[volume.store_id].config["bucket"]]
        if volume.state is not ResourceState.READY:
            continue
        assert volume.volume_id in disk.volumes, f"ready, but not there: {volume.volume_id}"
        assert volume.digest_root == digest_of(expected[volume.volume_id]).root
        if volume.volume_id not in written:
            assert disk.volumes[volume.volume_id] == expected[volume.volume_id]


def nothing_of_failed_or_deleted_stays(installation: Installation, tenants: list[Tenant]) -> None:
    """Nothing visible; and, since all have tidied up, nothing at all under its prefix."""
    bucket = installation.disks[BUCKET]
    registry = installation.registry
    wrong = set().union(*(tenant.wrong for tenant in tenants))
    for kind, key in ((Template, "template_id"), (Snapshot, "snapshot_id")):
        for row in registry.rows(kind):
            resource_id = getattr(row, key)
            assert resource_id not in wrong or row.state is ResourceState.FAILED
            if row.state in GONE:
                left = [name for name in bucket.objects if f"/{resource_id}/" in name]
                assert not left, f"{row.state} {resource_id} left {left}"
    pools = {pool.store_id: pool for pool in registry.rows(StoragePool)}
    for volume in registry.rows(Volume):
        if volume.state in GONE:
            disk = installation.disks[pools[volume.store_id].config["bucket"]]
            assert volume.volume_id not in disk.volumes, f"{volume.state} {volume.volume_id} stays"


def capacity_is_counted_once(installation: Installation) -> None:
    """I19: what stores count as used is what their live things were given."""
    registry = installation.registry
    for pool in registry.rows(StoragePool):
        volumes = [one for one in registry.rows(Volume) if one.store_id == pool.store_id]
        live = sum(one.reserved_bytes for one in volumes if one.state not in GONE)
        assert pool.used_bytes == live, f"{pool.name}: {pool.used_bytes} used, {live} live"
    refs = [*registry.rows(TemplateStoreRef), *registry.rows(SnapshotStoreRef)]
    for store in registry.rows(ImageStore):
        live = sum(one.physical_size_bytes for one in refs if one.store_id == store.store_id)
        assert store.used_bytes == live, f"{store.name}: {store.used_bytes} used, {live} live"


# --- bytes ------------------------------------------------------------------------------------


def stored_bytes(disk: SimDisk, stored: StoredObject) -> bytes:
    """Logical bytes of a stored object by its manifest, checked leaf by leaf."""
    data = disk.objects[stored.key]
    manifest = json.decode(disk.objects[stored.key + SUFFIX], type=Manifest)
    assert len(data) == stored.stored_bytes
    if stored.layout is Layout.PLAIN:
        logical = data
    else:
        whole, position = bytearray(stored.digest.size_bytes), 0
        for offset, length in manifest.extents:
            whole[offset : offset + length] = data[position : position + length]
            position += length
        assert position == len(data)
        logical = bytes(whole)
    assert b"".join(manifest.leaf_table().joined() for _once in (1,)) == b"".join(leaves(logical))
    return logical


def leaves(data: bytes) -> list[bytes]:
    context = "entrepot content-digest v1 leaf"
    return [
        blake3(data[start : start + LEAF_BYTES], derive_key_context=context).digest()
        for start in range(0, len(data), LEAF_BYTES)
    ]


def digest_of(data: bytes) -> ContentDigest:
    """The content digest, written from its specification rather than taken from the mover."""
    root = blake3(derive_key_context="entrepot content-digest v1 root")
    root.update(len(data).to_bytes(8, "little") + LEAF_BYTES.to_bytes(4, "little"))
    root.update(b"".join(leaves(data)))
    return ContentDigest(root=root.hexdigest(), size_bytes=len(data))


def _expected(tenants: list[Tenant]) -> dict[str, bytes]:
    return {key: data for tenant in tenants for key, data in tenant.bytes_of.items()}


def _told(installation: Installation, subject: str) -> list[dict]:
    return [
        json.decode(entry.event.data)
        for database in installation.world.databases.values()
        for entry in database.log.values()
        if entry.event.subject == subject
    ]
