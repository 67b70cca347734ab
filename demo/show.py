"""What the demo prints: steps as they run, live progress, and the closing table."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from msgspec import Struct

MB = 1_000_000
LINE_EVERY_S = 2.0
HASH_CHARS = 12


class Row(Struct, kw_only=True):
    """One line of the closing table. `bytes` is what the step moved or compared."""

    step: str
    bytes: int = 0
    seconds: float = 0.0
    verified: str = ""


class Show:
    """Writes to stdout; a terminal gets one line that moves, a log gets a line now and then."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._live = sys.stdout.isatty()
        self._last_s = 0.0
        self._dirty = False

    def head(self, text: str) -> None:
        self._finish_line()
        print(f"\n== {text}", flush=True)

    def say(self, text: str) -> None:
        self._finish_line()
        print(f"   {text}", flush=True)

    def progress(self, what: str, done: int, total: int | None) -> None:
        """Where a running job stands."""
        now = time.monotonic()
        share = f"{100 * done / total:4.0f} %" if total else "     "
        text = f"   {what:28} {share}  {done / MB:8.1f} MB"
        if self._live:
            print(f"\r{text}\x1b[K", end="", flush=True)
            self._dirty = True
        elif now - self._last_s >= LINE_EVERY_S:
            print(text, flush=True)
            self._last_s = now

    @contextmanager
    def step(self, name: str) -> Iterator[Row]:
        """Times a step; whoever runs it fills in bytes and hash."""
        row = Row(step=name)
        started = time.monotonic()
        yield row
        row.seconds = time.monotonic() - started
        self.rows.append(row)
        self._finish_line()
        print(f"   {name}: {_figures(row)}", flush=True)

    def table(self) -> None:
        self._finish_line()
        print(f"\n{'step':46} {'bytes':>13} {'seconds':>8} {'MB/s':>7}  verified hash")
        print("-" * 104)
        for row in self.rows:
            size = f"{row.bytes:,}" if row.bytes else ""
            rate = f"{row.bytes / MB / row.seconds:.0f}" if row.bytes and row.seconds else ""
            print(f"{row.step:46} {size:>13} {row.seconds:8.1f} {rate:>7}  {row.verified}")
        print(flush=True)

    def _finish_line(self) -> None:
        if self._dirty:
            print(flush=True)
            self._dirty = False


def short(algorithm: str, value: str) -> str:
    return f"{algorithm} {value[:HASH_CHARS]}…"


def _figures(row: Row) -> str:
    size = f"{row.bytes / MB:.1f} MB, {row.bytes / MB / max(row.seconds, 0.001):.0f} MB/s, "
    return f"{size if row.bytes else ''}{row.seconds:.1f} s  {row.verified}".rstrip()
