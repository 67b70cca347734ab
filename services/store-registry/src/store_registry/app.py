"""The only composition root: what is opened, in order; leaving it drains in reverse."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from entrepot_chassis import inbox, lifecycle, outbox, work
from entrepot_chassis.clock import SystemClock, SystemIds
from entrepot_chassis.ground import opened as ground_of
from entrepot_chassis.ports import Bus, Misconfigured
from entrepot_chassis.seal import AtRest, KeyPair, SealError
from entrepot_contracts.catalog import commands_of_owner, telemetry_of
from entrepot_contracts.errors import problem_of
from entrepot_contracts.motion import TransferProgress
from entrepot_contracts.registry import GetJob
from store_registry import consumer, sweeper
from store_registry.answering import answer
from store_registry.keys import ServiceKeys
from store_registry.registry import Registry
from store_registry.settings import Policy, Settings

SERVICE = "store-registry"


async def run(settings: Settings) -> None:
    keys = load_keys(settings)
    async with AsyncExitStack() as stack:
        clock, ids = SystemClock(), SystemIds()
        ground = await stack.enter_async_context(ground_of(settings, service=SERVICE))
        database, nats = ground.database, ground.nats
        await stack.enter_async_context(outbox.relaying(database, nats, clock=clock))
        registry = Registry.over(database, clock=clock, ids=ids, keys=keys)
        await stack.enter_async_context(serving(registry, nats, settings))
        await lifecycle.until_stopped(ground.probe)


@asynccontextmanager
async def serving(registry: Registry, nats: Bus, policy: Policy) -> AsyncIterator[None]:
    """Everything but the outside world: the same on real servers and in the simulation."""
    async with AsyncExitStack() as stack:
        progress = telemetry_of(TransferProgress)
        await stack.enter_async_context(
            nats.listen(progress.subject, progress.message, registry.progress.hear)
        )
        await stack.enter_async_context(
            work.periodic(
                "sweep", policy.sweep_s, partial(sweeper.sweep, registry), clock=registry.clock
            )
        )
        for entry in commands_of_owner(SERVICE):
            waits = entry.message is GetJob
            await stack.enter_async_context(
                nats.answer(
                    entry.subject,
                    entry.message,
                    partial(answer, registry),
                    queue=entry.owner,
                    failure=problem_of,
                    in_flight_max=policy.waits_max if waits else policy.in_flight_max,
                )
            )
        once = inbox.once(registry.database, consumer=consumer.CONSUMER, apply=consumer.apply)
        await stack.enter_async_context(
            nats.consume(
                durable=consumer.CONSUMER,
                subjects=consumer.SUBJECTS,
                messages=consumer.MESSAGES,
                handler=consumer.waking(registry, once),
                undecodable=inbox.parking(registry.database, consumer=consumer.CONSUMER),
            )
        )
        yield


def load_keys(settings: Settings) -> ServiceKeys:
    try:
        pair = KeyPair.load_or_make(settings.sealing_key_file)
        return ServiceKeys(pair, AtRest.load_or_make(settings.at_rest_key_file))
    except (OSError, SealError) as err:
        raise Misconfigured(f"the key files can't be used: {err}") from err
