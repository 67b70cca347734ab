"""Messages owned by store-registry: inventory, stores, templates, volumes, snapshots, jobs."""

from datetime import datetime
from typing import Annotated, Any

from msgspec import Meta, Struct

from entrepot_contracts.errors import Problem
from entrepot_contracts.ids import Id
from entrepot_contracts.motion import TransferAsk
from entrepot_contracts.values import (
    Actor,
    Bytes,
    Checksum,
    CopyState,
    ImageFormat,
    JobState,
    Name,
    ProbeReport,
    ResourceState,
    Scope,
    Sealed,
    StoredObject,
    StoreRole,
    StoreState,
)

PageLimit = Annotated[int, Meta(ge=1, le=500)]
ExpiresS = Annotated[int, Meta(ge=1, le=7 * 86400)]


class Accepted(Struct, frozen=True, kw_only=True, tag="registry.accepted.v1"):
    """The intent is committed; follow the job."""

    job_id: Id
    resource_id: Id


class Done(Struct, frozen=True, kw_only=True, tag="registry.done.v1"):
    """Done, or was done already."""


class Page(Struct, frozen=True, kw_only=True):
    """Cursor paging: `after` is the id of the last row seen."""

    after: Id | None = None
    limit: PageLimit = 100


# --- zones -----------------------------------------------------------------------------------


class ZoneView(Struct, frozen=True, kw_only=True, tag="registry.zone.v1"):
    zone_id: Id
    name: Name
    region: Name


class CreateZone(Struct, frozen=True, kw_only=True, tag="registry.zone.create.v1"):
    actor: Actor
    zone_id: Id
    name: Name
    region: Name = "default"


class ListZones(Struct, frozen=True, kw_only=True, tag="registry.zone.list.v1"):
    actor: Actor
    page: Page = Page()


class ZoneList(Struct, frozen=True, kw_only=True, tag="registry.zones.v1"):
    items: tuple[ZoneView, ...]


# --- providers and stores -------------------------------------------------------------------


class ProviderView(Struct, frozen=True, kw_only=True, tag="registry.provider.v1"):
    """A store provider as movers announced it; `config_schema` is JSON Schema with x-ui hints."""

    name: str
    version: str
    roles: tuple[StoreRole, ...]
    scopes: tuple[Scope, ...]
    traits: dict[str, Any]
    config_schema: dict[str, Any]


class ListProviders(Struct, frozen=True, kw_only=True, tag="registry.provider.list.v1"):
    actor: Actor


class ProviderList(Struct, frozen=True, kw_only=True, tag="registry.providers.v1"):
    items: tuple[ProviderView, ...]


class StoreView(Struct, frozen=True, kw_only=True, tag="registry.store.v1"):
    """A store of any role; secrets are absent from `config`."""

    store_id: Id
    role: StoreRole
    name: Name
    provider: str
    scope: Scope
    zone_id: Id | None
    region: Name
    state: StoreState
    config: dict[str, Any]
    read_only: bool = False
    capacity_bytes: int | None = None
    used_bytes: int = 0
    report: ProbeReport | None = None
    job_id: Id | None = None


class AddStore(Struct, frozen=True, kw_only=True, tag="registry.store.add.v1"):
    """Add an image or primary store; Up only after a mover's probe.

    `details` is the JSON object of the provider's config, secrets included, sealed by the gateway
    to the registry's key: credentials never ride NATS in the clear.
    Zone-wide stores need `zone_id`; region-wide ones forbid it.
    """

    actor: Actor
    store_id: Id
    job_id: Id
    role: StoreRole
    name: Name
    provider: Name
    details: Sealed
    zone_id: Id | None = None
    region: Name = "default"
    read_only: bool = False


class ListStores(Struct, frozen=True, kw_only=True, tag="registry.store.list.v1"):
    actor: Actor
    role: StoreRole
    page: Page = Page()


class StoreList(Struct, frozen=True, kw_only=True, tag="registry.stores.v1"):
    items: tuple[StoreView, ...]


class DeleteStore(Struct, frozen=True, kw_only=True, tag="registry.store.delete.v1"):
    """Refused with code in_use, the blockers' ids in facts, while anything lives there."""

    actor: Actor
    store_id: Id


class GetSealingKey(Struct, frozen=True, kw_only=True, tag="registry.sealing_key.get.v1"):
    """Ask for the public key that AddStore.details must be sealed to."""


class SealingKey(Struct, frozen=True, kw_only=True, tag="registry.sealing_key.v1"):
    public_key: str  # base64 of a raw X25519 public key


