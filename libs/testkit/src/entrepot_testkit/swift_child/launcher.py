"""Runs in Swift's own environment: builds the rings, forks Swift's servers and minds them.

    python -I launcher.py CONFIG_DIR '{"account": 1, "container": 2, "object": 3, "memcached": 4}'

Swift is imported once and the servers are forked from there: one import instead of four. Standard
input is the leash: when it ends, because the starter stopped us or died, everything ends.
"""

import asyncio
import functools
import importlib
import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

MODULES = {
    "account": "swift.account.server",
    "container": "swift.container.server",
    "object": "swift.obj.server",
    "proxy": "swift.proxy.server",
}
GRACE_S = 3.0


def main() -> int:
    config, ports = Path(sys.argv[1]), json.loads(sys.argv[2])
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    pids: dict[str, int] = {}
    try:
        pids["memcached"] = _fork("memcached", config, lambda: _memcached(ports["memcached"]))
        _build_rings(config, ports)
        modules = {name: importlib.import_module(path) for name, path in MODULES.items()}
        for name, module in modules.items():
            pids[name] = _fork(name, config, functools.partial(_serve, name, module, config))
        _say(sys.stdout, json.dumps(pids))
        return _mind(pids)
    finally:
        _end(pids)


def _fork(name: str, config: Path, body: Callable[[], None]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        log = os.open(
            config.parent / "log" / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600
        )
        null = os.open(os.devnull, os.O_RDONLY)
        for target, source in ((0, null), (1, log), (2, log)):
            os.dup2(source, target)
        body()
        code = 0
    except Exception:  # noqa: BLE001 - _exit would swallow what the log is there for
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _memcached(port: int) -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    memcached = importlib.import_module("memcached")
    asyncio.run(memcached.serve(port))


def _serve(name: str, module: object, config: Path) -> None:
    sys.argv = [f"swift-{name}-server", str(config / f"{name}-server.conf"), "-v"]
    try:
        module.main()  # type: ignore[attr-defined]
    except SystemExit as end:
        if end.code:
            _say(sys.stderr, f"ended with {end.code}")
            raise


def _build_rings(config: Path, ports: dict[str, int]) -> None:
    """Three rings of one device and one replica; rebuilt each time, since ports may change."""
    RingBuilder = importlib.import_module("swift.common.ring").RingBuilder  # noqa: N806
    for name in ("account", "container", "object"):
        builder = RingBuilder(4, 1, 1)
        place = {"ip": "127.0.0.1", "port": ports[name], "device": "d1"}
        replication = {"replication_ip": "127.0.0.1", "replication_port": ports[name]}
        builder.add_dev(
            {"id": 0, "region": 1, "zone": 1, "weight": 1, "meta": "", **place, **replication}
        )
        builder.rebalance()
        builder.get_ring().save(str(config / f"{name}.ring.gz"))


def _mind(pids: dict[str, int]) -> int:
    """Wait for the leash to end (0) or a server to die by itself (1)."""
    while True:
        readable, _, _ = select.select([0], [], [], 0.5)
        if readable and not os.read(0, 4096):
            return 0
        gone, _ = os.waitpid(-1, os.WNOHANG)
        if gone in pids.values():
            names = {pid: name for name, pid in pids.items()}
            _say(sys.stderr, f"{names[gone]} died")
            return 1


def _end(pids: dict[str, int]) -> None:
    for number in (signal.SIGCONT, signal.SIGTERM):
        _signal(pids, number)
    deadline = time.monotonic() + GRACE_S
    left = dict(pids)
    while left and time.monotonic() < deadline:
        left = {name: pid for name, pid in left.items() if not _reaped(pid)}
        time.sleep(0.02)
    _signal(left, signal.SIGKILL)


def _signal(pids: dict[str, int], number: int) -> None:
    for pid in pids.values():
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _say(stream: TextIO, text: str) -> None:
    stream.write(text + "\n")
    stream.flush()


def _reaped(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


if __name__ == "__main__":
    sys.exit(main())
