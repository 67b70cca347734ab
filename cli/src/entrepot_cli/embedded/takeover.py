"""Ends processes that a killed run left behind, and only those."""

import contextlib
import os
import signal

import psutil

from entrepot_cli.embedded.folder import DataFolder, ProcessMark

GENTLE_S = 10.0
HARD_S = 10.0


def end_leftovers(folder: DataFolder) -> list[str]:
    """Names of what was still running. PostgreSQL gets a fast shutdown, the rest SIGTERM; what
    does not end in time is killed with its process group.
    """
    ended = []
    for name, mark in folder.all_marked().items():
        if end(mark, stop_signal=signal.SIGINT if name == "postgres" else signal.SIGTERM):
            ended.append(name)
        folder.unmark(name)
    folder.endpoints_path.unlink(missing_ok=True)
    return ended


def end(mark: ProcessMark, *, stop_signal: signal.Signals, gentle_s: float = GENTLE_S) -> bool:
    """True if the process was there. It is gone afterwards, and so is its process group."""
    process = mark.process()
    if process is None:
        return False
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGCONT)  # a stopped process would never hear the next one
        process.send_signal(stop_signal)
        try:
            process.wait(timeout=gentle_s)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(timeout=HARD_S)
    sweep_group(mark.pid)
    return True


def sweep_group(leader: int) -> None:
    """Our children lead their own group; helpers of theirs (qemu-img) may outlive them."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
