"""What changed, for those who watch: a bounded ring of events, read by each watcher at its pace.

Events reach every gateway; an event's id is made of the event itself, so a watcher that comes
back, to this gateway or another, goes on after the last id it saw. One that is gone from the ring
(or was never in it) is answered with `reset`: list again, then go on watching. Progress is
telemetry: the latest per transfer wins, it has no id and is not kept.
"""

import asyncio
import hashlib
from collections import deque

import msgspec
from msgspec import Struct

from entrepot_chassis import metrics
from entrepot_contracts.motion import TransferProgress
from entrepot_contracts.registry import (
    JobChanged,
    SnapshotChanged,
    TemplateChanged,
    VolumeChanged,
)

STREAMS = metrics.gauge("entrepot_event_streams", "Event streams open now.")
RING_MAX = 4096
PROGRESS_MAX = 256  # transfers a slow watcher has unread progress of
ID_BYTES = 12

KINDS: dict[type[Struct], str] = {
    JobChanged: "job.changed",
    TemplateChanged: "template.changed",
    VolumeChanged: "volume.changed",
    SnapshotChanged: "snapshot.changed",
}
PROGRESS = "transfer.progress"
RESET = "reset"

Change = JobChanged | TemplateChanged | VolumeChanged | SnapshotChanged


class Happening(Struct, frozen=True, kw_only=True):
    """One event as a watcher gets it; `event_id` empty: not resumable."""

    event_id: str
    kind: str
    account_id: str
    data: bytes  # JSON


class Watcher:
    """One open stream: its place in the ring, its unread progress."""

    def __init__(self, ring: "EventRing", *, account_id: str | None, last_id: str | None) -> None:
        self._ring = ring
        self._account_id = account_id  # None: every account
        self._woken = asyncio.Event()
        self._progress: dict[str, Happening] = {}
        self._lost = False
        self._next = self._place(last_id)

    def _place(self, last_id: str | None) -> int:
        if not last_id:
            return self._ring.end
        seen = self._ring.position_of(last_id)
        if seen is None:
            self._lost = True
            return self._ring.end
        return seen + 1

    def wake(self) -> None:
        self._woken.set()

    def tell(self, key: str, happening: Happening) -> None:
        """Latest progress of a transfer; more transfers than the bound: the oldest is dropped."""
        if not self._may_see(happening):
            return
        self._progress.pop(key, None)
        self._progress[key] = happening
        while len(self._progress) > PROGRESS_MAX:
            del self._progress[next(iter(self._progress))]
        self._woken.set()

    async def next(self, *, timeout_s: float) -> list[Happening]:
        """What is new, in order; an empty list after `timeout_s` of silence."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    self._woken.clear()
                    if found := self._unread():
                        return found
                    if self._ring.closed:
                        return []
                    await self._woken.wait()
        except TimeoutError:
            return []

    def _unread(self) -> list[Happening]:
        found: list[Happening] = []
        if self._lost or self._next < self._ring.begin:
            self._lost, self._next = False, max(self._next, self._ring.begin)
            found.append(_reset())
        found += [each for each in self._ring.after(self._next) if self._may_see(each)]
        self._next = self._ring.end
        found += self._progress.values()
        self._progress.clear()
        return found

    def _may_see(self, happening: Happening) -> bool:
        return self._account_id is None or happening.account_id == self._account_id


class EventRing:
    """`begin <= position < end`; positions only grow, so a watcher knows what it missed."""

    def __init__(self, *, watchers_max: int, ring_max: int = RING_MAX) -> None:
        self._ring: deque[Happening] = deque()
        self._ring_max = ring_max
        self._positions: dict[str, int] = {}
        self._watchers: set[Watcher] = set()
        self._watchers_max = watchers_max
        self.begin = self.end = 0
        self.closed = False

    def position_of(self, event_id: str) -> int | None:
        return self._positions.get(event_id)

    def after(self, position: int) -> list[Happening]:
        return [self._ring[index] for index in range(position - self.begin, len(self._ring))]

    async def changed(self, change: Change) -> None:
        data = _json(change)
        kind = KINDS[type(change)]
        event_id = hashlib.sha256(kind.encode() + data).hexdigest()[: 2 * ID_BYTES]
        if self.position_of(event_id) is not None:  # the relay may publish an event twice
            return
        self._append(
            Happening(event_id=event_id, kind=kind, account_id=change.account_id, data=data)
        )
        for watcher in self._watchers:
            watcher.wake()

    def _append(self, happening: Happening) -> None:
        self._ring.append(happening)
        self._positions[happening.event_id] = self.end
        self.end += 1
        if len(self._ring) > self._ring_max:
            del self._positions[self._ring.popleft().event_id]
        self.begin = self.end - len(self._ring)

    async def progressed(self, progress: TransferProgress) -> None:
        happening = Happening(
            event_id="", kind=PROGRESS, account_id=progress.account_id, data=_json(progress)
        )
        for watcher in self._watchers:
            watcher.tell(progress.transfer_id, happening)

    @property
    def full(self) -> bool:
        return self.closed or len(self._watchers) >= self._watchers_max

    def enter(self, *, account_id: str | None, last_id: str | None) -> Watcher:
        watcher = Watcher(self, account_id=account_id, last_id=last_id)
        self._watchers.add(watcher)
        STREAMS.inc()
        return watcher

    def leave(self, watcher: Watcher) -> None:
        if watcher in self._watchers:
            self._watchers.remove(watcher)
            STREAMS.dec()

    @property
    def watching(self) -> int:
        return len(self._watchers)

    def interrupted(self) -> None:
        """Events may have been missed: whoever watches, or comes back, is told to list again."""
        self._ring.clear()
        self._positions.clear()
        self.end += 1
        self.begin = self.end
        for watcher in self._watchers:
            watcher.wake()

    def close(self) -> None:
        """Drain: open streams end, no new ones begin."""
        self.closed = True
        for watcher in self._watchers:
            watcher.wake()


def _json(message: Struct) -> bytes:
    fields = msgspec.to_builtins(message)
    for nested in (fields, fields.get("error") or {}):
        nested.pop("type", None)  # the tag of the wire
    return msgspec.json.encode(fields)


def _reset() -> Happening:
    return Happening(event_id="", kind=RESET, account_id="", data=b"{}")
