"""The mover against s5cmd and rclone: CPU-seconds per GiB and peak memory, up and down.

All on one real Swift (s3api), in interleaved rounds, medians and paired ratios. See README.md.
"""

import argparse
import datetime as dt
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from benchmarks import peers
from benchmarks.mover_worker import Plan, peak_bytes
from entrepot_testkit.swift import SwiftServer, swift_server

GIB = 1 << 30
BUCKET = "bench"
RESULTS = Path(__file__).parent / "results"
TOOLS = ("mover", "s5cmd", "rclone")


class Sample(Struct, frozen=True, kw_only=True):
    """One transfer."""

    cpu_s: float
    wall_s: float
    rss_bytes: int
    verify_cpu_s: float = 0.0
    verify_wall_s: float = 0.0


class Bench:
    """One source file, one server, and every tool's way to move the one through the other."""

    def __init__(self, folder: Path, swift: SwiftServer, size_bytes: int) -> None:
        self._folder = folder
        self._swift = swift
        self._pool = folder / "pool"
        (self._pool / "volumes").mkdir(parents=True)
        self.size_bytes = size_bytes
        self._source = self._pool / "volumes" / "source.raw"
        self._root = ""
        with self._source.open("wb") as file:
            for _ in range(size_bytes >> 20):
                file.write(os.urandom(1 << 20))
        self._stored: dict[str, Any] = {}
        self._count = 0

    def up(self, tool: str) -> Sample:
        if tool == "mover":
            return self._mover("up", volume_id="source", prefix=f"up/{self._next()}/")
        return self._peer(tool, "up", self._source, f"up/{tool}-{self._next()}")

    def down(self, tool: str) -> Sample:
        """Of the object the mover stored last; every target is a fresh file, removed afterwards."""
        if tool == "mover":
            name = f"target{self._next()}"
            sample = self._mover("down", volume_id=name, stored=self._stored)
            self._check_and_remove(self._pool / "volumes" / f"{name}.raw")
            return sample
        path = self._folder / f"{tool}-{self._next()}.raw"
        sample = self._peer(tool, "down", path, self._stored["key"])
        self._check_and_remove(path)
        return sample

    def _next(self) -> int:
        self._count += 1
        return self._count

    def _check_and_remove(self, path: Path) -> None:
        subprocess.run(["cmp", self._source, path], check=True)
        path.unlink()

    def _mover(self, direction: str, **fields: Any) -> Sample:
        plan = {
            "direction": direction,
            "endpoint": self._swift.endpoint,
            "bucket": BUCKET,
            "access_key": self._swift.access_key,
            "secret_key": self._swift.secret_key,
            "pool": str(self._pool),
            **fields,
        }
        path = self._folder / "plan.json"
        path.write_bytes(msgspec.json.encode(msgspec.convert(plan, Plan)))
        path.chmod(0o600)
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.mover_worker", path],
            check=True,
            stdout=subprocess.PIPE,
        )
        answer = msgspec.json.decode(done.stdout)
        assert self._root in {"", answer["root"]}, "another digest of the same bytes"
        self._root = answer["root"]
        if direction == "up":
            self._stored = answer["stored"]
        return msgspec.convert({k: answer[k] for k in Sample.__struct_fields__}, Sample)

    def _peer(self, tool: str, direction: str, path: Path, key: str) -> Sample:
        words, environ = peers.command(tool, direction, path, f"{BUCKET}/{key}", self._swift)
        began = time.monotonic()
        process = subprocess.Popen(words, env=environ, stdout=subprocess.DEVNULL)
        peak = 0
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            with suppress(OSError):
                peak = max(peak, peak_bytes(str(process.pid)))
            time.sleep(0.02)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall_s = time.monotonic() - began
        if process.returncode:
            raise SystemExit(f"{tool} {direction} failed with {process.returncode}")
        return Sample(
            cpu_s=usage.ru_utime + usage.ru_stime,
            wall_s=wall_s,
            rss_bytes=peak,
        )


