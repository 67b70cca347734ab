"""The relay: events from the log to the stream, and all of a day again if the broker lost them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import ClassVar

from entrepot_chassis import logs, metrics, work
from entrepot_chassis.ports import (
    Bus,
    Clock,
    Database,
    Elects,
    Hint,
    Hints,
    Row,
    Table,
    WatchesStream,
)

_log = logs.get("outbox")
_LOCK = "outbox-relay"
_BATCH_MAX = 300
_POLL_S = 0.5
_LOOK_S = 2.0
_PAUSE_MAX_S = 1.0
_FLUSH_S = 3.0
_DAY_S = 86_400.0
_PUBLISHED = metrics.counter("entrepot_outbox_published_total", "Events confirmed by the stream")
_REPLAYED = metrics.counter(
    "entrepot_outbox_replayed_total", "Events queued again because the broker lost its store"
)


class RelayMark(Row, kw_only=True):
    """The stream as last seen, to notice that it is another one now."""

    TABLE: ClassVar[Table] = Table(name="relay_mark", key="stream")

    stream: str
    born: str
    last_seq: int


@asynccontextmanager
async def relaying(
    database: Database,
    bus: Bus,
    *,
    clock: Clock,
    batch_max: int = _BATCH_MAX,
    poll_s: float = _POLL_S,
    look_s: float = _LOOK_S,
    replay_s: float = _DAY_S,
) -> AsyncIterator[None]:
    """Publish for the length of the block what is emitted, one active relay per service, each
    event at least once with a constant id. Leaving publishes what is left. Uses ports only; the
    powers Elects, Hints and WatchesStream are used where the given objects have them.
    """
    relay = _Relay(
        database,
        bus,
        clock=clock,
        batch_max=batch_max,
        poll_s=poll_s,
        look_s=look_s,
        replay_s=replay_s,
    )
    if isinstance(bus, WatchesStream):
        await bus.stream_mark()  # a wrong stream stops the service here, with its exit code
    async with work.looping("outbox", relay.run, clock=clock, pause_max_s=_PAUSE_MAX_S):
        yield
    await relay.flush()


class _Relay:
    def __init__(
        self,
        database: Database,
        bus: Bus,
        *,
        clock: Clock,
        batch_max: int,
        poll_s: float,
        look_s: float,
        replay_s: float,
    ) -> None:
        self._database = database
        self._bus = bus
        self._clock = clock
        self._batch_max = batch_max
        self._poll_s = poll_s
        self._look_s = look_s
        self._replay_s = replay_s
        self._active = False

    async def run(self) -> None:
        """Until the lock is lost or something fails: whoever runs us begins again."""
        async with AsyncExitStack() as stack:
            held = await self._elected(stack)
            hint = await self._hint(stack)
            self._active = True
            looked_at: float | None = None
            while held():
                if looked_at is None or self._clock.monotonic() - looked_at >= self._look_s:
                    await self._look()
                    looked_at = self._clock.monotonic()
                if await self._move() < self._batch_max:
                    await hint.wait(self._poll_s)
        self._active = False

    async def flush(self) -> None:
        """What our last commits emitted; another relay may be at it too, the ids are the same."""
        if not self._active:
            return
        with suppress(Exception):
            async with asyncio.timeout(_FLUSH_S):
                while await self._move():
                    pass

    async def _move(self) -> int:
        """One batch: publish, then mark. A crash in between publishes it twice, with one id."""
        pending = await self._database.events.unpublished(self._batch_max)
        if pending:
            await self._bus.publish_events([event for _, event in pending])
            await self._database.events.mark_published([number for number, _ in pending])
            _PUBLISHED.inc(len(pending))
        return len(pending)

    async def _look(self) -> None:
        """Is it still the stream we published to? If not, queue the last day again."""
        if not isinstance(self._bus, WatchesStream):
            return
        mark = await self._bus.stream_mark()
        async with self._database.transaction() as tx:
            seen = await tx.get(RelayMark, "events")
        lost = seen is not None and (seen.born != mark.born or mark.last_seq < seen.last_seq)
        if lost:
            again = await self._database.events.unpublish_since(self._replay_s)
            _REPLAYED.inc(again)
            _log.warning("outbox.stream_lost", events_again=again)
        if seen is None or seen.born != mark.born or seen.last_seq != mark.last_seq:
            row = RelayMark(stream="events", born=mark.born, last_seq=mark.last_seq)
            async with self._database.transaction() as tx:
                await tx.put(row)

    async def _elected(self, stack: AsyncExitStack) -> Callable[[], bool]:
        if isinstance(self._database, Elects):
            return await stack.enter_async_context(self._database.advisory_lock(_LOCK))
        return lambda: True

    async def _hint(self, stack: AsyncExitStack) -> Hint:
        if isinstance(self._database, Hints):
            return await stack.enter_async_context(self._database.event_hint())
        return _Sleep(self._clock)


class _Sleep:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def wait(self, timeout_s: float) -> None:
        await self._clock.sleep(timeout_s)