class SealCredentials(Struct, frozen=True, kw_only=True, tag="registry.credentials.seal.v1"):
    """Asked by motion-engine while it answers a claim: secrets for one mover's key.

    `store_ids` are ids of stores, and of templates whose source has a query (UrlEnd.secret_id).
    """

    store_ids: tuple[Id, ...]
    recipient: str


class SealedCredentials(Struct, frozen=True, kw_only=True, tag="registry.credentials.v1"):
    """Per id, a JSON object sealed to the recipient: the secret config fields of a store, or
    {"query": ...} of a template's source.
    """

    items: dict[Id, Sealed]


# --- templates ------------------------------------------------------------------------------


class CopyView(Struct, frozen=True, kw_only=True):
    """One copy of a template or snapshot on one store."""

    store_id: Id
    zone_id: Id | None
    state: CopyState
    stored: StoredObject | None = None
    error: Problem | None = None


class TemplateView(Struct, frozen=True, kw_only=True, tag="registry.template.v1"):
    template_id: Id
    account_id: Id
    name: Name
    url: str  # userinfo and query scrubbed
    format: ImageFormat
    scope: Scope
    public: bool
    state: ResourceState
    created_at: datetime
    copies: tuple[CopyView, ...]
    size_bytes: int | None = None
    virtual_size_bytes: int | None = None
    checksum: Checksum | None = None
    error: Problem | None = None
    job_id: Id | None = None


class RegisterTemplate(Struct, frozen=True, kw_only=True, tag="registry.template.register.v1"):
    """Scope region: one copy on a region-wide store. Scope zone: one copy per listed zone.

    Signed URLs never ride NATS: `url` has no query; its text, if there is one, comes in `query`,
    sealed to the registry's key.
    """

    actor: Actor
    template_id: Id
    job_id: Id
    name: Name
    url: Annotated[str, Meta(min_length=1, max_length=2048)]
    format: ImageFormat
    scope: Scope = Scope.REGION
    zone_ids: tuple[Id, ...] = ()
    checksum: Checksum | None = None
    public: bool = False
    query: Sealed | None = None


class GetTemplate(Struct, frozen=True, kw_only=True, tag="registry.template.get.v1"):
    actor: Actor
    template_id: Id


class ListTemplates(Struct, frozen=True, kw_only=True, tag="registry.template.list.v1"):
    actor: Actor
    page: Page = Page()


class TemplateList(Struct, frozen=True, kw_only=True, tag="registry.templates.v1"):
    items: tuple[TemplateView, ...]


class DeleteTemplate(Struct, frozen=True, kw_only=True, tag="registry.template.delete.v1"):
    actor: Actor
    template_id: Id
    job_id: Id


class ExtractTemplate(Struct, frozen=True, kw_only=True, tag="registry.template.extract.v1"):
    """Make an expiring link; the job's result holds it sealed to `seal_to` (the gateway's key)."""

    actor: Actor
    template_id: Id
    job_id: Id
    seal_to: str
    zone_id: Id | None = None
    expires_s: ExpiresS = 3600


# --- volumes --------------------------------------------------------------------------------


class VolumeView(Struct, frozen=True, kw_only=True, tag="registry.volume.v1"):
    volume_id: Id
    account_id: Id
    name: Name
    zone_id: Id
    store_id: Id
    format: ImageFormat
    size_bytes: Bytes  # virtual size
    state: ResourceState
    created_at: datetime
    path: str | None = None  # where the pool keeps it; admins only
    digest_root: str | None = None  # of the generation that was written by us
    template_id: Id | None = None
    snapshot_id: Id | None = None
    error: Problem | None = None
    job_id: Id | None = None


class CreateVolume(Struct, frozen=True, kw_only=True, tag="registry.volume.create.v1"):
    """From a template, from a snapshot, or blank with `size_bytes`: exactly one of the three."""

    actor: Actor
    volume_id: Id
    job_id: Id
    name: Name
    zone_id: Id
    store_id: Id | None = None  # None: placed by free space within the zone
    template_id: Id | None = None
    snapshot_id: Id | None = None
    size_bytes: Annotated[int, Meta(ge=512, le=1 << 46)] | None = None


class GetVolume(Struct, frozen=True, kw_only=True, tag="registry.volume.get.v1"):
    actor: Actor
    volume_id: Id


class ListVolumes(Struct, frozen=True, kw_only=True, tag="registry.volume.list.v1"):
    actor: Actor
    page: Page = Page()


class VolumeList(Struct, frozen=True, kw_only=True, tag="registry.volumes.v1"):
    items: tuple[VolumeView, ...]


class DeleteVolume(Struct, frozen=True, kw_only=True, tag="registry.volume.delete.v1"):
    actor: Actor
    volume_id: Id
    job_id: Id


# --- snapshots ------------------------------------------------------------------------------


