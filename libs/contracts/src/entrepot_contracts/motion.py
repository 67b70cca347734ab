"""Messages owned by motion-engine: transfers, claims by movers, telemetry of bytes."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from msgspec import Meta, Struct

from entrepot_contracts.errors import Problem
from entrepot_contracts.ids import Id
from entrepot_contracts.values import (
    Actor,
    Bytes,
    Checksum,
    ContentDigest,
    ImageFormat,
    ProbeReport,
    Scope,
    Sealed,
    StoredObject,
    StoreRole,
    StoreSpec,
    WorkClass,
)

# --- ends of a copy -------------------------------------------------------------------------


class UrlEnd(Struct, frozen=True, kw_only=True, tag="url"):
    """An http(s) URL a user gave; fetched by the guarded fetcher only. Never logged unscrubbed.

    A query may be a signature, so it is never in `url`: with `secret_id`, the grant's credentials
    hold {"query": ...} under that id.
    """

    url: str
    format: ImageFormat
    checksum: Checksum | None = None
    size_bytes_max: Bytes  # quota on stored bytes
    virtual_size_bytes_max: Bytes  # quota on virtual size
    secret_id: Id | None = None


class ObjectEnd(Struct, frozen=True, kw_only=True, tag="object"):
    """As a source: an object of the catalogue, with `stored` known. As a target: a key prefix;
    the mover appends `<transfer id>.<epoch>`, so nothing is ever overwritten.
    """

    store: StoreSpec
    prefix: str
    stored: StoredObject | None = None


class VolumeEnd(Struct, frozen=True, kw_only=True, tag="volume"):
    """A volume on a primary store. As a source, `snapshot_id` names the pinned generation."""

    store: StoreSpec
    volume_id: Id
    format: ImageFormat
    snapshot_id: Id | None = None


End = UrlEnd | ObjectEnd | VolumeEnd


# --- kinds of work --------------------------------------------------------------------------


class CopyWork(Struct, frozen=True, kw_only=True, tag="copy"):
    source: End
    target: ObjectEnd | VolumeEnd


class ProbeWork(Struct, frozen=True, kw_only=True, tag="probe"):
    store: StoreSpec


class LinkWork(Struct, frozen=True, kw_only=True, tag="link"):
    """Make an expiring GET link for one object and seal it to the asker's key."""

    store: StoreSpec
    stored: StoredObject
    file_name: str
    expires_s: int
    seal_to: str


class DeleteObjectsWork(Struct, frozen=True, kw_only=True, tag="delete_objects"):
    """Delete everything under the prefixes, manifests and unfinished uploads included."""

    store: StoreSpec
    prefixes: tuple[str, ...]


class CreateVolumeWork(Struct, frozen=True, kw_only=True, tag="create_volume"):
    store: StoreSpec
    volume_id: Id
    format: ImageFormat
    size_bytes: Bytes


class DeleteVolumeWork(Struct, frozen=True, kw_only=True, tag="delete_volume"):
    store: StoreSpec
    volume_id: Id
    format: ImageFormat


class SnapshotWork(Struct, frozen=True, kw_only=True, tag="snapshot"):
    """Pin the present generation of a volume under the snapshot's id."""

    store: StoreSpec
    volume_id: Id
    format: ImageFormat
    snapshot_id: Id


class DropSnapshotWork(Struct, frozen=True, kw_only=True, tag="drop_snapshot"):
    store: StoreSpec
    volume_id: Id
    format: ImageFormat
    snapshot_id: Id


Work = (
    CopyWork
    | ProbeWork
    | LinkWork
    | DeleteObjectsWork
    | CreateVolumeWork
    | DeleteVolumeWork
    | SnapshotWork
    | DropSnapshotWork
)


class TransferAsk(Struct, frozen=True, kw_only=True):
    """One piece of work for the ledger; repeats of the same transfer_id are one."""

    transfer_id: Id
    account_id: Id
    job_id: Id
    work: Work
    work_class: WorkClass = WorkClass.INTERACTIVE
    zone_id: Id | None = None  # None: any zone may run it
    due_at: datetime | None = None
    attempts_max: Annotated[int, Meta(ge=1, le=20)] = 5


# --- results --------------------------------------------------------------------------------


class Copied(Struct, frozen=True, kw_only=True, tag="copied"):
    """`stored` for an object target; `path` and `digest` for a volume target."""

    digest: ContentDigest
    virtual_size_bytes: Bytes
    bytes_read: int
    bytes_sent: int
    stored: StoredObject | None = None
    path: str | None = None


