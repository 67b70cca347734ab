"""Messages owned by autoscaler: load samples in, decisions and transfer VM states out."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from entrepot_contracts.ids import Id
from entrepot_contracts.values import Actor, WorkClass


class DueBucket(Struct, frozen=True, kw_only=True):
    due_in_s: float
    bytes: int


class ClassLoad(Struct, frozen=True, kw_only=True):
    """Load of one work class. Unknown sizes are counted in `unknown_n`, never as zero bytes."""

    work_class: WorkClass
    queued_n: int
    queued_bytes: int
    running_n: int
    remaining_bytes: int
    oldest_wait_s: float
    unknown_n: int = 0
    due: tuple[DueBucket, ...] = ()


class WorkerLoad(Struct, frozen=True, kw_only=True):
    mover_id: Id
    slots: int
    running: int
    age_s: float


class LoadSample(Struct, frozen=True, kw_only=True, tag="fleet.load.v1"):
    """Telemetry: every 5 s per zone, from the transfer ledger."""

    zone_id: Id | None
    source: str
    epoch: int
    seq: int
    observed_at: datetime
    interval_s: float
    complete: bool
    by_class: tuple[ClassLoad, ...]
    workers: tuple[WorkerLoad, ...]


class Mode(StrEnum):
    ACTIVE = "active"
    SHADOW = "shadow"
    PAUSED_IN = "paused-in"
    PAUSED_OUT = "paused-out"
    FROZEN = "frozen"


class PoolView(Struct, frozen=True, kw_only=True, tag="fleet.pool.v1"):
    pool_id: Id
    zone_id: Id
    strategy: str
    mode: Mode
    vms_min: int
    vms_max: int
    desired: int
    ready: int
    last_reason: str
    sampled_at: datetime | None


class PutPool(Struct, frozen=True, kw_only=True, tag="fleet.pool.put.v1"):
    """Create or change the scaling pool of a zone."""

    actor: Actor
    pool_id: Id
    zone_id: Id
    strategy: str = "fixed"
    mode: Mode = Mode.SHADOW
    vms_min: Annotated[int, Meta(ge=0, le=1000)] = 0
    vms_max: Annotated[int, Meta(ge=0, le=1000)] = 1


class ListPools(Struct, frozen=True, kw_only=True, tag="fleet.pool.list.v1"):
    actor: Actor


class PoolList(Struct, frozen=True, kw_only=True, tag="fleet.pools.v1"):
    items: tuple[PoolView, ...]


class Decided(Struct, frozen=True, kw_only=True, tag="fleet.pool.decided.v1"):
    """One decision with its terms: proposal, clamps by name, what came out."""

    pool_id: Id
    zone_id: Id
    at: datetime
    strategy: str
    proposed: int
    desired: int
    clamps: tuple[str, ...]
    reason: str
