"""The ledger: what a store of transfers must do beyond plain rows, and how strictly.

Plain reads (one transfer, a page of them, movers) go through the Transaction itself. Every method
works inside the caller's transaction. Two implementations pass one contract suite: PostgresLedger
here, MemoryLedger in testkit for the simulation.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from msgspec import Struct

from entrepot_chassis.ports import Transaction
from entrepot_contracts.motion import PartRecord, TransferState
from entrepot_contracts.values import WorkClass
from motion_engine.dispatch import Candidate, Full, Held
from motion_engine.rows import Transfer


class NotHeld(Exception):
    """A fenced write found no transfer held under this epoch; nothing was written."""

    def __init__(self, transfer_id: str, epoch: int) -> None:
        super().__init__(f"transfer {transfer_id} is not held under epoch {epoch}")
        self.transfer_id = transfer_id
        self.epoch = epoch


class Reach(Struct, frozen=True, kw_only=True):
    """What a mover offers: `has` is compared with Transfer.needs, zones with Transfer.zones."""

    has: tuple[str, ...]
    zones: tuple[str, ...]  # empty: every zone


class Holder(Struct, frozen=True, kw_only=True):
    mover_id: str
    boot_id: str
    lease_s: float


class Progress(Struct, frozen=True, kw_only=True):
    """A checkpoint: `parts` are new ones; `facts` are merged over those of the same upload."""

    key: str
    resume: str | None
    parts: tuple[PartRecord, ...] = ()
    bytes_done: int = 0
    bytes_total: int | None = None
    facts: Mapping[str, Any] = {}


class LoadLine(Struct, frozen=True, kw_only=True):
    """Live work of one zone, class and due bucket. `due_in_s`: upper edge, a power of two."""

    zone_id: str | None
    work_class: WorkClass
    held: bool
    due_in_s: float
    count: int
    remaining_bytes: int
    unknown_n: int
    oldest_wait_s: float


class Claims(Protocol):
    """A round of claiming: `held`, `ready`, `claim`, end of the transaction."""

    async def held(self, tx: Transaction) -> Sequence[Held]:
        """Transfers under live leases. Opens the round: until the transaction ends no other round
        is under way anywhere, so caps and shares hold.
        """
        ...

    async def ready(
        self, tx: Transaction, reach: Reach, *, full: Full, per_account: int
    ) -> Sequence[Candidate]:
        """Claimable work within reach: queued and planned, or held under an expired lease with
        attempts left. Of queued work the first `per_account` of each account and class by
        order_at, leaving out what has reached its cap.
        """
        ...

    async def claim(
        self, tx: Transaction, transfer_ids: Sequence[str], holder: Holder
    ) -> Sequence[Transfer]:
        """One statement: those of the ids that are still claimable and not being claimed by
        another get epoch+1, attempts+1, the holder and a lease by the database's clock. In the
        order asked.
        """
        ...


class Ledger(Claims, Protocol):
    """Transfers, their parts and their history."""

    async def enqueue(self, tx: Transaction, transfer: Transfer) -> bool:
        """Add; False if the id is known already, which changes nothing."""
        ...

    async def renew(self, tx: Transaction, transfer_id: str, epoch: int, *, lease_s: float) -> bool:
        """Extend the lease; True if somebody wants the work stopped. Raises NotHeld."""
        ...

    async def checkpoint(
        self, tx: Transaction, transfer_id: str, epoch: int, progress: Progress
    ) -> None:
        """Record parts and progress. A part recorded before under another epoch or with another
        receipt counts as sent again; the same record repeated does not. Another key or resume
        token begins another upload: parts and facts of the one before are no longer offered.
        Raises NotHeld.
        """
        ...

    async def parts(
        self, tx: Transaction, transfer_ids: Sequence[str]
    ) -> dict[str, tuple[PartRecord, ...]]:
        """Parts of the present upload of each transfer, ascending; absent when there are none."""
        ...

    async def save(
        self, tx: Transaction, transfer: Transfer, *, before: Transfer, why: str
    ) -> None:
        """Write one transition (version = before.version + 1) and its line of history. Raises
        NotHeld if the stored row is not `before` any more. Progress columns are left alone.
        """
        ...

    async def story(self, tx: Transaction, transfer_id: str) -> tuple[str, ...]:
        """The history, oldest first, one line per transition."""
        ...

    async def due(self, tx: Transaction, *, limit: int) -> Sequence[str]:
        """Ids that wait for the sweeper: a retry that is due; an expired lease of exhausted or
        cancelled work.
        """
        ...

    async def load(self, tx: Transaction) -> Sequence[LoadLine]:
        """Live work by zone, class and due time."""
        ...


def line_of_story(
    *, at: datetime, epoch: int, before: TransferState | None, after: TransferState, why: str
) -> str:
    origin = before.value if before else "-"
    return f"{at:%Y-%m-%dT%H:%M:%S.%fZ} epoch {epoch}: {origin} -> {after.value} ({why})"
