"""Blocking calls in a pool of threads of this store, and file handles that outlive their callers.

A cancelled task leaves its system call running. If the descriptor were closed under it, the call
could hit a file that got the same number: a Handle is closed only when its last user is through.
"""

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from entrepot_file.faults import translated
from entrepot_plugin.errors import StoreError

P = ParamSpec("P")
T = TypeVar("T")


class Lanes:
    """The threads of one opened store: a hung mount blocks these and nobody else's."""

    def __init__(self, threads_max: int) -> None:
        self._pool = ThreadPoolExecutor(threads_max, thread_name_prefix="entrepot-file")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def run(self, call: Callable[[], T], *, key: str | None = None) -> T:
        """Run in a thread; OSError leaves as a port error."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, call)
        except OSError as err:
            raise translated(err, key) from err
        except RuntimeError as err:  # the pool is shut down: the store was closed under the caller
            raise StoreError("the store is closed", key=key) from err

    async def on(
        self,
        handle: "Handle",
        key: str | None,
        call: Callable[Concatenate[int, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """`call(descriptor, ...)` in a thread."""
        return await self.run(lambda: handle.use(call, *args, **kwargs), key=key)


class Handle:
    """An open file shared by threads."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._users = 0
        self._closing = False
        self._lock = threading.Condition()

    def use(self, call: Callable[Concatenate[int, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`call(descriptor, ...)`; blocking, for worker threads."""
        with self._lock:
            if self._closing:
                raise StoreError("the file is closed")
            self._users += 1
        try:
            return call(self._descriptor, *args, **kwargs)
        finally:
            with self._lock:
                self._users -= 1
                self._lock.notify_all()
                self._close_when_idle()

    def use_alone(
        self, call: Callable[Concatenate[int, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Like `use`, once nobody else is in: a write whose task was cancelled may still run."""
        with self._lock:
            while self._users:
                self._lock.wait()
            return call(self._descriptor, *args, **kwargs)

    def close(self) -> None:
        with self._lock:
            self._closing = True
            self._close_when_idle()

    def _close_when_idle(self) -> None:
        if self._closing and not self._users and self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> Any:
        """For a handle whose opener was cancelled before it could take it."""
        self.close()