class SnapshotView(Struct, frozen=True, kw_only=True, tag="registry.snapshot.v1"):
    snapshot_id: Id
    account_id: Id
    name: Name
    volume_id: Id
    format: ImageFormat
    size_bytes: Bytes  # virtual size of the volume at that generation
    state: ResourceState
    created_at: datetime
    copies: tuple[CopyView, ...]
    digest_root: str | None = None  # content digest of the pinned generation
    error: Problem | None = None
    job_id: Id | None = None


class CreateSnapshot(Struct, frozen=True, kw_only=True, tag="registry.snapshot.create.v1"):
    """Pin the volume's generation, then back it up to an image store the zone can use."""

    actor: Actor
    snapshot_id: Id
    job_id: Id
    volume_id: Id
    name: Name
    store_id: Id | None = None  # image store; None: placed


class GetSnapshot(Struct, frozen=True, kw_only=True, tag="registry.snapshot.get.v1"):
    actor: Actor
    snapshot_id: Id


class ListSnapshots(Struct, frozen=True, kw_only=True, tag="registry.snapshot.list.v1"):
    actor: Actor
    page: Page = Page()


class SnapshotList(Struct, frozen=True, kw_only=True, tag="registry.snapshots.v1"):
    items: tuple[SnapshotView, ...]


class DeleteSnapshot(Struct, frozen=True, kw_only=True, tag="registry.snapshot.delete.v1"):
    actor: Actor
    snapshot_id: Id
    job_id: Id


# --- jobs -----------------------------------------------------------------------------------


class JobView(Struct, frozen=True, kw_only=True, tag="registry.job.v1"):
    """One asynchronous API call. `link` is sealed to the key the caller gave."""

    job_id: Id
    account_id: Id
    kind: str  # template.register, volume.create, ...
    resource_id: Id
    state: JobState
    created_at: datetime
    finished_at: datetime | None = None
    step: str = ""  # name of the step that runs now
    bytes_done: int = 0
    bytes_total: int | None = None
    transfer_ids: tuple[Id, ...] = ()
    error: Problem | None = None
    link: Sealed | None = None


class GetJob(Struct, frozen=True, kw_only=True, tag="registry.job.get.v1"):
    """Answers when the job has ended, or after `wait_s` with where it stands."""

    actor: Actor
    job_id: Id
    wait_s: Annotated[float, Meta(ge=0, le=25)] = 0


class ListJobs(Struct, frozen=True, kw_only=True, tag="registry.job.list.v1"):
    actor: Actor
    page: Page = Page()


class JobList(Struct, frozen=True, kw_only=True, tag="registry.jobs.v1"):
    items: tuple[JobView, ...]


# --- settings -------------------------------------------------------------------------------


class GetSettings(Struct, frozen=True, kw_only=True, tag="registry.setting.list.v1"):
    actor: Actor


class PutSetting(Struct, frozen=True, kw_only=True, tag="registry.setting.put.v1"):
    actor: Actor
    name: Name
    value: Annotated[str, Meta(max_length=4096)]


class SettingView(Struct, frozen=True, kw_only=True):
    name: str
    value: str
    default: str
    help: str


class SettingList(Struct, frozen=True, kw_only=True, tag="registry.settings.v1"):
    items: tuple[SettingView, ...]


# --- events ---------------------------------------------------------------------------------


class MotionRequested(Struct, frozen=True, kw_only=True, tag="registry.motion.requested.v1"):
    """Bytes must move (or be probed, linked, deleted): motion-engine plans and runs it."""

    ask: TransferAsk


class MotionCancelled(Struct, frozen=True, kw_only=True, tag="registry.motion.cancelled.v1"):
    transfer_id: Id
    reason: str = ""


class StoreChanged(Struct, frozen=True, kw_only=True, tag="registry.store.changed.v1"):
    store_id: Id
    role: StoreRole
    state: StoreState
    at: datetime


class TemplateChanged(Struct, frozen=True, kw_only=True, tag="registry.template.changed.v1"):
    template_id: Id
    account_id: Id
    state: ResourceState
    at: datetime


class VolumeChanged(Struct, frozen=True, kw_only=True, tag="registry.volume.changed.v1"):
    volume_id: Id
    account_id: Id
    state: ResourceState
    at: datetime


class SnapshotChanged(Struct, frozen=True, kw_only=True, tag="registry.snapshot.changed.v1"):
    snapshot_id: Id
    account_id: Id
    state: ResourceState
    at: datetime


class JobChanged(Struct, frozen=True, kw_only=True, tag="registry.job.changed.v1"):
    job_id: Id
    account_id: Id
    kind: str
    resource_id: Id
    state: JobState
    at: datetime
    error: Problem | None = None
