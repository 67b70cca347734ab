"""Watches the resident memory of everything the demo started, PostgreSQL apart."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterable
from typing import Self

import psutil
from msgspec import Struct

EVERY_S = 0.5
MIB = 1 << 20


class Peak(Struct, kw_only=True):
    total_bytes: int = 0
    by_name: dict[str, int] = {}


class MemoryWatch:
    """Samples `roots` and all their descendants; PostgreSQL's processes are left out."""

    def __init__(self, roots: Callable[[], Iterable[int]]) -> None:
        self.peak = Peak()
        self._roots = roots
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory-watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(EVERY_S):
            self._sample()

    def _sample(self) -> None:
        sizes: dict[str, int] = {}
        for process in _family({os.getpid(), *self._roots()}):
            with contextlib.suppress(psutil.Error):
                name = _label(process)
                if name != "postgres":
                    # Pages shared between processes count once in all: that is what they cost.
                    sizes[name] = sizes.get(name, 0) + process.memory_full_info().pss
        total = sum(sizes.values())
        if total > self.peak.total_bytes:
            self.peak = Peak(total_bytes=total, by_name=sizes)


def _family(roots: Iterable[int]) -> Iterable[psutil.Process]:
    found: dict[int, psutil.Process] = {}
    for pid in roots:
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(pid)
            for process in (root, *root.children(recursive=True)):
                found[process.pid] = process
    return found.values()


def _label(process: psutil.Process) -> str:
    argv = process.cmdline()
    if "-m" in argv[:-1]:
        return argv[argv.index("-m") + 1]
    for part in argv[:3]:
        name = os.path.basename(part)  # noqa: PTH119 - a string of another process, not our path
        if "swift" in part:
            return "swift"
        if name.startswith("entrepot"):
            return "entrepot cli"
    return process.name()
