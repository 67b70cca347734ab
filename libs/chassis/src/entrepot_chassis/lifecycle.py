"""From process start to exit code: arguments, settings, signals, the hard stop."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import NoReturn, Protocol, TypeVar

from msgspec import Struct

from entrepot_chassis import logs, settings
from entrepot_chassis.ports import Misconfigured

S = TypeVar("S", bound=Struct)
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_MISCONFIGURED = 78
_GRACE_S = 25.0
_log = logs.get("lifecycle")


class Applies(Protocol):
    """Migrations, as postgres.Migrations."""

    async def apply(self, database_url: str) -> Sequence[str]: ...


class Stopping(Protocol):
    """A health probe."""

    def stopping(self) -> None: ...


def main(
    *,
    service: str,
    settings: type[S],
    run: Callable[[S], Awaitable[None]],
    migrations: Applies | None = None,
    argv: Sequence[str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> NoReturn:
    """`python -m <service>` serves, `python -m <service> migrate` brings its schema up to date.

    Exit codes: 0 stopped as asked, 1 failed, 2 usage, 78 cannot run with these settings or
    against this stream configuration.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    known = [[], ["migrate"]] if migrations is not None else [[]]
    if words not in known:
        usage = f"usage: python -m {service.replace('-', '_')} [migrate]\n"
        sys.stderr.write(usage)
        sys.exit(EXIT_USAGE)
    logs.configure(service=service)
    try:
        assert_kept()
        loaded = _load(service, settings, os.environ if environ is None else environ)
        logs.configure(service=service, level=getattr(loaded, "log_level", "info"))
        if words and migrations is not None:
            applied = asyncio.run(_migrate(migrations, loaded))
            _log.info("migrations.applied", migrations=list(applied))
        else:
            _log.info("service.starting", pid=os.getpid())
            asyncio.run(_awaited(run, loaded))
            _log.info("service.stopped")
    except Misconfigured as err:
        _log.critical("service.misconfigured", error=str(err))
        sys.exit(EXIT_MISCONFIGURED)
    except Exception:  # noqa: BLE001 - the last word of a dying process is a log line
        _log.critical("service.failed", exc_info=True)
        sys.exit(EXIT_FAILED)
    sys.exit(0)


class _Signals:
    """SIGTERM and SIGINT from the very start of the loop, so that one that comes while the
    service is still composing itself drains it as well.
    """

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)

    def _on_signal(self) -> None:
        if self.asked.is_set():
            _log.critical("service.stopped_hard", why="second signal")
            os._exit(EXIT_FAILED)
        self.asked.set()


_signals: ContextVar[_Signals] = ContextVar("signals")


async def until_stopped(probe: Stopping | None = None, *, grace_s: float = _GRACE_S) -> None:
    """Wait for SIGTERM or SIGINT. Readiness turns false first; then the caller's exit stack
    drains. A second signal, or `grace_s` more, ends the process hard.
    """
    signals = _signals.get(None) or _Signals()
    await signals.asked.wait()
    _log.info("service.stopping", grace_s=grace_s)
    if probe is not None:
        probe.stopping()
    # A thread, because the loop itself may be what hangs.
    timer = threading.Timer(grace_s, _too_late)
    timer.daemon = True
    timer.start()


def stop_self() -> None:
    """Ask our own process to drain and end: something it cannot live without is gone."""
    os.kill(os.getpid(), signal.SIGTERM)


def assert_kept() -> None:
    """Assertions guard our own mistakes; `python -O` would remove them."""
    if not __debug__:
        raise Misconfigured("do not run with -O or PYTHONOPTIMIZE: assertions must stay on")


def _load(service: str, kind: type[S], environ: Mapping[str, str]) -> S:
    prefix = f"ENTREPOT_{service.upper().replace('-', '_')}_"
    return settings.load(kind, prefix=prefix, environ=environ)


async def _awaited(run: Callable[[S], Awaitable[None]], loaded: S) -> None:
    _signals.set(_Signals())
    await run(loaded)


async def _migrate(migrations: Applies, loaded: Struct) -> Sequence[str]:
    return await migrations.apply(loaded.database_url)  # type: ignore[attr-defined]


def _too_late() -> None:
    _log.critical("service.stopped_hard", why="drain took too long")
    os._exit(EXIT_FAILED)
