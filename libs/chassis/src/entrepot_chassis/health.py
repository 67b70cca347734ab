"""The small HTTP server of a service: /livez, /readyz, /metrics. It carries no data of tenants."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from entrepot_chassis import logs

Ping = Callable[[], Awaitable[object]]
_log = logs.get("health")
_DEADLINE_S = 2.0


class Probe:
    """Whether we are ready; false for good once stopping."""

    def __init__(self, pings: Mapping[str, Ping], *, deadline_s: float) -> None:
        self._pings = dict(pings)
        self._deadline_s = deadline_s
        self._stopping = False
        self.port = 0

    def stopping(self) -> None:
        self._stopping = True

    async def failing(self) -> list[str]:
        """Names of what does not answer under the one deadline; `stopping` first of all."""
        if self._stopping:
            return ["stopping"]
        pings = self._pings.items()
        raised = await asyncio.gather(*(_raised(ping, self._deadline_s) for _, ping in pings))
        return sorted(name for (name, _), bad in zip(pings, raised, strict=True) if bad)


@asynccontextmanager
async def serve(
    host: str, port: int, *, pings: Mapping[str, Ping], deadline_s: float = _DEADLINE_S
) -> AsyncIterator[Probe]:
    """Serve until the block ends; `probe.port` is the port it got."""
    probe = Probe(pings, deadline_s=deadline_s)
    app = web.Application()
    app.router.add_get("/livez", _livez)
    app.router.add_get("/readyz", partial(_readyz, probe))
    app.router.add_get("/metrics", _metrics)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        probe.port = runner.addresses[0][1]
        _log.info("health.listening", host=host, port=probe.port)
        yield probe
    finally:
        probe.stopping()
        await runner.cleanup()


async def _livez(_: web.Request) -> web.Response:
    return web.json_response({"live": True})


async def _readyz(probe: Probe, _: web.Request) -> web.Response:
    failing = await probe.failing()
    body = msgspec.json.encode({"ready": not failing, "failing": failing})
    status = 503 if failing else 200
    return web.Response(body=body, status=status, content_type="application/json")


async def _metrics(_: web.Request) -> web.Response:
    return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _raised(ping: Ping, deadline_s: float) -> bool:
    try:
        async with asyncio.timeout(deadline_s):
            await ping()
    except Exception as err:  # noqa: BLE001 - whatever it is, this part is not ready
        _log.info("health.failing", error=type(err).__name__)
        return True
    return False
