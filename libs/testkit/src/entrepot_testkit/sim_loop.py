"""A deterministic asyncio loop: virtual time, seeded order, nothing from outside.

`run(seed, main)` is the whole interface for most callers. Among the handles that are ready the
seed picks the next one; when none is ready, time jumps to the next timer. Executors run inline,
sockets, threads and subprocesses are refused, and a loop that can never make progress again raises
`Deadlock`. Two runs of one seed take the same steps: `Run.trace` is a hash of all of them.
"""

import asyncio
import contextvars
import gc
import heapq
import random
import socket
import struct
import subprocess
import threading
from asyncio import base_events
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any, Generic, Protocol, TypeVar

from msgspec import Struct

T = TypeVar("T")

STEPS_WITHOUT_TIME_MAX = 200_000
NOTES_KEPT_MAX = 400
SETTLE_S = 60.0


class Life(Protocol):
    """What the loop asks about the simulated process a handle belongs to (sim_process)."""

    def may_step(self) -> bool:
        """False: paused or dead. The loop keeps the handle until `release` or its own end."""
        ...


LIFE: contextvars.ContextVar[Life | None] = contextvars.ContextVar(
    "entrepot_sim_life", default=None
)


class Deadlock(Exception):
    """Nothing is ready, no timer is set, and the main coroutine has not ended."""


class Livelock(Exception):
    """Very many steps in which virtual time never moved."""


class OutOfTime(Exception):
    """The main coroutine had not ended at `until_s`."""


class Forbidden(RuntimeError):
    """The code under simulation reached for a socket, a thread or a process."""


class Run(Struct, Generic[T], frozen=True, kw_only=True):
    """What came of one run. Same seed and code: same `trace`."""

    seed: int
    result: T
    trace: str
    steps: int
    now_s: float


class SimFuture(asyncio.Future[Any]):
    """Hashed by a counter, so that sets of futures iterate alike in every run."""

    def __init__(self, *, loop: "SimLoop") -> None:
        self.number = loop.next_number()
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.number


class SimTask(asyncio.Task[Any]):
    """As SimFuture: TaskGroup and asyncio.wait keep their tasks in sets."""

    def __init__(self, coro: Coroutine[Any, Any, Any], *, loop: "SimLoop", **options: Any) -> None:
        self.number = loop.next_number()
        super().__init__(coro, loop=loop, **options)

    def __hash__(self) -> int:
        return self.number


