"""The only composition root: what is opened, in order; leaving it drains in reverse."""

from contextlib import AsyncExitStack
from functools import partial

from cache_manager import leases
from cache_manager.context import Cache
from cache_manager.handlers import HANDLERS
from cache_manager.settings import Settings
from entrepot_chassis import lifecycle, outbox, work
from entrepot_chassis.clock import SystemClock, SystemIds
from entrepot_chassis.ground import opened as ground_of
from entrepot_contracts.catalog import commands_of_owner
from entrepot_contracts.errors import problem_of
from entrepot_plugin.discovery import load_named

SERVICE = "cache-manager"


async def run(settings: Settings) -> None:
    policy = load_named("entrepot.cache_policies", settings.policy)
    async with AsyncExitStack() as stack:
        clock, ids = SystemClock(), SystemIds()
        ground = await stack.enter_async_context(ground_of(settings, service=SERVICE))
        database, nats = ground.database, ground.nats
        cache = Cache(database=database, clock=clock, ids=ids, policy=policy)
        await stack.enter_async_context(outbox.relaying(database, nats, clock=clock))
        await stack.enter_async_context(
            work.periodic("sweep", settings.sweep_s, partial(leases.sweep, cache), clock=clock)
        )
        for entry in commands_of_owner(SERVICE):
            await stack.enter_async_context(
                nats.answer(
                    entry.subject,
                    entry.message,
                    partial(HANDLERS[entry.message], cache),
                    queue=SERVICE,
                    failure=problem_of,
                )
            )
        await lifecycle.until_stopped(ground.probe)
