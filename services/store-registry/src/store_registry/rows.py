"""What store-registry keeps: one struct per table, named as in the CloudStack design."""

from datetime import datetime
from typing import Any, ClassVar

from entrepot_chassis.ports import Row, Table
from entrepot_contracts.errors import Problem
from entrepot_contracts.values import (
    Checksum,
    CopyState,
    ImageFormat,
    JobState,
    ProbeReport,
    ResourceState,
    Scope,
    Sealed,
    StoredObject,
    StoreRole,
    StoreState,
)
from store_registry.jobs.machine import Saga

# --- inventory --------------------------------------------------------------------------------


class Zone(Row, kw_only=True):
    TABLE: ClassVar[Table] = Table(name="zone", key="zone_id")
    zone_id: str
    name: str
    region: str
    created_at: datetime


class Provider(Row, kw_only=True):
    """A store provider as the latest mover announced it."""

    TABLE: ClassVar[Table] = Table(name="provider", key="name")
    name: str
    version: str
    roles: tuple[StoreRole, ...]
    scopes: tuple[Scope, ...]
    traits: dict[str, Any]
    config_schema: dict[str, Any]
    seen_at: datetime


class Store(Row, kw_only=True):
    """What image stores and storage pools have in common; `config` holds no secret."""

    ROLE: ClassVar[StoreRole]
    store_id: str
    account_id: str  # who added it; part of what binds its secrets
    name: str
    provider: str
    scope: Scope
    zone_id: str | None
    region: str
    state: StoreState
    config: dict[str, Any]
    place: str  # where the bytes are, normalised: two stores never share one
    read_only: bool
    created_at: datetime
    capacity_bytes: int | None = None
    used_bytes: int = 0
    report: ProbeReport | None = None
    job_id: str | None = None


class ImageStore(Store, kw_only=True):
    TABLE: ClassVar[Table] = Table(name="image_store", key="store_id")
    ROLE: ClassVar[StoreRole] = StoreRole.IMAGE


class StoragePool(Store, kw_only=True):
    TABLE: ClassVar[Table] = Table(name="storage_pool", key="store_id")
    ROLE: ClassVar[StoreRole] = StoreRole.PRIMARY


class StoreDetail(Row, kw_only=True):
    """One secret config field of a store, AES-256-GCM sealed to owner, store and column."""

    detail_id: str  # <store_id>.<name>
    store_id: str
    name: str
    sealed: bytes


class ImageStoreDetail(StoreDetail, kw_only=True):
    TABLE: ClassVar[Table] = Table(name="image_store_details", key="detail_id")


class StoragePoolDetail(StoreDetail, kw_only=True):
    TABLE: ClassVar[Table] = Table(name="storage_pool_details", key="detail_id")


# --- what tenants own -------------------------------------------------------------------------


class Template(Row, kw_only=True):
    TABLE: ClassVar[Table] = Table(name="template", key="template_id")
    template_id: str
    account_id: str
    name: str
    url: str  # scrubbed: user info and query never reach this column
    format: ImageFormat
    scope: Scope
    public: bool
    state: ResourceState
    created_at: datetime
    size_bytes: int | None = None
    virtual_size_bytes: int | None = None
    checksum: Checksum | None = None
    error: Problem | None = None
    job_id: str | None = None
    source_query: bytes | None = None  # AES-256-GCM sealed, as long as the registering job runs


class Volume(Row, kw_only=True):
    TABLE: ClassVar[Table] = Table(name="volume", key="volume_id")
    volume_id: str
    account_id: str
    name: str
    zone_id: str
    store_id: str
    format: ImageFormat
    size_bytes: int  # virtual
    reserved_bytes: int  # what its pool's used_bytes counts for it
    state: ResourceState
    created_at: datetime
    path: str | None = None
    digest_root: str | None = None
    epoch: int = 0
    template_id: str | None = None
    snapshot_id: str | None = None
    error: Problem | None = None
    job_id: str | None = None


class Snapshot(Row, kw_only=True):
    TABLE: ClassVar[Table] = Table(name="snapshot", key="snapshot_id")
    snapshot_id: str
    account_id: str
    name: str
    volume_id: str
    zone_id: str  # of the volume
    pool_id: str  # the storage pool that holds, or held, the pinned generation
    format: ImageFormat
    size_bytes: int
    state: ResourceState
    created_at: datetime
    pinned: bool = True  # the pool may still keep the generation
    digest_root: str | None = None
    error: Problem | None = None
    job_id: str | None = None


# --- the catalogue: one row per copy ------------------------------------------------------------


class StoreRef(Row, kw_only=True):
    """One copy on one image store. Bytes become visible by `state` and `stored` only, and the
    epoch says which attempt wrote them.
    """

    OWNER: ClassVar[str]  # column that names the template, snapshot or volume
    ref_id: str  # <owner id>.<store_id>
    store_id: str
    zone_id: str | None
    state: CopyState
    prefix: str
    created_at: datetime
    updated_at: datetime
    stored: StoredObject | None = None
    digest_root: str | None = None
    checksum: Checksum | None = None
    size_bytes: int | None = None  # logical
    physical_size_bytes: int = 0
    epoch: int = 0
    transfer_id: str | None = None
    job_id: str | None = None
    error: Problem | None = None


class TemplateStoreRef(StoreRef, kw_only=True):
    TABLE: ClassVar[Table] = Table(name="template_store_ref", key="ref_id")
    OWNER: ClassVar[str] = "template_id"
    template_id: str


class SnapshotStoreRef(StoreRef, kw_only=True):
    TABLE: ClassVar[Table] = Table(name="snapshot_store_ref", key="ref_id")
    OWNER: ClassVar[str] = "snapshot_id"
    snapshot_id: str


class VolumeStoreRef(StoreRef, kw_only=True):
    TABLE: ClassVar[Table] = Table(name="volume_store_ref", key="ref_id")
    OWNER: ClassVar[str] = "volume_id"
    volume_id: str


# --- jobs ---------------------------------------------------------------------------------------


class Job(Row, kw_only=True):
    TABLE: ClassVar[Table] = Table(name="job", key="job_id")
    job_id: str
    account_id: str
    kind: str
    resource_id: str
    request_digest: str  # of the command: tells a repeat from a misuse of the id
    state: JobState
    saga: Saga
    created_at: datetime
    finished_at: datetime | None = None
    transfer_ids: tuple[str, ...] = ()
    error: Problem | None = None
    link: Sealed | None = None
    rung_at: datetime  # when its open transfers were last asked for
    rings: int = 0  # how often they were asked for again without an answer


class Hold(Row, kw_only=True):
    """A live job's claim on a resource: one exclusive holder, or any number of readers."""

    TABLE: ClassVar[Table] = Table(name="hold", key="hold_id")
    hold_id: str  # <resource_id>.<job_id>
    resource_id: str
    job_id: str
    kind: str  # of the job, for the refusal's text
    exclusive: bool


class Setting(Row, kw_only=True):
    TABLE: ClassVar[Table] = Table(name="setting", key="name")
    name: str
    value: str
    updated_at: datetime


class Latch(Row, kw_only=True):
    """A row to lock when a rule spans rows that do not exist yet."""

    TABLE: ClassVar[Table] = Table(name="latch", key="name")
    name: str