class SimLoop(base_events.BaseEventLoop):
    """BaseEventLoop without a selector. `notes` holds the last things the fakes reported."""

    def __init__(self, seed: int, *, until_s: float = float("inf"), shuffle: bool = True) -> None:
        self._numbers = 0
        self._now_s = 0.0
        super().__init__()
        self._choices = random.Random(f"{seed}:order")  # noqa: S311 - it must be repeatable
        self._until_s = until_s
        self._shuffle = shuffle
        self._trace = blake2b(digest_size=16)
        self._steps_in_place = 0
        self.steps = 0
        self.notes: deque[str] = deque(maxlen=NOTES_KEPT_MAX)
        self.complaints: list[str] = []
        self.ending = False
        self._held: dict[int, list[asyncio.Handle]] = {}
        self._ready: list[asyncio.Handle] = []
        self.set_task_factory(self._make_task)  # type: ignore[arg-type]
        self.set_exception_handler(_complain)

    # --- identity, time, trace ----------------------------------------------------------------

    def next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def time(self) -> float:
        return self._now_s

    def note(self, text: str) -> None:
        """Record what happened: part of the trace, printed when a run fails."""
        self._trace.update(text.encode())
        self.notes.append(f"{self._now_s:10.4f}  {text}")

    def trace(self) -> str:
        return self._trace.hexdigest()

    def _make_task(
        self, _loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, T], **options: Any
    ) -> "asyncio.Task[T]":
        return SimTask(coro, loop=self, **options)

    def create_future(self) -> "asyncio.Future[Any]":
        return SimFuture(loop=self)

    # --- the step -----------------------------------------------------------------------------

    def _run_once(self) -> None:
        ready = self._ready
        self._ring_timers()
        if not ready:
            if self._stopping:  # type: ignore[attr-defined]
                return
            self._advance()
        handle = self._choose(ready)
        if handle.cancelled():
            return
        self.steps += 1
        self._steps_in_place += 1
        if self._steps_in_place > STEPS_WITHOUT_TIME_MAX:
            raise Livelock(f"{self._steps_in_place} steps at {self._now_s} s")
        life: Life | None = handle._context.get(LIFE)  # type: ignore[attr-defined]  # noqa: SLF001
        if life is not None and not self.ending and not life.may_step():
            self._held.setdefault(id(life), []).append(handle)
            return
        self._trace.update(struct.pack("<dQ", self._now_s, _owner_number(handle)))
        handle._run()  # noqa: SLF001 - as the loops of the standard library do

    def _choose(self, ready: list[asyncio.Handle]) -> asyncio.Handle:
        if len(ready) == 1:
            return ready.pop()
        if not self._shuffle:
            return ready.pop(0)
        index = int(self._choices.random() * len(ready))
        ready[index], ready[-1] = ready[-1], ready[index]
        return ready.pop()

    def _ring_timers(self) -> None:
        timers = self._scheduled  # type: ignore[attr-defined]
        while timers and (timers[0].cancelled() or timers[0].when() <= self._now_s):
            timer = heapq.heappop(timers)
            timer._scheduled = False  # noqa: SLF001
            if not timer.cancelled():
                self._ready.append(timer)

    def _advance(self) -> None:
        timers = self._scheduled  # type: ignore[attr-defined]
        if not timers:
            raise Deadlock(f"nothing left to do at {self._now_s} s after {self.steps} steps")
        if timers[0].when() > self._until_s and not self.ending:
            raise OutOfTime(f"not done at {self._until_s} s of virtual time, {self.steps} steps")
        self._now_s = timers[0].when()
        self._steps_in_place = 0
        self._ring_timers()

    def release(self, life: Life) -> None:
        """The steps a paused process could not take are ready again."""
        self._ready.extend(self._held.pop(id(life), []))

    def end(self) -> None:
        """Steps of the dead may run now, so that their coroutines can be closed properly."""
        self.ending = True
        self._steps_in_place = 0
        for handles in self._held.values():
            self._ready.extend(handles)
        self._held.clear()

    def _process_events(self, event_list: list[Any]) -> None:
        """No selector, so no events."""

    def _write_to_self(self) -> None:
        """Nothing to wake: there is one thread."""

    # --- executors inline, the outside refused ---------------------------------------------------

    def run_in_executor(  # type: ignore[override]
        self, _executor: object, func: Callable[..., T], *args: Any
    ) -> "asyncio.Future[T]":
        """Run it here and now; the outcome arrives by a later step, so the caller may die first."""
        future: asyncio.Future[T] = self.create_future()
        try:
            self.call_soon(_settle, future, func(*args))
        except Exception as error:  # noqa: BLE001 - it belongs to whoever awaits
            self.call_soon(_fail, future, error)
        return future

    async def shutdown_default_executor(self, *_args: Any, **_options: Any) -> None:
        """There is none."""

    def _refuse(self, *_args: Any, **_options: Any) -> Any:
        raise Forbidden("no sockets, threads, signals or subprocesses in a simulation")


_REFUSED = """
    getaddrinfo getnameinfo create_connection create_server create_datagram_endpoint start_tls
    create_unix_connection create_unix_server connect_accepted_socket sendfile
    connect_read_pipe connect_write_pipe subprocess_exec subprocess_shell
    sock_recv sock_recv_into sock_recvfrom sock_sendall sock_sendto sock_connect sock_accept
    sock_sendfile add_reader add_writer add_signal_handler
"""
for _name in _REFUSED.split():
    setattr(SimLoop, _name, SimLoop._refuse)  # noqa: SLF001 - our own class, two lines up


