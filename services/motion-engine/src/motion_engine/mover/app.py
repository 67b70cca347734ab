"""Composition root of a mover: the real bus, clock, threads, plugins and fetcher."""

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path

from entrepot_chassis import bus, health, lifecycle, logs
from entrepot_chassis.clock import SystemClock, SystemIds
from entrepot_chassis.ports import Ids, Misconfigured
from entrepot_chassis.seal import KeyPair, seal
from entrepot_plugin.discovery import STORES, PluginProblem, installed, load_stores
from entrepot_plugin.plugin import StorePlugin
from entrepot_plugin.wrappers import Retrying, RetryPolicy, wrap_objects, wrap_volumes
from motion_engine.mover import malloc
from motion_engine.mover.addresses import parse_cidrs
from motion_engine.mover.copying import Tools
from motion_engine.mover.fetch import FetchLimits, GuardedFetch
from motion_engine.mover.runner import Identity, Runner, World
from motion_engine.mover.settings import Settings
from motion_engine.mover.threads import thread_pool

SERVICE = "mover"
ID_FILE = "mover_id"

_log = logs.get("mover")


async def run(settings: Settings) -> None:
    malloc.tune()
    plugins = _plugins(settings)
    async with AsyncExitStack() as stack:
        clock, ids = SystemClock(), SystemIds()
        threads = settings.threads or os.cpu_count() or 2
        run_blocking = await stack.enter_async_context(thread_pool(threads))
        nats = await stack.enter_async_context(
            bus.connect(
                settings.nats_url,
                name=SERVICE,
                nkey_file=settings.nats_nkey_file,
                drain_s=settings.drain_s,
            )
        )
        probe = await stack.enter_async_context(
            health.serve(settings.health_host, settings.health_port, pings={"nats": nats.ping})
        )
        limits = FetchLimits(
            allowed=parse_cidrs(settings.source_allow_cidrs), stall_s=settings.source_stall_s
        )
        world = World(
            bus=nats,
            clock=clock,
            ids=ids,
            plugins=plugins,
            keys=KeyPair.new(),
            seal=seal,
            fetch=GuardedFetch(limits, clock),
            wrap_objects=lambda store: wrap_objects(store, Retrying(RetryPolicy())),
            wrap_volumes=lambda store: wrap_volumes(store, Retrying(RetryPolicy())),
            tools=Tools(run_blocking=run_blocking, parts_in_flight=settings.parts_in_flight),
            stall_s=settings.stall_s,
            drain_s=settings.drain_s,
        )
        identity = Identity(
            mover_id=mover_id(settings, ids),
            zone_ids=settings.zone_ids,
            labels=settings.label_map(),
            slots=settings.slots,
        )
        _log.info("mover.started", mover_id=identity.mover_id, plugins=sorted(plugins))
        await _run_until_stopped(Runner(identity, world), probe)


async def _run_until_stopped(runner: Runner, probe: lifecycle.Stopping) -> None:
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(runner.run(stop), name="runner")
        await lifecycle.until_stopped(probe)
        stop.set()


def mover_id(settings: Settings, ids: Ids) -> str:
    """The same after a restart on the same folder, so that our own old claims end at once."""
    if settings.mover_id:
        return settings.mover_id
    if settings.data_dir is None:
        return ids.new()
    path = Path(settings.data_dir) / ID_FILE
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        fresh.write_text(ids.new() + "\n")
        fresh.replace(path)
    return path.read_text().strip()


def _plugins(settings: Settings) -> dict[str, StorePlugin]:
    try:
        return load_stores(settings.plugins or sorted(installed(STORES)))
    except PluginProblem as err:
        raise Misconfigured(str(err)) from err
