"""The only composition root: what is opened, in order; leaving it drains in reverse."""

from contextlib import AsyncExitStack
from functools import partial

from autoscaler import reconcile
from autoscaler.context import Scaler
from autoscaler.handlers import HANDLERS
from autoscaler.settings import Settings
from autoscaler.window import LoadWindow
from entrepot_chassis import lifecycle, outbox, work
from entrepot_chassis.clock import SystemClock, SystemIds
from entrepot_chassis.ground import opened as ground_of
from entrepot_contracts.catalog import commands_of_owner, telemetry_of
from entrepot_contracts.errors import problem_of
from entrepot_contracts.fleet import LoadSample
from entrepot_plugin.discovery import installed, load_named

SERVICE = "autoscaler"
STRATEGIES = "entrepot.scale_strategies"


async def run(settings: Settings) -> None:
    strategies = {name: load_named(STRATEGIES, name) for name in sorted(installed(STRATEGIES))}
    async with AsyncExitStack() as stack:
        clock = SystemClock()
        ground = await stack.enter_async_context(ground_of(settings, service=SERVICE))
        database, nats = ground.database, ground.nats
        window = LoadWindow()
        scaler = Scaler(
            database=database, clock=clock, ids=SystemIds(), window=window, strategies=strategies
        )

        async def hear(sample: LoadSample) -> None:
            window.hear(sample, at_s=clock.monotonic())

        await stack.enter_async_context(outbox.relaying(database, nats, clock=clock))
        await stack.enter_async_context(
            nats.listen(telemetry_of(LoadSample).subject, LoadSample, hear)
        )
        await stack.enter_async_context(
            work.periodic("decide", settings.decide_s, partial(reconcile.tick, scaler), clock=clock)
        )
        for entry in commands_of_owner(SERVICE):
            await stack.enter_async_context(
                nats.answer(
                    entry.subject,
                    entry.message,
                    partial(HANDLERS[entry.message], scaler),
                    queue=SERVICE,
                    failure=problem_of,
                )
            )
        await lifecycle.until_stopped(ground.probe)
