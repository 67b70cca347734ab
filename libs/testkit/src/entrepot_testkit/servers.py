"""Real nats-server and PostgreSQL for tests: free ports, a temporary folder, gone afterwards."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from entrepot_cli.embedded import nats_server as embedded_nats
from entrepot_cli.embedded import postgres_server as embedded_postgres
from entrepot_cli.embedded.nats_server import NatsServer
from entrepot_cli.embedded.postgres_server import PostgresServer

__all__ = ["NatsServer", "PostgresServer", "nats_server", "postgres_server", "scratch_folder"]


@contextmanager
def scratch_folder(prefix: str = "entrepot-") -> Iterator[Path]:
    """A short path (unix sockets are limited) that other users can pass through, not list."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def nats_server(folder: Path | None = None, *, extra_config: str = "") -> Iterator[NatsServer]:
    """JetStream with `sync_interval: always` on a free port; ends with the block."""
    with _folder_or_scratch(folder) as place:
        server = embedded_nats.NatsServer(place, extra_config=extra_config, die_with_parent=True)
        server.start()
        try:
            yield server
        finally:
            server.kill()


@contextmanager
def postgres_server(
    folder: Path | None = None, *, databases: Sequence[str] = ()
) -> Iterator[PostgresServer]:
    """PostgreSQL on a unix socket, `databases` made."""
    with _folder_or_scratch(folder) as place:
        server = embedded_postgres.PostgresServer(
            place / "pg" if folder is None else place, die_with_parent=True
        )
        server.start()
        try:
            for name in databases:
                server.ensure_database(name)
            yield server
        finally:
            server.stop()


@contextmanager
def _folder_or_scratch(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with scratch_folder(f"entrepot-{os.getpid()}-") as scratch:
        yield scratch
