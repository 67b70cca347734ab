"""Stopping: no new connections, but what was begun is answered."""

import asyncio

import httpx
import pytest

from entrepot_contracts import registry

GOOD = {"name": "u24", "url": "http://x/u24.qcow2", "format": "qcow2"}


@pytest.fixture
def own_database_url(postgres):
    postgres.ensure_database("gateway_drain")
    return postgres.dsn(database="gateway_drain")


async def test_a_request_begun_before_the_end_is_answered_while_new_ones_are_refused(
    start_gateway, nats_url, own_database_url, tmp_path
):
    async with (
        asyncio.TaskGroup() as tasks,
        start_gateway(
            nats_url=nats_url,
            database_url=own_database_url,
            folder=tmp_path,
            drain_s=5,
            ask_timeout_s=20,
        ) as gateway,
    ):
        gate = gateway.owners.held[registry.RegisterTemplate] = asyncio.Event()
        client = gateway.client(gateway.keys["alice"])
        begun = tasks.create_task(client.post("/v1/templates", json=GOOD))
        while not gateway.owners.asked:  # noqa: ASYNC110 - the bus tells nobody but the owner
            await asyncio.sleep(0.01)
        tasks.create_task(_open_once_refused(gateway.url, gate))
    assert begun.result().status_code == 202
    await client.aclose()


async def _open_once_refused(url, gate):
    async with httpx.AsyncClient() as client:
        while True:
            try:
                await client.get(f"{url}/v1/zones", headers={"Connection": "close"})
            except httpx.TransportError:
                await asyncio.sleep(0.5)  # time for an impatient end to close what is needed
                gate.set()
                return
            await asyncio.sleep(0.01)
