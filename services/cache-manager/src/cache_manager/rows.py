"""What cache-manager keeps: pools, entries (one copy of one object in one pool), leases."""

from datetime import datetime
from typing import ClassVar

from entrepot_chassis.ports import Row, Table
from entrepot_contracts.cache import EntryState, LeaseRole, Purpose
from entrepot_contracts.values import ContentDigest, ImageFormat, Scope, StoreSpec


class PoolRow(Row, kw_only=True):
    TABLE: ClassVar[Table] = Table(name="pool", key="pool_id")

    pool_id: str
    name: str
    scope: Scope
    zone_id: str
    store: StoreSpec
    capacity_bytes: int
    draining: bool = False


class EntryRow(Row, kw_only=True):
    """`live_key` is unique among live entries of a zone: it makes fills single-flight."""

    TABLE: ClassVar[Table] = Table(name="entry", key="entry_id")

    entry_id: str
    pool_id: str
    zone_id: str
    live_key: str | None  # "<zone>/<digest root>/<format>"; None once gone or failed
    digest: ContentDigest
    format: ImageFormat
    key: str
    state: EntryState
    fill_epoch: int = 1
    filler: str | None = None  # lease that fills
    uses: int = 0
    last_use_at: datetime | None = None
    reason: str = ""


class LeaseRow(Row, kw_only=True):
    """Counts while `expires_at` lies ahead of the database's clock; crash cleanup is expiry."""

    TABLE: ClassVar[Table] = Table(name="lease", key="lease_id")

    lease_id: str
    entry_id: str
    holder: str
    purpose: Purpose
    role: LeaseRole
    expires_at: datetime
    released: bool = False