def rounds(bench: Bench, count: int) -> dict[str, list[dict[str, Sample]]]:
    """Interleaved: every round runs every tool, beginning with another one each time."""
    found: dict[str, list[dict[str, Sample]]] = {"up": [], "down": []}
    bench.up("mover")  # makes the bucket, warms the server
    bench.down("mover")  # the first touch of a page costs more here than all the rest
    for number in range(count):
        order = TOOLS[number % len(TOOLS) :] + TOOLS[: number % len(TOOLS)]
        steps: dict[str, Callable[[str], Sample]] = {"up": bench.up, "down": bench.down}
        for direction, step in steps.items():
            found[direction].append({tool: step(tool) for tool in order})
            line = {
                tool: round(s.cpu_s * GIB / bench.size_bytes, 2)
                for tool, s in found[direction][-1].items()
            }
            print(f"round {number + 1} {direction:4} CPU-s/GiB {line}", flush=True)
    return found


def table(found: dict[str, list[dict[str, Sample]]], size_bytes: int) -> Iterator[str]:
    per_gib = GIB / size_bytes
    names = {"up": "Upload (raw file to S3, content digest included)"}
    names["down"] = (
        "Download (S3 to a fresh file, every leaf verified by the mover, nothing by the peers)"
    )
    for direction, title in names.items():
        samples = found[direction]
        yield f"\n## {title}\n"
        yield "| tool | CPU-s/GiB | mover / tool (paired) | MiB/s | peak RSS MiB |"
        yield "|---|---|---|---|---|"
        for tool in TOOLS:
            mine = [one[tool] for one in samples]
            ratio = statistics.median(one["mover"].cpu_s / one[tool].cpu_s for one in samples)
            rate = statistics.median((size_bytes >> 20) / one.wall_s for one in mine)
            cpu = statistics.median(one.cpu_s for one in mine) * per_gib
            rss = max(one.rss_bytes for one in mine) >> 20
            yield f"| {tool} | {cpu:.2f} | {ratio:.2f} | {rate:.0f} | {rss} |"
        cpu = statistics.median(one["mover"].verify_cpu_s for one in samples) * per_gib
        wall = statistics.median(one["mover"].verify_wall_s for one in samples) * per_gib
        yield "\nThe mover's verification (what the target holds is read again, every leaf"
        yield f"compared): {cpu:.2f} CPU-s/GiB, {wall:.1f} s/GiB. It is not in the table; the"
        yield "peers have none."


def report(found: dict[str, list[dict[str, Sample]]], bench: Bench, count: int) -> str:
    today = dt.datetime.now(tz=dt.UTC).date()
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    head = [
        f"# Mover, {today}",
        "",
        f"{bench.size_bytes >> 20} MiB of random bytes, {count} interleaved rounds, medians; ",
        "server: one OpenStack Swift with s3api on the same machine. ",
        f"{os.cpu_count()} CPUs, {platform.machine()}, Linux {platform.release()}, ",
        f"Python {platform.python_version()}, load average at the end {load}. ",
        "CPU is user + system of the client: of the transfer for the mover, of the process for ",
        f"the peers. {peers.versions()}.",
    ]
    return "\n".join([*head, *table(found, bench.size_bytes)]) + "\n"


@contextmanager
def workplace(parent: str | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="entrepot-bench-", dir=parent) as folder:
        yield Path(folder)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mover", description=__doc__)
    parser.add_argument("--mib", type=int, default=1024, help="size of the file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", help="where to work (default: the temporary directory)")
    parser.add_argument("--out", type=Path, help="where to write (default: benchmarks/results)")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    peers.ensure()
    with workplace(options.dir) as folder, swift_server(folder / "swift") as swift:
        bench = Bench(folder, swift, options.mib << 20)
        text = report(rounds(bench, options.rounds), bench, options.rounds)
    today = dt.datetime.now(tz=dt.UTC).date()
    out = options.out or RESULTS / f"{today}-mover.md"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text)
    print(text)
    print(f"written to {out}")


if __name__ == "__main__":
    main()
