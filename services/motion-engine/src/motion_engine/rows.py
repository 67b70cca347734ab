"""What motion-engine keeps: transfers, movers, shares of claimed bytes, measured rates."""

from datetime import datetime
from typing import Any, ClassVar

from entrepot_chassis.ports import Row, Table
from entrepot_contracts.errors import Problem
from entrepot_contracts.ids import Id
from entrepot_contracts.motion import BidView, ProviderFact, Result, TransferAsk, TransferState
from entrepot_contracts.values import WorkClass
from entrepot_plugin.ports import Leg

TERMINAL = frozenset(
    {
        TransferState.DONE,
        TransferState.FAILED,
        TransferState.QUARANTINED,
        TransferState.CANCELLED,
    }
)
HELD = frozenset({TransferState.RUNNING, TransferState.VERIFYING})


class Transfer(Row, kw_only=True):
    """One piece of work. `version` counts its transitions; `epoch` its claims.

    `strategy` empty means not planned: no mover can reach it yet, `problem` says why.
    `needs`, `zones`: what a mover must offer. `order_at`: due time, given or derived from age.
    """

    TABLE: ClassVar[Table] = Table(name="transfer", key="transfer_id")

    transfer_id: Id
    account_id: Id
    job_id: Id
    kind: str
    work_class: WorkClass
    ask: TransferAsk
    attempts_max: int
    created_at: datetime
    order_at: datetime
    zone_id: Id | None = None  # where its load counts
    store_ids: tuple[Id, ...] = ()
    rate_pair: str = ""
    size_bytes: int | None = None
    state: TransferState = TransferState.QUEUED
    version: int = 0
    epoch: int = 0
    attempts: int = 0
    strategy: str = ""
    bids: tuple[BidView, ...] = ()
    legs: tuple[Leg, ...] = ()
    needs: tuple[str, ...] = ()
    zones: tuple[Id, ...] = ()
    mover_id: Id | None = None
    boot_id: Id | None = None
    lease_until: datetime | None = None
    claimed_at: datetime | None = None
    not_before: datetime | None = None
    cancel_requested: bool = False
    upload_key: str = ""
    resume: str | None = None
    facts: dict[str, Any] = {}  # noqa: RUF012 - msgspec copies defaults per instance
    bytes_done: int = 0
    bytes_total: int | None = None
    parts_done: int = 0
    bytes_resent: int = 0
    finished_at: datetime | None = None
    result: Result | None = None
    problem: Problem | None = None


class Mover(Row, kw_only=True):
    """A mover as it last announced itself."""

    TABLE: ClassVar[Table] = Table(name="mover", key="mover_id")

    mover_id: Id
    boot_id: Id
    zone_ids: tuple[Id, ...]
    labels: dict[str, str]
    slots: int
    public_key: str
    providers: tuple[ProviderFact, ...]
    version: str
    registered_at: datetime  # of this boot
    seen_at: datetime


class Share(Row, kw_only=True):
    """How far one account has been served inside one work class (see dispatch.py)."""

    TABLE: ClassVar[Table] = Table(name="share", key="share_id")

    share_id: str
    served_bytes: int


class Rate(Row, kw_only=True):
    """Measured bytes per second between two providers, as a moving average."""

    TABLE: ClassVar[Table] = Table(name="rate", key="pair")

    pair: str
    rate_bps: float
    samples: int


class EarlyCancel(Row, kw_only=True):
    """A cancellation that came before its request: the request must not run when it comes."""

    TABLE: ClassVar[Table] = Table(name="early_cancel", key="transfer_id")

    transfer_id: Id
    reason: str
    at: datetime
