"""The embedded stack for tests and the demo: `entrepot up --detach`, and its end."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from entrepot_testkit.api import Api, until

UP_S = 240
DOWN_S = 180
COME_BACK_S = 60.0
ENTREPOT = (sys.executable, "-m", "entrepot_cli")
LOOPBACK = ("127.0.0.0/8",)


class StackFailed(Exception):
    """`entrepot up` or `down` failed; the text is what it said."""


class EmbeddedStack:
    """A running stack, known by its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def endpoints(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "run" / "endpoints.json").read_text())
        return found

    @property
    def url(self) -> str:
        return str(self.endpoints["api"])

    @property
    def admin_key_file(self) -> Path:
        return Path(self.endpoints["admin_key_file"])

    def admin(self, *, patience_s: float = 0) -> Api:
        return Api(self.url, self.admin_key_file.read_text(), patience_s=patience_s)

    def pid(self, name: str) -> int:
        return int(self.endpoints["pids"].get(name, 0))

    def kill(self, name: str) -> int:
        """SIGKILL one process; the pid it had."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        return pid

    def comes_back(self, name: str, *, old_pid: int) -> int:
        """Wait until the supervisor runs it again; the new pid."""

        def back() -> int:
            pid = self.pid(name)
            return pid if pid not in (0, old_pid) else 0

        return int(until(back, timeout_s=COME_BACK_S, what=f"{name} started again"))

    def kill_supervisor(self) -> None:
        """SIGKILL to the supervisor; its children except PostgreSQL end with it."""
        pids = self.endpoints["pids"]
        os.kill(self.endpoints["supervisor"], signal.SIGKILL)
        ours = [pid for name, pid in pids.items() if name != "postgres"]
        until(
            lambda: not any(_alive(pid) for pid in ours),
            timeout_s=COME_BACK_S,
            what="children gone with their supervisor",
        )

    def down(self) -> None:
        _entrepot("down", "--data", str(self.folder), timeout_s=DOWN_S)


def up(
    folder: Path,
    *,
    movers: int = 1,
    env: Mapping[str, str] | None = None,
    allow_sources: Sequence[str] = LOOPBACK,
) -> EmbeddedStack:
    """Returns when everything is ready. `env` adds settings (ENTREPOT_MOTION_ENGINE_LEASE_S=3)."""
    _entrepot(
        *("up", "--detach", "--data", str(folder), "--movers", str(movers)),
        *(word for network in allow_sources for word in ("--allow-source", network)),
        env=env,
        timeout_s=UP_S,
    )
    return EmbeddedStack(folder)


@contextmanager
def embedded_stack(
    folder: Path,
    *,
    movers: int = 1,
    env: Mapping[str, str] | None = None,
    allow_sources: Sequence[str] = LOOPBACK,
) -> Iterator[EmbeddedStack]:
    """Up, and down whatever happens in between."""
    try:
        yield up(folder, movers=movers, env=env, allow_sources=allow_sources)
    finally:
        EmbeddedStack(folder).down()


def _alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _entrepot(*words: str, timeout_s: float, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        [*ENTREPOT, *words],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
        timeout=timeout_s,
    )
    if done.returncode != 0:
        raise StackFailed(f"entrepot {words[0]}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
