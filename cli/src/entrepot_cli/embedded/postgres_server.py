"""A private PostgreSQL on a unix socket: find the binaries, initdb, start, kill, make roles."""

import os
import pwd
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from entrepot_cli.embedded.child import Child, StartFailed, drop_to
from entrepot_cli.embedded.postgres_wheel import copied_bin, wheel_bin

OWNER = "entrepot"  # the superuser initdb makes; trusted on the socket of a 0700 folder
_PORT = 5432  # only the name of the socket file; nothing listens on TCP
_START_S = 60.0
_ORPHAN_POLLS = 50
_ORPHAN_POLL_S = 0.1
_SOCKET_PATH_BYTES_MAX = 107
_SETTINGS = {
    "listen_addresses": "",
    "shared_buffers": "64MB",
    "max_connections": "120",
    "fsync": "on",
    "synchronous_commit": "on",
    "idle_in_transaction_session_timeout": "60s",
}
_DROP_TO = ("postgres", "nobody")


class PostgresServer:
    """One cluster over one folder (`data`, `sock`, `postgres.log` in it).

    As root the server runs as `user` (default: postgres, else nobody), which must be able to
    reach the folder; otherwise as ourselves. Password-less on the socket, whose folder only its
    user (and root) can enter.
    """

    def __init__(
        self,
        folder: Path,
        *,
        user: str | None = None,
        bin_dir: Path | None = None,
        settings: Mapping[str, str] | None = None,
        die_with_parent: bool = False,
        log_path: Path | None = None,
    ) -> None:
        self._folder = folder.absolute()
        self._data, self._socket_dir = self._folder / "data", self._folder / "sock"
        self._user = server_user(user)
        self._bin = bin_dir or find_postgres(data_dir=self._data, user=self._user)
        options = {**_SETTINGS, **(settings or {})}
        self._child = Child(
            [
                str(self._bin / "postgres"),
                *("-D", str(self._data), "-k", str(self._socket_dir), "-p", str(_PORT)),
                *(part for key, value in options.items() for part in ("-c", f"{key}={value}")),
            ],
            log_path=log_path or self._folder / "postgres.log",
            env=_environment(),
            user=self._user,
            die_with_parent=die_with_parent,
            death_signal=signal.SIGQUIT,
        )

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child.running

    @property
    def socket_dir(self) -> Path:
        return self._socket_dir

    @property
    def data_dir(self) -> Path:
        return self._data

    @property
    def system_user(self) -> str:
        """Name of the operating system's user the server runs as."""
        return self._user or pwd.getpwuid(os.geteuid()).pw_name

    @property
    def ready(self) -> bool:
        return self.running and self._ready()

    def dsn(self, *, role: str = OWNER, database: str = "postgres") -> str:
        return f"postgresql://{role}@/{database}?host={self._socket_dir}&port={_PORT}"

    def start(self) -> None:
        self._prepare_folders()
        if not (self._data / "PG_VERSION").exists():
            self._initdb()
        for patience in reversed(range(_ORPHAN_POLLS)):
            self._child.start()
            try:
                self._child.await_ready(self._ready, timeout_s=_START_S)
            except StartFailed as failed:
                # After a SIGKILL of the postmaster its children need a moment to notice.
                if patience == 0 or "shared memory block" not in str(failed):
                    raise
                time.sleep(_ORPHAN_POLL_S)
            else:
                return

    def stop(self) -> None:
        """Fast shutdown: sessions are ended, a checkpoint is written."""
        self._child.stop(stop_signal=signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL of the postmaster; its children notice and end by themselves."""
        self._child.kill()

    def restart(self) -> None:
        self.stop()
        self.start()

    def psql(self, sql: str, *, database: str = "postgres") -> str:
        """Run SQL as the owner, unaligned output; StartFailed with the server's words. It goes in
        by stdin: arguments of a process, passwords in them, are everybody's to read.
        """
        done = self._run(
            [
                *("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"),
                *("-h", str(self._socket_dir), "-p", str(_PORT), "-U", OWNER, "-d", database),
            ],
            stdin=sql,
        )
        return done.stdout.decode().strip()

    def ensure_database(self, name: str, *, roles: Mapping[str, str] | None = None) -> None:
        """The database, and for each service role -> schema a login role that owns that schema
        and can do nothing else. Repeats safely.
        """
        known = _plain(name) in self.psql("SELECT datname FROM pg_database").split()
        if not known:
            self.psql(f"CREATE DATABASE {_plain(name)}")
            self.psql(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
            self.psql("REVOKE ALL ON SCHEMA public FROM PUBLIC", database=name)
        for role, schema in (roles or {}).items():
            if not self.psql(f"SELECT 1 FROM pg_roles WHERE rolname = '{_plain(role)}'"):  # noqa: S608
                self.psql(f"CREATE ROLE {role} LOGIN")
            self.psql(f"GRANT CONNECT ON DATABASE {name} TO {role}")
            self.psql(
                f"CREATE SCHEMA IF NOT EXISTS {_plain(schema)} AUTHORIZATION {role}", database=name
            )

    def _ready(self) -> bool:
        probe = ["-h", str(self._socket_dir), "-p", str(_PORT), "-U", OWNER, "-d", "postgres"]
        done = subprocess.run(
            [str(self._bin / "pg_isready"), "-q", *probe],
            check=False,
            env=_environment(),
            cwd="/",
            **drop_to(self._user),
        )
        return done.returncode == 0

    def _prepare_folders(self) -> None:
        socket_path = self._socket_dir / f".s.PGSQL.{_PORT}"
        if len(os.fsencode(socket_path)) > _SOCKET_PATH_BYTES_MAX:
            raise StartFailed(f"path too long for a unix socket, choose a shorter: {socket_path}")
        self._folder.mkdir(parents=True, exist_ok=True)
        for folder in (self._data, self._socket_dir):
            folder.mkdir(exist_ok=True, mode=0o700)
            if self._user is not None:
                shutil.chown(folder, self._user)
        if self._user is not None and not _reaches(self._user, self._data):
            raise StartFailed(
                f"user {self._user} cannot reach {self._folder}: a parent folder is closed to it; "
                "choose another data folder or open the parents (chmod o+x)"
            )

    def _initdb(self) -> None:
        for leftover in self._data.iterdir():  # an interrupted initdb; no PG_VERSION, no data
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        self._run(
            [
                *("initdb", "-D", str(self._data), "-U", OWNER, "-E", "UTF8", "--locale=C.UTF-8"),
                *("--auth-local=trust", "--auth-host=scram-sha-256", "--data-checksums"),
            ]
        )

    def _run(self, argv: Sequence[str], *, stdin: str = "") -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            [str(self._bin / argv[0]), *argv[1:]],
            input=stdin.encode(),
            check=False,
            capture_output=True,
            env=_environment(),
            cwd="/",
            **drop_to(self._user),
        )
        if done.returncode != 0:
            raise StartFailed(f"{argv[0]} failed: {done.stderr.decode(errors='replace').strip()}")
        return done


def server_user(wanted: str | None) -> str | None:
    """Whom PostgreSQL runs as: it refuses root, so root drops; anyone else stays."""
    if os.geteuid() != 0:
        return None
    for name in (wanted,) if wanted else _DROP_TO:
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    raise StartFailed(f"no user to run PostgreSQL as: {wanted or ' or '.join(_DROP_TO)}")


def find_postgres(*, data_dir: Path, user: str | None) -> Path:
    """Folder of the binaries: of the major version the data was made with, the system's before
    the pgserver wheel's, the newest first; only what the server's user may execute.
    """
    wanted = _major_of(data_dir)
    refused: list[str] = []
    for folder in _candidates():
        version = _version(folder / "postgres", user)
        if version is None or (wanted is not None and version != wanted):
            refused.append(str(folder))
            continue
        return folder
    wheel = wheel_bin()
    if user is not None and wheel is not None:  # there, but closed to the server's user
        version = _version(wheel / "postgres", None)
        if version is not None and wanted in (None, version):
            return copied_bin(wheel, data_dir.parent / "programs")
    need = f" of version {wanted}" if wanted else ""
    raise StartFailed(
        f"no usable PostgreSQL{need} (tried {', '.join(refused) or 'nothing'}): install the "
        "system's postgresql package or the PyPI package pgserver"
    )


def _plain(name: str) -> str:
    """Names are put into SQL as they are, so only plain ones."""
    assert re.fullmatch(r"[a-z][a-z0-9_]{0,62}", name), name
    return name


def _candidates() -> list[Path]:
    system = Path("/usr/lib/postgresql")
    found = sorted(
        (path for path in system.glob("*/bin") if path.parent.name.isdigit()),
        key=lambda path: -int(path.parent.name),
    )
    on_path = shutil.which("postgres")
    if on_path is not None:
        found.append(Path(on_path).resolve().parent)
    wheel = wheel_bin()
    if wheel is not None:
        found.append(wheel)
    return [path for path in dict.fromkeys(found) if (path / "initdb").exists()]


def _version(binary: Path, user: str | None) -> str | None:
    try:
        done = subprocess.run(
            [str(binary), "--version"], check=True, capture_output=True, cwd="/", **drop_to(user)
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    words: list[str] = done.stdout.decode().split()
    return words[2].split(".")[0]


def _major_of(data_dir: Path) -> str | None:
    try:
        return (data_dir / "PG_VERSION").read_text().strip()
    except OSError:
        return None


def _reaches(user: str, folder: Path) -> bool:
    done = subprocess.run(
        ["test", "-w", str(folder), "-a", "-x", str(folder)], check=False, cwd="/", **drop_to(user)
    )
    return done.returncode == 0


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
