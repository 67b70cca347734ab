"""The only composition root: what is opened, in order; leaving it drains in reverse."""

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from api_gateway.accounts import Accounts
from api_gateway.bootstrap import first_admin
from api_gateway.edge import Edge
from api_gateway.events import KINDS, EventRing
from api_gateway.idempotency import Once
from api_gateway.links import LinkOpener
from api_gateway.listening import listening
from api_gateway.operations.operation import Desk
from api_gateway.rest.face import Face
from api_gateway.rest.site import site
from api_gateway.rest.watch import Watch
from api_gateway.settings import Settings
from entrepot_chassis import bus, lifecycle, postgres, seal, work
from entrepot_chassis.clock import SystemClock, SystemIds
from entrepot_chassis.ground import opened as ground_of
from entrepot_contracts.catalog import event_of, telemetry_of
from entrepot_contracts.motion import TransferProgress

SERVICE = "api-gateway"
SWEEP_S = 600.0
GAP_LOOK_S = 0.5


async def run(settings: Settings) -> None:
    async with AsyncExitStack() as stack:
        ground = await stack.enter_async_context(ground_of(settings, service=SERVICE))
        database, nats = ground.database, ground.nats
        if settings.admin_key_file:
            async with database.advisory_lock("bootstrap"):
                accounts = Accounts(database, entropy=secrets.token_bytes)
                await first_admin(accounts, ids=SystemIds(), key_file=Path(settings.admin_key_file))
        await stack.enter_async_context(serving(settings, database=database, nats=nats))
        await lifecycle.until_stopped(ground.probe)


@asynccontextmanager
async def serving(
    settings: Settings, *, database: postgres.PostgresDatabase, nats: bus.NatsBus
) -> AsyncIterator[int]:
    """The HTTP side over a database and a bus; yields its port."""
    clock, ids = SystemClock(), SystemIds()
    accounts = Accounts(database, entropy=secrets.token_bytes)
    once = Once(database, ids=ids)
    desk = Desk(
        bus=nats,
        accounts=accounts,
        links=LinkOpener(seal.KeyPair.load_or_make(settings.seal_key_file)),
        clock=clock,
        ask_timeout_s=settings.ask_timeout_s,
        seal=seal.seal,
    )
    ring = EventRing(watchers_max=settings.watchers_max)
    app = site(
        face=Face(desk, once=once, ids=ids),
        watch=Watch(ring, accounts, keep_alive_s=settings.keep_alive_s),
    )
    async with AsyncExitStack() as stack:
        # Every gateway hears every event: its watchers may sit on any of them.
        for kind in KINDS:
            subject = event_of(kind).pattern
            await stack.enter_async_context(nats.listen(subject, kind, ring.changed))
        await stack.enter_async_context(
            nats.listen(telemetry_of(TransferProgress).subject, TransferProgress, ring.progressed)
        )
        await stack.enter_async_context(
            work.periodic("notice-gaps", GAP_LOOK_S, _Gaps(nats, ring).look, clock=clock)
        )
        await stack.enter_async_context(
            work.periodic("forget-http-once", SWEEP_S, once.sweep, clock=clock)
        )
        port = await stack.enter_async_context(
            listening(
                Edge(app, service=SERVICE, clock=clock, ids=ids),
                host=settings.http_host,
                port=settings.http_port,
                connections_max=settings.connections_max,
                drain_s=settings.drain_s,
            )
        )
        stack.callback(ring.close)
        yield port


class _Gaps:
    """Notices reconnects to the broker: what was published meanwhile was not heard."""

    def __init__(self, nats: bus.NatsBus, ring: EventRing) -> None:
        self._nats = nats
        self._ring = ring
        self._seen = nats.generation

    async def look(self) -> None:
        if self._nats.generation != self._seen:
            self._seen = self._nats.generation
            self._ring.interrupted()
