"""The durable half of the memory bus: one event stream and its consumers, with their faults.

At-least-once and no more: a batch that was not acknowledged comes again after `ack_wait_s`, what
was acknowledged may come again too, the dedupe window may forget, and all of it may be wiped.
"""

import asyncio
from collections.abc import Sequence

from msgspec import Struct

from entrepot_chassis.ports import OutboxEvent
from entrepot_testkit.fate import Fate
from entrepot_testkit.sim_loop import note

REFUSED_AGAIN_S = 1.0


class StoredEvent(Struct, frozen=True, kw_only=True):
    sequence: int
    msg_id: str
    subject: str
    data: bytes
    headers: dict[str, str]


class Delivery(Struct, frozen=True, kw_only=True):
    """One event handed to one consumer; `count` is the broker's hint of how often by now."""

    event: StoredEvent
    count: int


class _Durable:
    """State of one consumer, kept by the server: what is not acknowledged, and until when it is
    with somebody.
    """

    def __init__(self, subjects: tuple[str, ...]) -> None:
        self.subjects = subjects
        self.pending: dict[int, StoredEvent] = {}
        self.held_until: dict[int, float] = {}
        self.counts: dict[int, int] = {}
        self.done: list[StoredEvent] = []

    def offer(self, event: StoredEvent) -> None:
        if any(subject_matches(pattern, event.subject) for pattern in self.subjects):
            self.pending[event.sequence] = event


class MemoryStream:
    """Events in order of arrival. `generation` changes when the store was lost."""

    def __init__(self, fate: Fate, *, ack_wait_s: float) -> None:
        self._fate = fate
        self._ack_wait_s = ack_wait_s
        self.events: list[StoredEvent] = []
        self.history: list[StoredEvent] = []  # for checks: survives wipes
        self.generation = 1
        self._seen: set[str] = set()
        self._durables: dict[str, _Durable] = {}
        self._waiting: list[asyncio.Event] = []

    def store(self, event: OutboxEvent) -> None:
        """A repeat inside the dedupe window is one, as long as the window remembers."""
        if event.msg_id in self._seen and not self._fate.strikes("dedupe_forgotten", event.msg_id):
            return
        self._seen.add(event.msg_id)
        stored = StoredEvent(
            sequence=len(self.events) + 1,
            msg_id=event.msg_id,
            subject=event.subject,
            data=event.data,
            headers=dict(event.headers),
        )
        note(f"stored {event.msg_id} as {stored.sequence}")
        self.events.append(stored)
        self.history.append(stored)
        for durable in self._durables.values():
            durable.offer(stored)
        self.wake()

    def take(self, name: str, subjects: tuple[str, ...], batch_max: int) -> list[Delivery]:
        """Up to `batch_max` events nobody holds; they are ours for `ack_wait_s`."""
        durable = self._durable(name, subjects)
        now = asyncio.get_running_loop().time()
        free = [
            event
            for sequence, event in durable.pending.items()
            if durable.held_until.get(sequence, 0.0) <= now
        ]
        if durable.done and self._fate.strikes("event_again", name):
            free.append(self._fate.pick("again", durable.done))
        if len(free) > 1 and self._fate.strikes("event_reordered", name):
            free = self._fate.shuffled("reordered", free)
        batch = free[:batch_max]
        for event in batch:
            durable.held_until[event.sequence] = now + self._ack_wait_s
            durable.counts[event.sequence] = durable.counts.get(event.sequence, 0) + 1
        return [Delivery(event=one, count=durable.counts[one.sequence]) for one in batch]

    def acknowledge(self, name: str, batch: Sequence[StoredEvent]) -> None:
        durable = self._durables.get(name)
        if durable is None or self._fate.strikes("ack_lost", name):
            return  # the lease of the batch runs out, and it comes again
        for event in batch:
            if durable.pending.get(event.sequence) is event:  # not one of a store since wiped
                del durable.pending[event.sequence]
                durable.held_until.pop(event.sequence, None)
                durable.done.append(event)

    def refuse(self, name: str, batch: Sequence[StoredEvent]) -> None:
        """The handler raised: again, soon."""
        durable = self._durables.get(name)
        if durable is None:
            return
        again = asyncio.get_running_loop().time() + REFUSED_AGAIN_S
        for event in batch:
            durable.held_until[event.sequence] = again

    async def more(self, name: str) -> None:
        """Until something may be due: a new event, or the end of somebody's hold."""
        durable = self._durables[name]
        now = asyncio.get_running_loop().time()
        ends = [
            until
            for sequence, until in durable.held_until.items()
            if sequence in durable.pending and until > now
        ]
        woken = asyncio.Event()
        self._waiting.append(woken)
        try:
            async with asyncio.timeout(min(ends) - now if ends else None):
                await woken.wait()
        except TimeoutError:
            pass
        finally:
            if woken in self._waiting:
                self._waiting.remove(woken)

    def wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for event in waiting:
            event.set()

    def wipe(self) -> None:
        self.events.clear()
        self._seen.clear()
        self._durables.clear()
        self.generation += 1
        self.wake()

    def _durable(self, name: str, subjects: tuple[str, ...]) -> _Durable:
        found = self._durables.get(name)
        if found is None:
            found = self._durables[name] = _Durable(subjects)
            for event in self.events:
                found.offer(event)
        return found


def subject_matches(pattern: str, subject: str) -> bool:
    """NATS wildcards: `*` is one token, `>` at the end is one or more."""
    wanted, given = pattern.split("."), subject.split(".")
    for index, part in enumerate(wanted):
        if part == ">":
            return len(given) > index
        if index >= len(given) or part not in ("*", given[index]):
            return False
    return len(wanted) == len(given)