def run(
    seed: int,
    main: Callable[[], Coroutine[Any, Any, T]],
    *,
    until_s: float = float("inf"),
    shuffle: bool = True,
) -> Run[T]:
    """Run `main()` to its end in a loop of its own; raises what it raises.

    An exception gets the last notes of the run attached (`add_note`). Cyclic garbage is collected
    before and after, never during: finalisers would run at moments the seed does not decide.
    """
    loop = SimLoop(seed, until_s=until_s, shuffle=shuffle)
    collecting = gc.isenabled()
    gc.disable()
    try:
        with _outside_refused(), _counted_hashes(loop):
            try:
                result = loop.run_until_complete(main())
                outcome = Run(
                    seed=seed,
                    result=result,
                    trace=loop.trace(),
                    steps=loop.steps,
                    now_s=loop.time(),
                )
            except BaseException as error:
                error.add_note("last steps:\n" + "\n".join(list(loop.notes)[-60:]))
                raise
            finally:
                _wind_up(loop)
    finally:
        loop.close()
        if collecting:
            gc.enable()
    return outcome


def running_loop() -> SimLoop:
    """The loop of the simulation this code runs in."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop), "this fake works inside entrepot_testkit.sim_loop.run only"
    return loop


def note(text: str) -> None:
    """`SimLoop.note` of the running loop; outside a simulation (contract suite) nothing."""
    loop = asyncio.get_running_loop()
    if isinstance(loop, SimLoop):
        loop.note(text)


def _owner_number(handle: asyncio.Handle) -> int:
    """Number of the task or future the handle steps; 0 for plain callbacks."""
    owner = getattr(handle._callback, "__self__", None)  # type: ignore[attr-defined]  # noqa: SLF001
    return owner.number if isinstance(owner, SimTask | SimFuture) else 0


def _settle(future: "asyncio.Future[T]", result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: "asyncio.Future[T]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _complain(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Errors nobody awaited are kept for the checks at the end of a run."""
    assert isinstance(loop, SimLoop)
    if not loop.ending:
        loop.complaints.append(f"{context.get('message')}: {context.get('exception')!r}")


def _wind_up(loop: SimLoop) -> None:
    """Cancel what is left and let it end; then close by force what refuses to."""
    for _round in range(3):
        loop.end()
        left = sorted(asyncio.all_tasks(loop), key=hash)
        if not left:
            return
        for task in left:
            task.cancel()
        try:
            loop.run_until_complete(_ended(left))
        except (Deadlock, Livelock, OutOfTime):
            continue
    for task in sorted(asyncio.all_tasks(loop), key=hash):
        _close_by_force(task.get_coro())


async def _ended(tasks: list["asyncio.Task[Any]"]) -> None:
    await asyncio.wait(tasks, timeout=SETTLE_S)


def _close_by_force(coro: Any) -> None:
    for _attempt in range(8):
        try:
            coro.close()
        except Exception:  # noqa: BLE001, S112 - a `finally` that awaits: close again, further in
            continue
        return


@contextmanager
def _counted_hashes(loop: SimLoop) -> Iterator[None]:
    """Events and their like are hashed by a counter too: services keep those they wait on in sets,
    and by address every run would wake the waiters in another order.
    """

    def hashed(self: Any) -> int:
        number = self.__dict__.get("sim_number")
        if number is None:
            number = self.__dict__["sim_number"] = loop.next_number()
        return int(number)

    kinds = (asyncio.Event, asyncio.Lock, asyncio.Semaphore, asyncio.Condition, asyncio.Queue)
    for kind in kinds:
        kind.__hash__ = hashed  # type: ignore[method-assign]
    try:
        yield
    finally:
        for kind in kinds:
            del kind.__hash__


@contextmanager
def _outside_refused() -> Iterator[None]:
    """Sockets, threads and subprocesses raise while a simulation runs in this process."""

    def refuse(*_args: Any, **_options: Any) -> Any:
        raise Forbidden("no sockets, threads or subprocesses in a simulation")

    doors: list[tuple[Any, str]] = [
        (threading.Thread, "start"),
        (socket.socket, "connect"),
        (socket.socket, "bind"),
        (subprocess.Popen, "__init__"),
    ]
    before = [(place, name, place.__dict__.get(name)) for place, name in doors]
    for place, name in doors:
        setattr(place, name, refuse)
    try:
        yield
    finally:
        for place, name, original in before:
            if original is None:
                delattr(place, name)
            else:
                setattr(place, name, original)
