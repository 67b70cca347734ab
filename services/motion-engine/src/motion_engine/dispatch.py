"""Which ready transfers a mover gets: class, fair shares by bytes, due time, caps. Pure.

Classes are strict: interactive, template, batch. Inside a class, accounts are served by
start-time fair queuing, which does what deficit round robin does without a ring to keep: every
account has a tag, the bytes it was served; the lowest tag goes next and grows by the bytes it
takes. An account that was idle enters at the tag served last, so idleness saves up nothing.
Inside an account, due time decides.
"""

import heapq
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from msgspec import Struct

from entrepot_contracts.values import WorkClass

WEIGHT_UNKNOWN_BYTES = 256 << 20
WEIGHT_MIN_BYTES = 1 << 20  # work that moves nothing costs something too


class Candidate(Struct, frozen=True, kw_only=True):
    transfer_id: str
    account_id: str
    work_class: WorkClass
    order_at: datetime
    size_bytes: int | None
    zone_id: str | None
    store_ids: tuple[str, ...]

    @property
    def weight_bytes(self) -> int:
        if self.size_bytes is None:
            return WEIGHT_UNKNOWN_BYTES
        return max(self.size_bytes, WEIGHT_MIN_BYTES)


class Held(Struct, frozen=True, kw_only=True):
    """A transfer under a live lease, as caps count it."""

    account_id: str
    zone_id: str | None
    store_ids: tuple[str, ...]
    mover_id: str


class Caps(Struct, frozen=True, kw_only=True):
    """How many transfers may run at once, per what."""

    account: int
    store: int
    zone: int


class Full(Struct, frozen=True, kw_only=True):
    """What has reached its cap already: its work need not be looked at."""

    accounts: frozenset[str] = frozenset()
    stores: frozenset[str] = frozenset()
    zones: frozenset[str] = frozenset()


class Choice(Struct, frozen=True, kw_only=True):
    transfer_ids: tuple[str, ...]
    shares: dict[str, int]  # tags that changed


def share_id(work_class: WorkClass, account_id: str) -> str:
    """Key of an account's tag; with an empty account, of the tag served last in the class."""
    return f"{work_class.value}/{account_id}"


def share_ids(candidates: Iterable[Candidate]) -> frozenset[str]:
    classes = [(c.work_class, account) for c in candidates for account in (c.account_id, "")]
    return frozenset(share_id(*pair) for pair in classes)


def full(held: Sequence[Held], caps: Caps) -> Full:
    accounts = Counter(one.account_id for one in held)
    zones = Counter(one.zone_id for one in held if one.zone_id is not None)
    stores = Counter(store for one in held for store in one.store_ids)
    return Full(
        accounts=frozenset(key for key, n in accounts.items() if n >= caps.account),
        stores=frozenset(key for key, n in stores.items() if n >= caps.store),
        zones=frozenset(key for key, n in zones.items() if n >= caps.zone),
    )


def choose(
    candidates: Sequence[Candidate],
    held: Sequence[Held],
    shares: Mapping[str, int],
    *,
    mover_id: str,
    slots: int,
    free_slots: int,
    caps: Caps,
) -> Choice:
    """Up to `free_slots` candidates, in order of merit."""
    room = _Room(held, caps)
    wanted = min(free_slots, slots - sum(1 for one in held if one.mover_id == mover_id))
    picked: list[str] = []
    changed: dict[str, int] = {}
    for work_class in WorkClass:
        ready = [one for one in candidates if one.work_class == work_class]
        picked += _serve_class(
            work_class,
            ready,
            shares=shares,
            changed=changed,
            room=room,
            wanted=wanted - len(picked),
        )
    return Choice(transfer_ids=tuple(picked), shares=changed)


def _serve_class(
    work_class: WorkClass,
    ready: Sequence[Candidate],
    *,
    shares: Mapping[str, int],
    changed: dict[str, int],
    room: "_Room",
    wanted: int,
) -> list[str]:
    lines = _lines(ready)
    clock_id = share_id(work_class, "")
    clock = shares.get(clock_id, 0)
    tags = [
        (max(shares.get(share_id(work_class, account), 0), clock), account) for account in lines
    ]
    heapq.heapify(tags)
    picked: list[str] = []
    while tags and len(picked) < wanted:
        tag, account = heapq.heappop(tags)
        candidate = _next_fitting(lines[account], room)
        if candidate is None:
            continue
        room.take(candidate)
        picked.append(candidate.transfer_id)
        clock = max(clock, tag)
        after = tag + candidate.weight_bytes
        changed[clock_id] = clock
        changed[share_id(work_class, account)] = after
        heapq.heappush(tags, (after, account))
    return picked


def _lines(ready: Sequence[Candidate]) -> dict[str, deque[Candidate]]:
    lines: dict[str, deque[Candidate]] = {}
    for candidate in sorted(ready, key=lambda one: (one.order_at, one.transfer_id)):
        lines.setdefault(candidate.account_id, deque()).append(candidate)
    return lines


def _next_fitting(line: deque[Candidate], room: "_Room") -> Candidate | None:
    """Room only shrinks while we choose: what does not fit now will not fit later."""
    while line:
        candidate = line.popleft()
        if room.fits(candidate):
            return candidate
    return None


class _Room:
    """What the caps leave."""

    def __init__(self, held: Sequence[Held], caps: Caps) -> None:
        self._caps = caps
        self._accounts = Counter(one.account_id for one in held)
        self._zones = Counter(one.zone_id for one in held)
        self._stores = Counter(store for one in held for store in one.store_ids)

    def fits(self, candidate: Candidate) -> bool:
        return (
            self._accounts[candidate.account_id] < self._caps.account
            and (candidate.zone_id is None or self._zones[candidate.zone_id] < self._caps.zone)
            and all(self._stores[store] < self._caps.store for store in candidate.store_ids)
        )

    def take(self, candidate: Candidate) -> None:
        self._accounts[candidate.account_id] += 1
        self._zones[candidate.zone_id] += 1
        self._stores.update(candidate.store_ids)
