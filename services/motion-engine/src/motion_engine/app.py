"""The only composition root: what is opened, in order; leaving it drains in reverse."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from entrepot_chassis import inbox, lifecycle, outbox, work
from entrepot_chassis.clock import SystemClock, SystemIds
from entrepot_chassis.ground import opened as ground_of
from entrepot_chassis.ports import Misconfigured
from entrepot_contracts.catalog import commands_of_owner
from entrepot_contracts.errors import problem_of
from entrepot_contracts.motion import ClaimWork
from entrepot_plugin.discovery import PluginProblem
from entrepot_plugin.ports import MotionStrategy
from motion_engine import intake, sweeps
from motion_engine.desk import SERVICE
from motion_engine.engine import Engine
from motion_engine.handlers import HANDLERS
from motion_engine.ledger_sql import PostgresLedger
from motion_engine.load import LoadReporter
from motion_engine.planner import load_strategies
from motion_engine.settings import Settings


async def run(settings: Settings) -> None:
    strategies = _strategies(settings)
    async with AsyncExitStack() as stack:
        clock, ids = SystemClock(), SystemIds()
        ground = await stack.enter_async_context(ground_of(settings, service=SERVICE))
        database, nats = ground.database, ground.nats
        await stack.enter_async_context(outbox.relaying(database, nats, clock=clock))
        engine = Engine(
            database=database,
            bus=nats,
            ledger=PostgresLedger(),
            clock=clock,
            policy=settings,
            strategies=strategies,
        )
        await stack.enter_async_context(serving(engine, source=ids.new()))
        await lifecycle.until_stopped(ground.probe)


@asynccontextmanager
async def serving(engine: Engine, *, source: str) -> AsyncIterator[None]:
    """Everything but the outside world: the same on real servers and in the simulation."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(engine.bell.hearing())
        for name, every_s, job in _periodic(engine, source=source):
            await stack.enter_async_context(work.periodic(name, every_s, job, clock=engine.clock))
        for entry in commands_of_owner(SERVICE):
            waiting = engine.policy.claims_waiting_max if entry.message is ClaimWork else 64
            await stack.enter_async_context(
                engine.bus.answer(
                    entry.subject,
                    entry.message,
                    partial(HANDLERS[entry.message], engine),
                    queue=entry.owner,
                    failure=problem_of,
                    in_flight_max=waiting,
                )
            )
        await stack.enter_async_context(
            engine.bus.consume(
                durable=SERVICE,
                subjects=intake.SUBJECTS,
                messages=intake.MESSAGES,
                handler=intake.handler(engine),
                undecodable=inbox.parking(engine.database, consumer=SERVICE),
            )
        )
        stack.push_async_callback(engine.bell.close)
        yield


def _strategies(settings: Settings) -> tuple[MotionStrategy, ...]:
    try:
        return load_strategies(settings.strategies)
    except PluginProblem as err:
        raise Misconfigured(str(err)) from err


def _periodic(
    engine: Engine, *, source: str
) -> list[tuple[str, float, Callable[[], Awaitable[object]]]]:
    policy = engine.policy
    return [
        ("settle-due", policy.sweep_s, partial(sweeps.settle_due, engine)),
        ("announce-ready", policy.announce_s, partial(sweeps.announce_ready, engine)),
        ("call-the-roll", policy.load_s, partial(sweeps.Roll().call, engine)),
        ("report-load", policy.load_s, LoadReporter(engine, source=source).report),
    ]
