import asyncio

import aiohttp
import pytest

from entrepot_chassis import health, metrics


async def get(port: int, path: str) -> tuple[int, str]:
    url = f"http://127.0.0.1:{port}{path}"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


async def fine() -> None:
    return None


async def broken() -> None:
    raise ConnectionError("postgresql://u:secret@h is down")


async def hanging() -> None:
    await asyncio.sleep(3600)


async def test_ready_when_all_pings_answer():
    async with health.serve("127.0.0.1", 0, pings={"db": fine}) as probe:
        assert await get(probe.port, "/readyz") == (200, '{"ready":true,"failing":[]}')


async def test_names_of_what_fails_and_nothing_else():
    pings = {"db": broken, "nats": hanging, "ok": fine}
    async with health.serve("127.0.0.1", 0, pings=pings, deadline_s=0.1) as probe:
        assert await get(probe.port, "/readyz") == (503, '{"ready":false,"failing":["db","nats"]}')
        assert (await get(probe.port, "/livez"))[0] == 200


async def test_not_ready_from_the_moment_of_stopping_but_alive():
    async with health.serve("127.0.0.1", 0, pings={"db": fine}) as probe:
        probe.stopping()
        assert await get(probe.port, "/readyz") == (503, '{"ready":false,"failing":["stopping"]}')
        assert (await get(probe.port, "/livez"))[0] == 200


async def test_metrics_are_served():
    metrics.counter("entrepot_test_total", "for this test").inc()
    async with health.serve("127.0.0.1", 0, pings={}) as probe:
        status, text = await get(probe.port, "/metrics")
    assert status == 200
    assert "entrepot_test_total 1.0" in text


def test_metrics_have_our_prefix():
    with pytest.raises(AssertionError):
        metrics.counter("other_total", "not ours")
