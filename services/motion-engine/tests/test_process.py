"""The service as its own process: settings, migrate, readiness, SIGTERM."""

import asyncio
import os
import signal
import socket
import sys
import urllib.request
from contextlib import asynccontextmanager

PREFIX = "ENTREPOT_MOTION_ENGINE_"


def environment(**settings):
    kept = {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)}
    return kept | {PREFIX + key.upper(): value for key, value in settings.items()}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@asynccontextmanager
async def process(*words, **settings):
    one = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "motion_engine", *words,
        env=environment(**settings), stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield one
    finally:
        if one.returncode is None:
            one.kill()
            await one.communicate()


def fetch(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
            return answer.status, answer.read().decode()
    except OSError as err:
        return getattr(err, "code", 0), ""


async def test_missing_settings_are_all_named_and_exit_78():
    async with process() as one:
        _, told = await one.communicate()
    assert one.returncode == 78
    assert b"ENTREPOT_MOTION_ENGINE_NATS_URL" in told
    assert b"ENTREPOT_MOTION_ENGINE_DATABASE_URL" in told


async def test_an_unknown_strategy_ends_the_start(own_nats, database_url):
    settings = {"nats_url": own_nats.url, "database_url": database_url, "strategies": "teleport"}
    async with process(**settings) as one:
        _, told = await one.communicate()
    assert one.returncode == 78
    assert b"teleport" in told


async def test_it_migrates_twice_serves_and_leaves_on_sigterm(own_nats, database_url):
    port = free_port()
    settings = {
        "nats_url": own_nats.url,
        "database_url": database_url,
        "health_port": str(port),
    }
    for _ in range(2):
        async with process("migrate", **settings) as one:
            _, told = await one.communicate()
        assert one.returncode == 0, told
    async with process(**settings) as one:
        async with asyncio.timeout(30):
            while (await asyncio.to_thread(fetch, port, "/readyz"))[0] != 200:
                assert one.returncode is None, await one.communicate()
                await asyncio.sleep(0.1)
        _, metrics = await asyncio.to_thread(fetch, port, "/metrics")
        assert "entrepot_transfers_unplanned 0.0" in metrics
        one.send_signal(signal.SIGTERM)
        _, told = await one.communicate()
    assert one.returncode == 0, told
