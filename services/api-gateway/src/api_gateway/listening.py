"""Runs the HTTP server for the length of a block and drains it at the end."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import structlog
import uvicorn

from api_gateway.edge import Edge
from entrepot_chassis import work

KEEP_ALIVE_S = 15
BACKLOG = 1024
POLL_S = 0.01

log = structlog.get_logger()


class _Server(uvicorn.Server):
    """Signals belong to chassis.lifecycle."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def listening(
    app: Edge, *, host: str, port: int, connections_max: int, drain_s: float
) -> AsyncIterator[int]:
    """Yields the port. On leaving: accepts no more, lets requests finish for `drain_s`, ends."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=BACKLOG) as listener:
        server = _Server(_config(app, connections_max=connections_max, drain_s=drain_s))

        async def serve() -> None:
            await server.serve(sockets=[listener])

        async with work.owned("http", serve) as task:
            while not (server.started or task.done()):  # noqa: ASYNC110 - uvicorn has no event
                await asyncio.sleep(POLL_S)
            bound = int(listener.getsockname()[1])
            log.info("http_listening", host=host, port=bound)
            try:
                yield bound
            finally:
                server.should_exit = True
                await asyncio.wait([task], timeout=drain_s + 1)


def _config(app: Edge, *, connections_max: int, drain_s: float) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=False,  # nobody's X-Forwarded-For is believed
        limit_concurrency=connections_max,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(drain_s),
        h11_max_incomplete_event_size=32 * 1024,
        ws="none",
    )
