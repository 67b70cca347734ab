"""Keeps a list of processes running: starts in order, restarts what dies, stops in reverse."""

import contextlib
import signal
from collections.abc import Callable, Sequence
from threading import Event
from typing import Protocol

import structlog
from msgspec import Struct

from entrepot_chassis.ports import Clock
from entrepot_cli.embedded.child import StartFailed
from entrepot_cli.embedded.folder import DataFolder
from entrepot_cli.embedded.takeover import sweep_group

BACKOFF_MIN_S = 0.2
BACKOFF_MAX_S = 5.0
STEADY_S = 20.0  # up that long: the next death starts again with the shortest pause
POLL_S = 0.1
EARLY_DEATHS_MAX = 4  # a process that never got ready and keeps dying will not get ready

log = structlog.get_logger("supervisor")


class Unit(Protocol):
    """A process that can be started again and again. `start` returns when it may be used by the
    units after it; `stop` returns when it is gone.
    """

    @property
    def name(self) -> str: ...
    @property
    def pid(self) -> int: ...
    @property
    def running(self) -> bool: ...
    def start(self) -> None: ...
    def ready(self) -> bool: ...
    def ask_stop(self) -> None:
        """Begin to end; returns at once."""
        ...

    def stop(self) -> None: ...
    def kill(self) -> None: ...


class Watched(Struct, kw_only=True):
    unit: Unit
    started_s: float = 0.0
    again_s: float | None = None  # when to start it again; None while it runs
    backoff_s: float = BACKOFF_MIN_S
    restarts: int = 0


class Supervisor:
    """One thread: the kernel binds children to the thread that started them."""

    def __init__(self, folder: DataFolder, *, clock: Clock, changed: Callable[[], None]) -> None:
        self._folder, self._clock, self._changed = folder, clock, changed
        self._stages: list[list[Watched]] = []
        self._stop = Event()

    @property
    def pids(self) -> dict[str, int]:
        return {item.unit.name: item.unit.pid for item in self._all() if item.unit.running}

    def start(self, units: Sequence[Unit], *, timeout_s: float) -> None:
        """Start one stage together and wait until all of it is ready. Units that die meanwhile
        are started again; StartFailed when time is up or a stop was asked for.
        """
        stage = [Watched(unit=unit) for unit in units]
        self._stages.append(stage)
        for item in stage:
            item.unit.start()
            self._started(item)
        deadline_s = self._clock.monotonic() + timeout_s
        waiting = list(stage)
        while waiting:
            waiting = [item for item in waiting if not self._is_ready(item)]
            if self._stop.is_set():
                raise StartFailed("stopped while starting")
            if waiting and self._clock.monotonic() > deadline_s:
                raise StartFailed(self._not_ready(waiting, timeout_s))
            self._mend()
            hopeless = [item for item in waiting if item.restarts >= EARLY_DEATHS_MAX]
            if hopeless:
                raise StartFailed(self._keeps_dying(hopeless))
            self._stop.wait(POLL_S)

    def watch(self) -> None:
        """Restart what dies, until a stop is asked for."""
        while not self._stop.wait(POLL_S):
            self._mend()

    def request_stop(self) -> None:
        self._stop.set()

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    def stop(self) -> None:
        """Drain in reverse order of start; the units of one stage end together."""
        for stage in reversed(self._stages):
            asked_s = self._clock.monotonic()
            for item in reversed(stage):
                with contextlib.suppress(ProcessLookupError):
                    item.unit.ask_stop()
            for item in reversed(stage):
                pid = item.unit.pid if item.unit.running else None
                item.unit.stop()
                if pid is not None:
                    sweep_group(pid)
                self._folder.unmark(item.unit.name)
                took_s = round(self._clock.monotonic() - asked_s, 1)
                log.info("process.stopped", process=item.unit.name, took_s=took_s)

    def kill(self) -> None:
        """The hard end of a stop that must not take longer."""
        for item in reversed(self._all()):
            item.unit.kill()
            self._folder.unmark(item.unit.name)

    def _all(self) -> list[Watched]:
        return [item for stage in self._stages for item in stage]

    def _is_ready(self, item: Watched) -> bool:
        return item.unit.running and item.unit.ready()

    def _keeps_dying(self, hopeless: Sequence[Watched]) -> str:
        names = [item.unit.name for item in hopeless]
        logs = ", ".join(str(self._folder.log_of(name)) for name in names)
        return f"{', '.join(names)} ended again and again while starting; see {logs}"

    def _not_ready(self, waiting: Sequence[Watched], timeout_s: float) -> str:
        names = [item.unit.name for item in waiting]
        logs = ", ".join(str(self._folder.log_of(name)) for name in names)
        return f"{', '.join(names)} not ready after {timeout_s:.0f} s; see {logs}"

    def _mend(self) -> None:
        now_s = self._clock.monotonic()
        for item in self._all():
            if item.unit.running:
                continue
            if item.again_s is None:
                self._died(item, now_s)
            elif now_s >= item.again_s:
                self._restart(item)

    def _died(self, item: Watched, now_s: float) -> None:
        if now_s - item.started_s > STEADY_S:
            item.backoff_s = BACKOFF_MIN_S
        item.again_s = now_s + item.backoff_s
        log.warning("process.died", process=item.unit.name, again_in_s=item.backoff_s)
        item.backoff_s = min(item.backoff_s * 2, BACKOFF_MAX_S)
        mark = self._folder.marked(item.unit.name)
        if mark is not None:
            sweep_group(mark.pid)

    def _restart(self, item: Watched) -> None:
        item.restarts += 1
        try:
            item.unit.start()
        except StartFailed as failed:
            log.exception("process.start_failed", process=item.unit.name, reason=str(failed))
            item.unit.kill()
            item.again_s = None  # counted as one more death at the next look
            return
        self._started(item)
        self._changed()

    def _started(self, item: Watched) -> None:
        item.started_s, item.again_s = self._clock.monotonic(), None
        self._folder.mark(item.unit.name, item.unit.pid)
        log.info(
            "process.started", process=item.unit.name, pid=item.unit.pid, restarts=item.restarts
        )


def stop_on_signals(supervisor: Supervisor) -> None:
    """The first SIGTERM or SIGINT drains; a second one ends everything at once."""

    def handle(number: int, _frame: object) -> None:
        if supervisor.stopping:
            log.warning("supervisor.second_signal", number=number)
            supervisor.kill()
            raise SystemExit(128 + number)
        supervisor.request_stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
