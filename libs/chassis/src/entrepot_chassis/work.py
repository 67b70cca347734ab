"""Who owns background tasks: bounded intake of requests, periodic work, loops that must go on."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from entrepot_chassis import logs, metrics
from entrepot_chassis.ports import Clock

_log = logs.get("work")
_FAILURES = metrics.counter(
    "entrepot_background_failures_total", "Exceptions of periodic and looping work", ["work"]
)
_BACKOFF_START_S = 0.5
_BACKOFF_MAX_S = 30.0
_CANCEL_AGAIN_S = 0.5


class Intake:
    """At most `in_flight_max` coroutines at once, each in a task that `drain` waits for."""

    def __init__(self, in_flight_max: int, *, name: str) -> None:
        self._slots = asyncio.Semaphore(in_flight_max)
        self._name = name
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def in_flight(self) -> int:
        return len(self._tasks)

    async def start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Wait for a free slot, then run `work` in a task of its own."""
        await self._slots.acquire()
        task = asyncio.create_task(work(), name=f"intake:{self._name}")
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    async def drain(self, deadline_s: float) -> int:
        """Wait for what runs; cancel what is left after the deadline and return how many."""
        if not self._tasks:
            return 0
        _, late = await asyncio.wait(self._tasks, timeout=max(deadline_s, 0))
        if late:
            await ended(late)
            _log.warning("intake.cancelled", intake=self._name, tasks=len(late))
        return len(late)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            _FAILURES.labels(self._name).inc()
            _log.error("intake.failed", intake=self._name, exc_info=error)


@asynccontextmanager
async def periodic(
    name: str,
    every_s: float,
    work: Callable[[], Awaitable[object]],
    *,
    clock: Clock,
    at_once: bool = True,
) -> AsyncIterator[None]:
    """Run `work`, sleep, again; after failures the pause grows to at least 30 s."""

    async def forever() -> None:
        failures = 0
        if not at_once:
            await clock.sleep(every_s)
        while True:
            try:
                await work()
                failures = 0
            except Exception as err:  # noqa: BLE001 - periodic work outlives its failures
                failures += 1
                _failed(name, err)
            await clock.sleep(max(every_s, _backoff_s(failures)) if failures else every_s)

    async with owned(name, forever):
        yield


@asynccontextmanager
async def looping(
    name: str,
    work: Callable[[], Awaitable[None]],
    *,
    clock: Clock,
    pause_max_s: float = _BACKOFF_MAX_S,
) -> AsyncIterator[None]:
    """Run `work` for the length of the block; begun again, with a growing pause, if it ends."""

    async def forever() -> None:
        failures = 0
        while True:
            started = clock.monotonic()
            try:
                await work()
            except Exception as err:  # noqa: BLE001 - the loop must go on
                long_enough = clock.monotonic() - started > _BACKOFF_MAX_S
                failures = 1 if long_enough else failures + 1
                _failed(name, err)
            else:
                failures = 0
            await clock.sleep(min(_backoff_s(max(failures, 1)), pause_max_s))

    async with owned(name, forever):
        yield


@asynccontextmanager
async def owned(
    name: str, work: Callable[[], Coroutine[Any, Any, None]]
) -> AsyncIterator[asyncio.Task[None]]:
    """One task for the length of the block; leaving cancels and awaits it."""
    task = asyncio.create_task(work(), name=name)
    try:
        yield task
    finally:
        await ended({task})
        if not task.cancelled() and (error := task.exception()) is not None:
            _failed(name, error)


async def within(
    timeout_s: float, name: str, work: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    """TimeoutError unless `work` returns in time: for libraries that may lose the one cancel of
    `asyncio.timeout`.
    """
    task = asyncio.create_task(work(), name=name)
    try:
        done, _ = await asyncio.wait({task}, timeout=timeout_s)
    finally:
        await ended({task})
    if not done:
        raise TimeoutError
    task.result()


async def ended(tasks: set[asyncio.Task[None]]) -> None:
    """Cancelled until they end: libraries that use `asyncio.wait_for` lose a cancel now and then
    (before Python 3.12 it swallows one that comes together with the result).
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_CANCEL_AGAIN_S)


def _backoff_s(failures: int) -> float:
    return float(min(_BACKOFF_START_S * 2 ** min(failures - 1, 10), _BACKOFF_MAX_S))


def _failed(name: str, err: BaseException) -> None:
    _FAILURES.labels(name).inc()
    _log.error("work.failed", work=name, exc_info=err)
