"""The processes of an embedded stack, as the supervisor sees them."""

import contextlib
import http.client
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from entrepot_cli.embedded.child import Child, StartFailed
from entrepot_cli.embedded.nats_server import NatsServer
from entrepot_cli.embedded.postgres_server import PostgresServer

READY_TIMEOUT_S = 2.0
OK = 200
# A service hard-exits by itself 25 s after SIGTERM; only a stuck one meets our SIGKILL.
DRAIN_S = 30.0


class NatsUnit:
    """nats-server; after each start the streams are made again if they are gone (a wiped store)."""

    name = "nats"

    def __init__(self, server: NatsServer, *, ensure_streams: Callable[[str], None]) -> None:
        self._server, self._ensure_streams = server, ensure_streams

    @property
    def pid(self) -> int:
        return self._server.pid

    @property
    def running(self) -> bool:
        return self._server.running

    def start(self) -> None:
        self._server.start()
        try:
            self._ensure_streams(self._server.url)
        except Exception as err:
            raise StartFailed(f"streams could not be made: {err}") from err

    def ready(self) -> bool:
        return True

    def ask_stop(self) -> None:
        """Both servers stop fast, and in `stop`: nothing is left to drain by then."""

    def stop(self) -> None:
        self._server.stop()

    def kill(self) -> None:
        self._server.kill()


class PostgresUnit:
    """PostgreSQL over its folder."""

    name = "postgres"

    def __init__(self, server: PostgresServer) -> None:
        self._server = server

    @property
    def pid(self) -> int:
        return self._server.pid

    @property
    def running(self) -> bool:
        return self._server.running

    def start(self) -> None:
        self._server.start()

    def ready(self) -> bool:
        return True

    def ask_stop(self) -> None:
        """See NatsUnit."""

    def stop(self) -> None:
        self._server.stop()

    def kill(self) -> None:
        self._server.kill()


class ServiceUnit:
    """One of our own processes: ready when its /readyz says so, drained by SIGTERM."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        log_path: Path,
        health_port: int,
    ) -> None:
        self.name = name
        self._port = health_port
        self._child = Child(
            argv,
            log_path=log_path,
            env=env,
            die_with_parent=True,
            death_signal=signal.SIGKILL,
        )

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child.running

    @property
    def health_url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        self._child.start()

    def ready(self) -> bool:
        return answers_ready(self._port)

    def ask_stop(self) -> None:
        self._child.ask_stop()

    def stop(self) -> None:
        self._child.stop(timeout_s=DRAIN_S)

    def kill(self) -> None:
        self._child.kill()


def answers_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=READY_TIMEOUT_S)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/readyz")
        return connection.getresponse().status == OK
    return False
