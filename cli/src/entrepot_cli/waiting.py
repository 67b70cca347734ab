"""Waits for a job, with progress on stderr: a bar on a terminal, lines elsewhere."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from cyclopts import Parameter

from entrepot_chassis.clock import SystemClock
from entrepot_cli.api import Api
from entrepot_cli.exits import Exit, Failure
from entrepot_cli.printing import human_bytes, tell

POLL_S = 1.0
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)?\Z")
_UNIT_S = {None: 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Waiting:
    wait: Annotated[bool, Parameter(help="Wait for the job and show what it made.")] = False
    timeout: Annotated[str, Parameter(help="Give up waiting after this: 90s, 10m, 2h.")] = "1h"

    @property
    def timeout_s(self) -> float:
        return duration_s(self.timeout)


WAITING = Waiting()


def duration_s(text: str) -> float:
    match = _DURATION.match(text.strip())
    if match is None:
        raise Failure(
            Exit.USAGE, "usage", f"{text!r} is no duration", field="timeout", hint="like 90s or 10m"
        )
    return float(match[1]) * _UNIT_S[match[2]]


def wait_for(api: Api, job_id: str, *, timeout_s: float) -> dict[str, Any]:
    """The job once it has succeeded. Raises Failure when it failed, or with exit 8 in time."""
    clock = SystemClock()
    deadline = clock.monotonic() + timeout_s
    with _progress() as progress:
        while True:
            left_s = deadline - clock.monotonic()
            job = api.get(f"/v1/jobs/{job_id}", {"wait_s": max(0.0, min(POLL_S, left_s))})
            progress.update(job)
            if job["state"] == "succeeded":
                return job
            if job["state"] == "failed":
                raise Failure.of_problem(job.get("error") or {})
            if left_s <= 0:
                raise Failure(
                    Exit.WAIT_TIMED_OUT,
                    "wait_timed_out",
                    f"the job did not end within {timeout_s:.0f} s; it goes on",
                    hint=f"entrepot job wait {job_id}",
                )


class Progress(Protocol):
    def update(self, job: dict[str, Any]) -> None: ...


@contextmanager
def _progress() -> Iterator[Progress]:
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as RichProgress

    shown = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with RichProgress(*shown, console=Console(stderr=True), transient=True) as bar:
        yield _Bar(bar)


class _Lines:
    """A line whenever what it says has changed."""

    def __init__(self) -> None:
        self._said = ""

    def update(self, job: dict[str, Any]) -> None:
        said = _words(job)
        if said != self._said:
            self._said = said
            tell(said)


class _Bar:
    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._task = bar.add_task("", total=None)

    def update(self, job: dict[str, Any]) -> None:
        self._bar.update(
            self._task,
            description=f"{job['kind']} {job.get('step') or job['state']}",
            completed=job.get("bytes_done") or 0,
            total=job.get("bytes_total"),
        )


def _words(job: dict[str, Any]) -> str:
    done, total = job.get("bytes_done") or 0, job.get("bytes_total")
    moved = f"  {human_bytes(done)}" if done else ""
    moved += f" of {human_bytes(total)}" if done and total else ""
    step = job.get("step") or ""
    return f"{job['kind']}: {job['state']}{' ' + step if step else ''}{moved}"
