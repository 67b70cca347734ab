"""The ordered steps of each kind of job: which transfers, and what undoes them."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from entrepot_chassis.ports import Ids
from entrepot_contracts.motion import (
    CopyWork,
    CreateVolumeWork,
    DeleteObjectsWork,
    DeleteVolumeWork,
    DropSnapshotWork,
    LinkWork,
    ObjectEnd,
    ProbeWork,
    SnapshotWork,
    TransferAsk,
    UrlEnd,
    VolumeEnd,
    Work,
)
from entrepot_contracts.values import StoreSpec, WorkClass
from store_registry.jobs.machine import Saga, Step
from store_registry.rows import Snapshot, Volume
from store_registry.rules.naming import scrub_url

CLEANUP_ATTEMPTS_MAX = 10


class Kind(StrEnum):
    STORE_ADD = "store.add"
    TEMPLATE_REGISTER = "template.register"
    TEMPLATE_DELETE = "template.delete"
    TEMPLATE_EXTRACT = "template.extract"
    VOLUME_CREATE = "volume.create"
    VOLUME_DELETE = "volume.delete"
    SNAPSHOT_CREATE = "snapshot.create"
    SNAPSHOT_DELETE = "snapshot.delete"


class Asker(Struct, frozen=True, kw_only=True):
    """Makes the asks of one job."""

    ids: Ids
    account_id: str
    job_id: str
    now: datetime

    def ask(
        self, work: Work, zone_id: str | None, work_class: WorkClass = WorkClass.INTERACTIVE
    ) -> TransferAsk:
        return TransferAsk(
            transfer_id=self.ids.new(),
            account_id=self.account_id,
            job_id=self.job_id,
            work=work,
            work_class=work_class,
            zone_id=zone_id,
            due_at=self.now,
        )

    def cleanup(self, work: Work, zone_id: str | None) -> TransferAsk:
        return replace(self.ask(work, zone_id), attempts_max=CLEANUP_ATTEMPTS_MAX)


class Place(Struct, frozen=True, kw_only=True):
    """A prefix on an image store."""

    store: StoreSpec
    prefix: str

    @property
    def end(self) -> ObjectEnd:
        return ObjectEnd(store=self.store, prefix=self.prefix)

    @property
    def emptied(self) -> DeleteObjectsWork:
        return DeleteObjectsWork(store=self.store, prefixes=(self.prefix,))


def add_store(asker: Asker, store: StoreSpec) -> Saga:
    probe = asker.ask(ProbeWork(store=store), store.zone_id)
    return Saga(steps=(Step(name="probe", asks=(probe,)),))


def register_template(asker: Asker, source: UrlEnd, places: Sequence[Place]) -> Saga:
    """All copies side by side; if one fails, none stays."""
    copies = tuple(
        asker.ask(
            CopyWork(source=source, target=place.end), place.store.zone_id, WorkClass.TEMPLATE
        )
        for place in places
    )
    undo = tuple(asker.cleanup(place.emptied, place.store.zone_id) for place in places)
    return Saga(steps=(Step(name="copy", asks=copies, undo=undo, agree=True),))


def delete_objects(asker: Asker, places: Sequence[Place]) -> Saga:
    asks = tuple(asker.cleanup(place.emptied, place.store.zone_id) for place in places)
    return Saga(steps=(Step(name="delete", asks=asks),))


def extract(asker: Asker, work: LinkWork) -> Saga:
    return Saga(steps=(Step(name="link", asks=(asker.ask(work, work.store.zone_id),)),))


def create_volume(asker: Asker, volume: Volume, pool: StoreSpec, source: ObjectEnd | None) -> Saga:
    """A copy of an object, or with no source a blank volume."""
    work: Work
    if source is None:
        work = CreateVolumeWork(
            store=pool,
            volume_id=volume.volume_id,
            format=volume.format,
            size_bytes=volume.size_bytes,
        )
    else:
        work = CopyWork(source=source, target=_volume_end(volume, pool))
    made = asker.ask(work, volume.zone_id)
    undo = asker.cleanup(_deleted(volume, pool), volume.zone_id)
    return Saga(steps=(Step(name="copy" if source else "create", asks=(made,), undo=(undo,)),))


def delete_volume(asker: Asker, volume: Volume, pool: StoreSpec) -> Saga:
    ask = asker.cleanup(_deleted(volume, pool), volume.zone_id)
    return Saga(steps=(Step(name="delete", asks=(ask,)),))


def create_snapshot(
    asker: Asker, snapshot: Snapshot, volume: Volume, pool: StoreSpec, place: Place
) -> Saga:
    """Pin the generation, back it up, let the pin go.

    The last step is of best effort: the backup is verified by then, and is worth more than a
    tidy pool. The snapshot remembers a pin that stayed; deleting the snapshot tries again.
    """
    pin = SnapshotWork(
        store=pool,
        volume_id=volume.volume_id,
        format=volume.format,
        snapshot_id=snapshot.snapshot_id,
    )
    source = replace(_volume_end(volume, pool), snapshot_id=snapshot.snapshot_id)
    backup = CopyWork(source=source, target=place.end)
    zone_id = volume.zone_id
    unpin = dropped(snapshot, pool)
    return Saga(
        steps=(
            Step(
                name="pin",
                asks=(asker.ask(pin, zone_id),),
                undo=(asker.cleanup(unpin, zone_id),),
            ),
            Step(
                name="backup",
                asks=(asker.ask(backup, zone_id, WorkClass.BATCH),),
                undo=(asker.cleanup(place.emptied, place.store.zone_id),),
            ),
            Step(name="unpin", asks=(asker.cleanup(unpin, zone_id),), best_effort=True),
        )
    )


def delete_snapshot(asker: Asker, places: Sequence[Place], unpin: DropSnapshotWork | None) -> Saga:
    saga = delete_objects(asker, places)
    if unpin is None:
        return saga
    pin = asker.cleanup(unpin, unpin.store.zone_id)
    return replace(saga, steps=(Step(name="unpin", asks=(pin,)), *saga.steps))


def dropped(snapshot: Snapshot, pool: StoreSpec) -> DropSnapshotWork:
    return DropSnapshotWork(
        store=pool,
        volume_id=snapshot.volume_id,
        format=snapshot.format,
        snapshot_id=snapshot.snapshot_id,
    )


def scrubbed(saga: Saga) -> Saga:
    """An ended saga without what its URLs may have carried: nobody needs it any more."""
    return replace(saga, steps=tuple(map(_scrubbed_step, saga.steps)))


def _scrubbed_step(step: Step) -> Step:
    return replace(step, asks=tuple(map(_scrubbed_ask, step.asks)))


def _scrubbed_ask(ask: TransferAsk) -> TransferAsk:
    work = ask.work
    if not isinstance(work, CopyWork) or not isinstance(work.source, UrlEnd):
        return ask
    source = replace(work.source, url=scrub_url(work.source.url))
    return replace(ask, work=replace(work, source=source))


def _volume_end(volume: Volume, pool: StoreSpec) -> VolumeEnd:
    return VolumeEnd(store=pool, volume_id=volume.volume_id, format=volume.format)


def _deleted(volume: Volume, pool: StoreSpec) -> DeleteVolumeWork:
    return DeleteVolumeWork(store=pool, volume_id=volume.volume_id, format=volume.format)
