"""A real OpenStack Swift (Swift API and S3) on free loopback ports, data in one folder.

    with swift_server(Path("/tmp/x")) as swift: swift.endpoint, swift.access_key, swift.secret_key
    python -m entrepot_testkit.swift --dir D      # prints one JSON line, runs until SIGTERM

Started again on the same folder it finds its data, keeps its keys, and its ports if they are free.
The folder must allow user extended attributes (ext4, xfs, btrfs; tmpfs on recent kernels).
"""

import argparse
import http.client
import json
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from entrepot_testkit.swift_config import SwiftPorts, SwiftUser, write_config
from entrepot_testkit.swift_venv import ensure_swift_venv

LAUNCHER = Path(__file__).parent / "swift_child" / "launcher.py"
START_S = 60.0
START_TRIES = 3
STOP_S = 10.0


class SwiftTrouble(Exception):
    """Swift could not be started; the text says why and ends with its log."""


class SwiftState(msgspec.Struct, frozen=True, kw_only=True):
    """What a folder remembers between runs (`state.json`, mode 0600)."""

    ports: SwiftPorts
    user: SwiftUser


class SwiftServer:
    """Running servers. `pids` by name: memcached, account, container, object, proxy."""

    def __init__(
        self, process: subprocess.Popen[str], state: SwiftState, pids: dict[str, int]
    ) -> None:
        self._process = process
        self.endpoint = f"http://127.0.0.1:{state.ports.proxy}"
        self.auth_url = f"{self.endpoint}/auth/v1.0"
        self.access_key = state.user.access_key
        self.secret_key = state.user.key
        self.region = "us-east-1"
        self.pids = pids

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        """End all servers; a second time does nothing."""
        _stop(self._process)


@contextmanager
def swift_server(directory: Path) -> Iterator[SwiftServer]:
    """Entered: healthy. Left: all processes ended; the data stays."""
    server = start(directory)
    try:
        yield server
    finally:
        server.stop()


def start(directory: Path) -> SwiftServer:
    python = ensure_swift_venv()
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    _check_xattrs(directory)
    for attempt in range(1, START_TRIES + 1):
        state = _state(directory, fresh_ports=attempt > 1)
        etc = write_config(directory, state.ports, state.user)
        try:
            return _launch(python, etc, state)
        except SwiftTrouble:  # a port may have been taken between choosing and binding
            if attempt == START_TRIES:
                raise
    raise AssertionError


def _launch(python: Path, etc: Path, state: SwiftState) -> SwiftServer:
    for old in (etc.parent / "log").glob("*.log"):
        old.unlink()
    plan = json.dumps(msgspec.structs.asdict(state.ports))
    with (etc.parent / "log" / "launcher.log").open("a") as log:
        process = subprocess.Popen(
            [str(python), "-I", str(LAUNCHER), str(etc), plan],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, "EVENTLET_HUB": "poll"},
            start_new_session=True,
            text=True,
        )
    assert process.stdout
    try:
        line = process.stdout.readline()
        pids = json.loads(line) if line else {}  # empty: it ended at once
        server = SwiftServer(process, state, pids)
        _wait_healthy(server, state.ports, etc.parent)
    except BaseException:
        _stop(process)
        raise
    return server


def _wait_healthy(server: SwiftServer, ports: SwiftPorts, directory: Path) -> None:
    waiting = list(msgspec.structs.astuple(ports))
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.running:
        waiting = [port for port in waiting if not _accepts(port)]
        if not waiting and _healthy(ports.proxy):
            return
        time.sleep(0.03)
    raise SwiftTrouble(f"Swift did not become healthy: {_logs(directory)}")


def _accepts(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/healthcheck")
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


def _stop(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    assert process.stdout
    with suppress(OSError):
        process.stdin.close()  # the leash: the launcher ends its children, then itself
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait(STOP_S)
    process.stdout.close()


def _check_xattrs(directory: Path) -> None:
    probe = directory / ".xattr-probe"
    probe.touch()
    try:
        os.setxattr(probe, "user.entrepot.probe", b"1")
    except OSError as err:
        raise SwiftTrouble(
            f"{directory} is on a file system without user extended attributes "
            f"({err.strerror}): choose a folder on ext4, xfs or btrfs"
        ) from err
    finally:
        probe.unlink()


def _state(directory: Path, *, fresh_ports: bool) -> SwiftState:
    path = directory / "state.json"
    user = SwiftUser(account="entrepot", name="store", key=secrets.token_hex(20))
    ports: SwiftPorts | None = None
    if path.exists():
        old = msgspec.json.decode(path.read_bytes(), type=SwiftState)
        user = old.user
        if not fresh_ports and all(map(_free, msgspec.structs.astuple(old.ports))):
            ports = old.ports
    state = SwiftState(ports=ports or _free_ports(), user=user)
    path.touch(mode=0o600)
    path.write_bytes(msgspec.json.encode(state))
    return state


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_ports() -> SwiftPorts:
    """All held open together, so that no two are the same."""
    sockets = [socket.socket() for _ in SwiftPorts.__struct_fields__]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        numbers = [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
    return SwiftPorts(**dict(zip(SwiftPorts.__struct_fields__, numbers, strict=True)))


def _logs(directory: Path) -> str:
    texts = (f"{log.name}: {log.read_text()[-600:]}" for log in (directory / "log").glob("*.log"))
    return " | ".join(texts) or "no log"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m entrepot_testkit.swift", description=__doc__)
    parser.add_argument("--dir", type=Path, required=True, help="folder for data, keys and logs")
    parser.add_argument(
        "--leash", action="store_true", help="end when standard input ends (the starter died)"
    )
    options = parser.parse_args()
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    try:
        with swift_server(options.dir) as server:
            facts = {
                "endpoint": server.endpoint,
                "auth_url": server.auth_url,
                "access_key": server.access_key,
                "secret_key": server.secret_key,
                "region": server.region,
                "pids": server.pids,
            }
            sys.stdout.write(json.dumps(facts) + "\n")
            sys.stdout.flush()
            while server.running and not stopped.wait(0.3):
                if options.leash and _leash_ended():
                    stopped.set()
            return 0 if stopped.is_set() else 1
    except SwiftTrouble as trouble:
        sys.stderr.write(f"{trouble}\n")
        return 1


def _leash_ended() -> bool:
    readable, _, _ = select.select([sys.stdin], [], [], 0)
    return bool(readable) and not os.read(sys.stdin.fileno(), 4096)


if __name__ == "__main__":
    sys.exit(main())