class Probed(Struct, frozen=True, kw_only=True, tag="probed"):
    report: ProbeReport


class Linked(Struct, frozen=True, kw_only=True, tag="linked"):
    link: Sealed


class Deleted(Struct, frozen=True, kw_only=True, tag="deleted"):
    count: int = 0


class VolumeMade(Struct, frozen=True, kw_only=True, tag="volume_made"):
    path: str
    size_bytes: Bytes


class Pinned(Struct, frozen=True, kw_only=True, tag="pinned"):
    size_bytes: Bytes  # virtual size of the pinned generation


Result = Copied | Probed | Linked | Deleted | VolumeMade | Pinned


# --- movers ---------------------------------------------------------------------------------


class ProviderFact(Struct, frozen=True, kw_only=True):
    """A store plugin installed beside a mover."""

    name: str
    version: str
    roles: tuple[StoreRole, ...]
    scopes: tuple[Scope, ...]
    traits: dict[str, Any]
    config_schema: dict[str, Any]


class RegisterMover(Struct, frozen=True, kw_only=True, tag="motion.mover.register.v1"):
    """Sent at start and every 15 s. A new `boot_id` under the same mover_id ends the claims of
    the boot before it at once: that process is gone.
    """

    mover_id: Id
    boot_id: Id
    zone_ids: tuple[Id, ...]  # empty: serves every zone
    labels: dict[str, str]
    slots: int
    public_key: str  # base64 raw X25519
    providers: tuple[ProviderFact, ...]
    version: str = "0"


class MoverWelcome(Struct, frozen=True, kw_only=True, tag="motion.mover.welcome.v1"):
    lease_s: float
    renew_s: float


class ClaimWork(Struct, frozen=True, kw_only=True, tag="motion.claim.v1"):
    """Ask for work; waits up to `wait_s` for some to appear. `free_slots` bounds the answer."""

    mover_id: Id
    boot_id: Id
    free_slots: Annotated[int, Meta(ge=1, le=64)]
    wait_s: Annotated[float, Meta(ge=0, le=10)] = 5


class PartRecord(Struct, frozen=True, kw_only=True):
    """A part the store has acknowledged. `leaves` are the 32-byte digests of its 4 MiB leaves."""

    number: int
    offset: int  # in the stored object
    length: int
    receipt: str  # what the store calls it: an ETag, or empty
    leaves: bytes


class Checkpointed(Struct, frozen=True, kw_only=True):
    """What a mover finds when it takes over: the resume token of the upload and its parts.

    `more`: there are parts beyond the last of `parts`; ReadParts gives them.
    """

    key: str = ""
    resume: str | None = None
    parts: tuple[PartRecord, ...] = ()
    facts: dict[str, Any] = {}
    more: bool = False


class Grant(Struct, frozen=True, kw_only=True):
    """A claimed piece of work: valid while the lease is renewed with this epoch."""

    ask: TransferAsk
    epoch: int
    attempt: int
    strategy: str
    credentials: dict[Id, Sealed]
    checkpoint: Checkpointed


class Granted(Struct, frozen=True, kw_only=True, tag="motion.granted.v1"):
    grants: tuple[Grant, ...] = ()


class ReadParts(Struct, frozen=True, kw_only=True, tag="motion.parts.read.v1"):
    """The holder asks for the parts on record that its grant had no room for, page by page."""

    transfer_id: Id
    epoch: int
    after: int  # part number


class PartsOnRecord(Struct, frozen=True, kw_only=True, tag="motion.parts.v1"):
    """Ascending; with `more`, ask again after the last."""

    parts: tuple[PartRecord, ...] = ()
    more: bool = False


class RenewLease(Struct, frozen=True, kw_only=True, tag="motion.lease.renew.v1"):
    transfer_id: Id
    epoch: int


class Renewed(Struct, frozen=True, kw_only=True, tag="motion.lease.renewed.v1"):
    """`cancel`: somebody wants it stopped; finish with code cancelled."""

    cancel: bool = False


class Checkpoint(Struct, frozen=True, kw_only=True, tag="motion.checkpoint.v1"):
    """Progress that must survive. Refused with code `fenced` when the epoch is not the holder's."""

    transfer_id: Id
    epoch: int
    key: str
    resume: str | None
    parts: tuple[PartRecord, ...] = ()  # new ones only
    bytes_done: int = 0
    bytes_total: int | None = None
    facts: dict[str, Any] = {}


