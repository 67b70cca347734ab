"""What can happen to a transfer (stimuli) and what must be done about it (instructions)."""

from datetime import datetime

from msgspec import Struct

from entrepot_contracts.errors import Problem
from entrepot_contracts.motion import BidView, Result, TransferFailed, TransferSucceeded
from entrepot_plugin.ports import Leg
from motion_engine.rows import Transfer

# --- stimuli ----------------------------------------------------------------------------------


class Planned(Struct, frozen=True, kw_only=True):
    strategy: str
    bids: tuple[BidView, ...]
    legs: tuple[Leg, ...]
    needs: tuple[str, ...]
    zones: tuple[str, ...]


class Unplannable(Struct, frozen=True, kw_only=True):
    bids: tuple[BidView, ...]
    problem: Problem


class Claimed(Struct, frozen=True, kw_only=True):
    """A mover took it: queued work, or work whose holder let the lease run out."""

    mover_id: str
    boot_id: str
    now: datetime
    lease_s: float


class Verifying(Struct, frozen=True, kw_only=True):
    epoch: int


class Succeeded(Struct, frozen=True, kw_only=True):
    epoch: int
    result: Result
    now: datetime


class Faltered(Struct, frozen=True, kw_only=True):
    """The holder met a problem; a retryable one waits `delay_s` before the next attempt."""

    epoch: int
    problem: Problem
    now: datetime
    delay_s: float


class Released(Struct, frozen=True, kw_only=True):
    """Handed back undone by a drain: the attempt is not counted."""

    epoch: int
    now: datetime


class Evicted(Struct, frozen=True, kw_only=True):
    """The process that held it is known to be gone; whatever it still says is fenced."""

    boot_id: str
    now: datetime


class LeaseExpired(Struct, frozen=True, kw_only=True):
    """Seen by the sweeper, for work nobody may claim again."""

    now: datetime


class RetryDue(Struct, frozen=True, kw_only=True):
    pass


class CancelAsked(Struct, frozen=True, kw_only=True):
    reason: str
    now: datetime


Stimulus = (
    Planned
    | Unplannable
    | Claimed
    | Verifying
    | Succeeded
    | Faltered
    | Released
    | Evicted
    | LeaseExpired
    | RetryDue
    | CancelAsked
)


# --- instructions -----------------------------------------------------------------------------


class Announce(Struct, frozen=True, kw_only=True):
    """Tell the world, in the same transaction; happens once in the life of a transfer."""

    event: TransferSucceeded | TransferFailed


class Park(Struct, frozen=True, kw_only=True):
    """Lay the quarantined transfer and its story into dead_letter."""

    why: str


class Ring(Struct, frozen=True, kw_only=True):
    """There may be something to claim."""


Instruction = Announce | Park | Ring
Outcome = tuple[Transfer, tuple[Instruction, ...]]
