"""Messages owned by cache-manager: cache pools, leases, entries."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from entrepot_contracts.ids import Id
from entrepot_contracts.values import (
    Actor,
    Bytes,
    ContentDigest,
    ImageFormat,
    Name,
    Scope,
    StoreSpec,
)


class PoolView(Struct, frozen=True, kw_only=True, tag="cache.pool.v1"):
    pool_id: Id
    name: Name
    scope: Scope
    zone_id: Id
    store: StoreSpec
    capacity_bytes: Bytes
    used_bytes: Bytes
    leases: int
    draining: bool = False


class AddPool(Struct, frozen=True, kw_only=True, tag="cache.pool.add.v1"):
    """A cache pool is a store without secrets (directory or NFS mount) at zone, pod or cluster."""

    actor: Actor
    pool_id: Id
    name: Name
    scope: Scope
    zone_id: Id
    store: StoreSpec
    capacity_bytes: Annotated[int, Meta(ge=1)]


class ListPools(Struct, frozen=True, kw_only=True, tag="cache.pool.list.v1"):
    actor: Actor


class PoolList(Struct, frozen=True, kw_only=True, tag="cache.pools.v1"):
    items: tuple[PoolView, ...]


class RemovePool(Struct, frozen=True, kw_only=True, tag="cache.pool.remove.v1"):
    actor: Actor
    pool_id: Id


class PoolGone(Struct, frozen=True, kw_only=True, tag="cache.pool.gone.v1"):
    pool_id: Id


class Purpose(StrEnum):
    """Purpose decides residency: only `reuse` competes for space after its lease ends."""

    REUSE = "reuse"
    STAGE_OUT = "stage-out"
    STAGE_IN_ONCE = "stage-in-once"
    RESTORE_SET = "restore-set"


class EntryState(StrEnum):
    RESERVED = "reserved"
    FILLING = "filling"
    READY = "ready"
    EVICTING = "evicting"
    GONE = "gone"
    FAILED = "failed"


class AcquireLease(Struct, frozen=True, kw_only=True, tag="cache.lease.acquire.v1"):
    """Ask for a place (or an existing copy) of one object in one zone.

    One filler per object and zone: the first holder is told to fill, the others to wait.
    """

    lease_id: Id
    holder: Name
    purpose: Purpose
    zone_id: Id
    digest: ContentDigest
    format: ImageFormat
    ttl_s: Annotated[float, Meta(gt=0, le=3600)] = 60


class LeaseRole(StrEnum):
    FILL = "fill"
    WAIT = "wait"
    USE = "use"


class LeaseView(Struct, frozen=True, kw_only=True, tag="cache.lease.v1"):
    lease_id: Id
    entry_id: Id
    pool_id: Id
    store: StoreSpec
    key: str
    role: LeaseRole
    epoch: int  # of the fill
    expires_at: datetime
    reason: str  # why this pool


class RenewLease(Struct, frozen=True, kw_only=True, tag="cache.lease.renew.v1"):
    lease_id: Id
    ttl_s: Annotated[float, Meta(gt=0, le=3600)] = 60


class ReleaseLease(Struct, frozen=True, kw_only=True, tag="cache.lease.release.v1"):
    lease_id: Id


class LeaseReleased(Struct, frozen=True, kw_only=True, tag="cache.lease.released.v1"):
    lease_id: Id


class ReportFill(Struct, frozen=True, kw_only=True, tag="cache.fill.report.v1"):
    """The filler's verdict, with its epoch; only a verified copy becomes ready."""

    entry_id: Id
    epoch: int
    digest: ContentDigest | None = None  # None: the fill failed
    reason: str = ""


class FillNoted(Struct, frozen=True, kw_only=True, tag="cache.fill.noted.v1"):
    entry_id: Id
    state: EntryState


class EntryChanged(Struct, frozen=True, kw_only=True, tag="cache.entry.changed.v1"):
    entry_id: Id
    pool_id: Id
    state: EntryState
    at: datetime