class FinishWork(Struct, frozen=True, kw_only=True, tag="motion.finish.v1"):
    """Exactly one of result and problem. A retryable problem goes back to the queue."""

    transfer_id: Id
    epoch: int
    result: Result | None = None
    problem: Problem | None = None


class ReleaseWork(Struct, frozen=True, kw_only=True, tag="motion.release.v1"):
    """Drain: hand the epoch back; the attempt is not counted."""

    transfer_id: Id
    epoch: int


class Noted(Struct, frozen=True, kw_only=True, tag="motion.noted.v1"):
    """Committed, or had been already."""


# --- operators ------------------------------------------------------------------------------


class TransferState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    VERIFYING = "verifying"
    RETRY_WAIT = "retry_wait"
    DONE = "done"
    FAILED = "failed"
    QUARANTINED = "quarantined"
    CANCELLED = "cancelled"


class BidView(Struct, frozen=True, kw_only=True):
    strategy: str
    chosen: bool
    cost_s: float | None  # None: it cannot
    reason: str


class TransferView(Struct, frozen=True, kw_only=True, tag="motion.transfer.v1"):
    transfer_id: Id
    account_id: Id
    job_id: Id
    kind: str
    state: TransferState
    strategy: str
    bids: tuple[BidView, ...]
    epoch: int
    attempts: int
    attempts_max: int
    created_at: datetime
    mover_id: Id | None = None
    bytes_done: int = 0
    bytes_total: int | None = None
    parts_done: int = 0
    bytes_resent: int = 0
    finished_at: datetime | None = None
    problem: Problem | None = None
    story: tuple[str, ...] = ()


class ListTransfers(Struct, frozen=True, kw_only=True, tag="motion.transfer.list.v1"):
    """Newest first. A user sees the transfers of the own account, an admin all."""

    actor: Actor
    job_id: Id | None = None
    before: Id | None = None
    limit: Annotated[int, Meta(ge=1, le=500)] = 100


class TransferList(Struct, frozen=True, kw_only=True, tag="motion.transfers.v1"):
    items: tuple[TransferView, ...]


class GetTransfer(Struct, frozen=True, kw_only=True, tag="motion.transfer.get.v1"):
    actor: Actor
    transfer_id: Id


class CancelTransfer(Struct, frozen=True, kw_only=True, tag="motion.transfer.cancel.v1"):
    actor: Actor
    transfer_id: Id


class ListMovers(Struct, frozen=True, kw_only=True, tag="motion.mover.list.v1"):
    actor: Actor


class MoverView(Struct, frozen=True, kw_only=True, tag="motion.mover.v1"):
    mover_id: Id
    zone_ids: tuple[Id, ...]
    labels: dict[str, str]
    slots: int
    running: int
    seen_at: datetime
    alive: bool


class MoverList(Struct, frozen=True, kw_only=True, tag="motion.movers.v1"):
    items: tuple[MoverView, ...]


# --- events ---------------------------------------------------------------------------------


class MoverRegistered(Struct, frozen=True, kw_only=True, tag="motion.mover.registered.v1"):
    """A mover appeared or changed; the registry learns providers from it."""

    mover_id: Id
    zone_ids: tuple[Id, ...]
    providers: tuple[ProviderFact, ...]


class TransferSucceeded(Struct, frozen=True, kw_only=True, tag="motion.transfer.succeeded.v1"):
    transfer_id: Id
    job_id: Id
    epoch: int
    result: Result


class TransferFailed(Struct, frozen=True, kw_only=True, tag="motion.transfer.failed.v1"):
    """Ended without success: failed, quarantined or cancelled."""

    transfer_id: Id
    job_id: Id
    state: TransferState
    problem: Problem


# --- telemetry (core NATS, latest wins, never stored by the sender's fate) --------------------


class TransferProgress(Struct, frozen=True, kw_only=True, tag="motion.progress.v1"):
    transfer_id: Id
    job_id: Id
    account_id: Id
    mover_id: Id
    epoch: int
    phase: str  # reading, verifying, ...
    bytes_done: int
    bytes_total: int | None
    rate_bps: float  # bytes per second, last window


class Bell(Struct, frozen=True, kw_only=True, tag="motion.bell.v1"):
    """There may be work; whoever waits should ask. Lost bells cost at most 5 s."""
