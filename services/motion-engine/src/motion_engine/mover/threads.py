"""The one door to worker threads: start a call now, await its future, count what still runs."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Protocol


class RunBlocking(Protocol):
    """Starts `fn(*args)` at once, outside the loop's thread; the future brings its outcome."""

    def __call__(self, fn: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]": ...


@asynccontextmanager
async def thread_pool(threads: int) -> AsyncIterator[RunBlocking]:
    """A pool of our own; leaving it waits for what runs."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(threads, thread_name_prefix="mover") as executor:

        def run(fn: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]":
            return loop.run_in_executor(executor, fn, *args)

        yield run


def run_inline(fn: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]":
    """For the simulation: no thread, the outcome is there when this returns."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    try:
        future.set_result(fn(*args))
    except Exception as err:  # noqa: BLE001 - it travels in the future, as from a thread
        future.set_exception(err)
    return future


class Hops:
    """Calls in threads on behalf of one owner. A cancelled awaiter leaves its call running, so the
    owner settles before it closes what those calls use.
    """

    def __init__(self, run_blocking: RunBlocking) -> None:
        self._run = run_blocking
        self._open: set[asyncio.Future[Any]] = set()

    def start(self, fn: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]":
        future = self._run(fn, *args)
        self._open.add(future)
        future.add_done_callback(self._done)
        return future

    def _done(self, future: "asyncio.Future[Any]") -> None:
        self._open.discard(future)
        if not future.cancelled():
            future.exception()  # seen: an abandoned look-ahead is no news

    async def settle(self) -> None:
        if self._open:
            await asyncio.wait(self._open)


async def outcome(future: "asyncio.Future[Any]") -> Any:
    """Await a hop without cancelling it when we are cancelled."""
    return await asyncio.shield(future)
