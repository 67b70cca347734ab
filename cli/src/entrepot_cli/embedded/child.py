"""One server process we start and end: log file, start, stop, kill; synchronous."""

import contextlib
import ctypes
import os
import pwd
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_POLL_S = 0.02


class StartFailed(Exception):
    """The server did not come up; the text carries the end of its log."""


class Child:
    """A process with its output in `log_path`. `user` (root only) drops privileges.

    `die_with_parent` asks the kernel to send `death_signal` when the starting thread ends: for
    tests, never for a stack that must outlive its launcher.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        log_path: Path,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        die_with_parent: bool = False,
        death_signal: signal.Signals = signal.SIGKILL,
    ) -> None:
        self._argv = list(argv)
        self._log_path = log_path
        self._env = dict(env) if env is not None else None
        self._user = user
        self._on_fork = _bound_to_parent(death_signal) if die_with_parent else None
        self._process: subprocess.Popen[bytes] | None = None
        self._asked = False

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        assert not self.running, "started twice"
        self._asked = False
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._env,
                start_new_session=True,
                preexec_fn=self._on_fork,  # noqa: PLW1509 - one prctl, takes no lock
                **drop_to(self._user),
            )

    def await_ready(self, ready: Callable[[], bool], *, timeout_s: float) -> None:
        """Poll `ready` until true; StartFailed if the process ends first or time runs out."""
        assert self._process is not None, "not started"
        for _ in range(int(timeout_s / _POLL_S) + 1):
            if ready():
                return
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._process.wait(timeout=_POLL_S)
                raise StartFailed(f"{self._argv[0]} ended with {code}: {self.log_tail()}")
        self.kill()
        raise StartFailed(f"{self._argv[0]} not ready in {timeout_s} s: {self.log_tail()}")

    def stop(self, *, stop_signal: signal.Signals = signal.SIGTERM, timeout_s: float = 20) -> None:
        """Ask to end, then make it end. Stopping a stopped child is fine."""
        if self._process is None or self._process.poll() is not None:
            return
        self.ask_stop(stop_signal)
        try:
            self._process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def ask_stop(self, stop_signal: signal.Signals = signal.SIGTERM) -> None:
        """Begin to end; `stop` waits for it. Asking twice would be a second, harder signal."""
        if self.running and not self._asked:
            self._asked = True
            self.signal(stop_signal)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "not started"
        self._process.send_signal(number)

    def log_tail(self, bytes_max: int = 2000) -> str:
        try:
            return self._log_path.read_bytes()[-bytes_max:].decode(errors="replace").strip()
        except OSError:
            return "(no log)"


def drop_to(user: str | None) -> dict[str, Any]:
    """Popen arguments that run a child as `user` with that user's own group and no others."""
    if user is None:
        return {}
    entry = pwd.getpwnam(user)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _bound_to_parent(death_signal: signal.Signals) -> Callable[[], None]:
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def bind() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != parent:  # it died between fork and prctl
            os._exit(1)

    return bind
