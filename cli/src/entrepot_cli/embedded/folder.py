"""The data folder of an embedded stack: secrets, ports, logs, pid files, and the lock on them."""

# DIR/ports.json            ports chosen at the first start, kept for restarts
# DIR/secrets/              keys and passwords, 0600 in a 0700 folder
# DIR/nats DIR/postgres     the servers' own folders
# DIR/state/<service>/      what a service itself keeps (0700)
# DIR/log/<name>.log        one per process
# DIR/run/<name>.pid        JSON: pid and start time, so a recycled pid is never taken for ours
# DIR/run/endpoints.json    written when everything is ready, removed at the end

import contextlib
import fcntl
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import psutil
from msgspec import Struct

START_TIME_SLACK_S = 0.05


class Occupied(Exception):
    """Another supervisor holds the folder."""


class ProcessMark(Struct, frozen=True, kw_only=True):
    """A process by pid and start time (seconds of the kernel's boot clock, by psutil)."""

    pid: int
    started: float

    def process(self) -> psutil.Process | None:
        """The very process, or None if it is gone or its pid serves another one now."""
        try:
            found = psutil.Process(self.pid)
            same = abs(found.create_time() - self.started) < START_TIME_SLACK_S
            return found if same and found.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None

    @classmethod
    def of(cls, pid: int) -> "ProcessMark":
        return cls(pid=pid, started=psutil.Process(pid).create_time())


class Endpoints(Struct, frozen=True, kw_only=True):
    """What others need to talk to the running stack."""

    api: str
    health: dict[str, str]
    pids: dict[str, int]
    admin_key_file: str
    supervisor: int


class DataFolder:
    """All paths of one stack; making it creates the folders with the right modes."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.secrets, self.log, self.run = (self.root / name for name in ("secrets", "log", "run"))

    def prepare(self) -> None:
        # PostgreSQL's own user must get through the root folder; nobody else may look into it.
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o711)
        for folder in (self.secrets, self.log, self.run):
            folder.mkdir(exist_ok=True, mode=0o700)
            folder.chmod(0o700)

    def state(self, service: str) -> Path:
        folder = self.root / "state" / service
        folder.parent.mkdir(exist_ok=True, mode=0o700)
        folder.mkdir(exist_ok=True, mode=0o700)
        return folder

    def log_of(self, name: str) -> Path:
        return self.log / f"{name}.log"

    def secret(self, name: str, make: Callable[[], str]) -> Path:
        """Path of a secret, made once, readable by its owner only from its first byte on."""
        path = self.secrets / name
        if not path.exists():
            write_private(path, make())
        return path

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Held by the supervisor as long as it lives; the kernel lets go when it dies."""
        with (self.run / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as err:
                raise Occupied(f"{self.root} is in use by a running `entrepot up`") from err
            yield

    # --- pid files ---

    def mark(self, name: str, pid: int) -> None:
        write_private(self._pid_path(name), msgspec.json.encode(ProcessMark.of(pid)).decode())

    def unmark(self, name: str) -> None:
        self._pid_path(name).unlink(missing_ok=True)

    def marked(self, name: str) -> ProcessMark | None:
        try:
            return msgspec.json.decode(self._pid_path(name).read_bytes(), type=ProcessMark)
        except (OSError, msgspec.DecodeError):
            return None

    def all_marked(self) -> dict[str, ProcessMark]:
        names = sorted(path.stem for path in self.run.glob("*.pid"))
        return {name: mark for name in names if (mark := self.marked(name)) is not None}

    def _pid_path(self, name: str) -> Path:
        return self.run / f"{name}.pid"

    # --- endpoints ---

    @property
    def endpoints_path(self) -> Path:
        return self.run / "endpoints.json"

    def endpoints(self) -> Endpoints | None:
        try:
            return msgspec.json.decode(self.endpoints_path.read_bytes(), type=Endpoints)
        except (OSError, msgspec.DecodeError):
            return None

    def announce(self, endpoints: Endpoints) -> None:
        write_private(self.endpoints_path, msgspec.json.encode(endpoints).decode())

    # --- ports ---

    def ports(self, names: Sequence[str]) -> dict[str, int]:
        """A port per name: the one of the last run if nobody else took it, else a fresh one."""
        path = self.root / "ports.json"
        kept: dict[str, int] = {}
        with contextlib.suppress(OSError, msgspec.DecodeError):
            kept = msgspec.json.decode(path.read_bytes(), type=dict[str, int])
        with contextlib.ExitStack() as held:  # all held at once, so none is given out twice
            for name in names:
                kept[name] = _reserve(held, kept.get(name, 0))
        write_private(path, msgspec.json.encode(kept).decode())
        return {name: kept[name] for name in names}


def default_root() -> Path:
    """Root's home is closed to the user PostgreSQL drops to, so root's data lies in /var/tmp."""
    if os.geteuid() == 0:
        return Path("/var/tmp/entrepot-0")  # noqa: S108 - made 0711, everything in it 0700
    data_home = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(data_home) / "entrepot"


def write_private(path: Path, text: str) -> None:
    """Whole or not at all, 0600 from the start."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123 - only open() takes a descriptor
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)


def _reserve(held: contextlib.ExitStack, wanted: int) -> int:
    for port in (wanted, 0):
        listener = held.enter_context(socket.socket())
        # As the servers do: connections of a stack that just ended linger in TIME_WAIT.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            continue
        chosen: int = listener.getsockname()[1]
        return chosen
    raise OSError("no free port on 127.0.0.1")
