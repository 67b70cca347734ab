"""What the S3 provider does when the network or the server misbehaves, before a real Swift."""

import asyncio
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

from entrepot_plugin.bodies import BytesBody
from entrepot_plugin.conformance.material import pattern, read_all, store_object
from entrepot_plugin.errors import CommitUnclear, ObjectMissing, Stalled, Unreachable
from entrepot_plugin.wrappers import Retrying, RetryPolicy, wrap_objects
from entrepot_s3 import PLUGIN
from entrepot_testkit.fault_proxy import fault_proxy

MIB = 1 << 20
COMPLETE = (b"POST", b"uploadId=")
GUARD_S = 60  # only a hang reaches it


@pytest.fixture
async def proxy(swift):
    async with fault_proxy(urlsplit(swift.endpoint).port) as proxy:
        yield proxy


@pytest.fixture
def opened(swift, proxy):
    @asynccontextmanager
    async def opening(**more):
        public = {"endpoint": proxy.endpoint, "bucket": "faults", "create_bucket": True, **more}
        secrets = {"access_key": swift.access_key, "secret_key": swift.secret_key}
        async with PLUGIN.open_objects(PLUGIN.parse(public, secrets)) as store:
            yield store

    return opening


@pytest.fixture
def key(request):
    return f"{request.node.name}/data"


async def test_a_server_that_stops_reading_is_a_stall_and_not_a_hang(opened, proxy, key):
    async with opened(read_timeout_s=0.3, connect_timeout_s=0.3) as store:
        data = pattern(32 * MIB, key)
        writer = await store.begin(key, len(data), None)
        proxy.stall()
        async with asyncio.timeout(GUARD_S):
            with pytest.raises(Stalled):
                await writer.write(1, 0, BytesBody(data))
        proxy.stall(on=False)
        receipt = await writer.write(1, 0, BytesBody(data))
        await writer.commit([receipt], len(data))
        assert await read_all(store, key, 0, len(data)) == data


async def test_a_part_cut_in_the_middle_is_sent_again_from_its_beginning(opened, proxy, key):
    async with opened() as store:
        data = pattern(6 * MIB, key)
        writer = await store.begin(key, len(data), None)
        proxy.drop_all()
        proxy.cut_up_after(MIB)
        body = BytesBody(data)
        receipt = await writer.write(1, 0, body)
        assert body.walks == 2
        await writer.commit([receipt], len(data))
        assert await read_all(store, key, 0, len(data)) == data


async def test_without_tries_left_a_cut_part_is_unreachable_and_may_be_sent_again(
    opened, proxy, key
):
    async with opened(sdk_attempts=1) as store:
        data = pattern(6 * MIB, key)
        writer = await store.begin(key, len(data), None)
        proxy.drop_all()
        proxy.cut_up_after(MIB)
        with pytest.raises(Unreachable):
            await writer.write(1, 0, BytesBody(data))
        receipt = await writer.write(1, 0, BytesBody(data))
        await writer.commit([receipt], len(data))
        assert await read_all(store, key, 0, len(data)) == data


async def test_a_failed_complete_that_took_effect_is_a_success(opened, proxy, key):
    async with opened(sdk_attempts=1) as store:
        data = pattern(100_000, key)
        writer = await store.begin(key, len(data), None)
        receipt = await writer.write(1, 0, BytesBody(data))
        proxy.answer(500, when=COMPLETE, after_server=True)
        stat = await writer.commit([receipt], len(data))
        assert stat == await store.stat(key)
        assert sum(b"POST" in line and b"uploadId" in line for line in proxy.requests) == 1


async def test_a_failed_complete_without_effect_is_unreachable_and_may_be_repeated(
    opened, proxy, key
):
    async with opened(sdk_attempts=1) as store:
        data = pattern(100_000, key)
        writer = await store.begin(key, len(data), None)
        receipt = await writer.write(1, 0, BytesBody(data))
        proxy.answer(500, when=COMPLETE)
        with pytest.raises(Unreachable):
            await writer.commit([receipt], len(data))
        with pytest.raises(ObjectMissing):
            await store.stat(key)
        assert (await writer.commit([receipt], len(data))).size_bytes == len(data)


async def test_a_complete_that_nobody_can_tell_about_is_unclear(opened, proxy, key):
    async with opened(sdk_attempts=1) as store:
        writer = await store.begin(key, 4, None)
        receipt = await writer.write(1, 0, BytesBody(b"data"))
        proxy.answer(503, when=COMPLETE)
        proxy.answer(503, when=(b"HEAD",))
        with pytest.raises(CommitUnclear):
            await writer.commit([receipt], 4)
        assert (await writer.commit([receipt], 4)).size_bytes == 4


async def test_a_complete_answered_without_an_object_is_unclear(opened, proxy, key):
    """Status 200 and nothing there: the answer alone is not believed."""
    async with opened(sdk_attempts=1) as store:
        writer = await store.begin(key, 4, None)
        receipt = await writer.write(1, 0, BytesBody(b"data"))
        proxy.answer(200, when=COMPLETE)
        with pytest.raises(CommitUnclear):
            await writer.commit([receipt], 4)


async def test_a_failed_abort_that_took_effect_is_a_success(opened, proxy, key):
    async with opened(sdk_attempts=1) as store:
        writer = await store.begin(key, 4, None)
        proxy.answer(500, when=(b"DELETE", b"uploadId="), after_server=True)
        await writer.abort()


async def test_a_failed_abort_without_effect_is_an_error(opened, proxy, key):
    async with opened(sdk_attempts=1) as store:
        writer = await store.begin(key, 4, None)
        proxy.answer(500, when=(b"DELETE", b"uploadId="))
        with pytest.raises(Unreachable):
            await writer.abort()


async def test_a_short_body_is_an_error(opened, proxy, key):
    async with opened(sdk_attempts=1) as store:
        data = pattern(3 * MIB, key)
        await store_object(store, key, data, 8 * MIB)
        proxy.drop_all()
        proxy.cut_down_after(MIB)
        with pytest.raises(Unreachable):
            await read_all(store, key, 0, len(data))


async def test_a_retried_read_goes_on_where_it_broke(opened, proxy, key):
    async with opened(sdk_attempts=1) as store:
        data = pattern(3 * MIB, key)
        await store_object(store, key, data, 8 * MIB)
        proxy.drop_all()
        proxy.cut_down_after(MIB, MIB)
        proxy.requests.clear()
        retrying = wrap_objects(store, Retrying(RetryPolicy(wait_first_s=0.01, jitter_s=0)))
        assert await read_all(retrying, key, 0, len(data)) == data
        assert len(proxy.requests) == 3


async def test_the_servers_wish_to_wait_is_handed_on(opened, proxy, key):
    async with opened(sdk_attempts=1) as store:
        proxy.answer(503, when=(b"HEAD",), headers=(("Retry-After", "7"),))
        with pytest.raises(Unreachable) as caught:
            await store.stat(key)
        assert caught.value.after_s == 7


async def test_a_frozen_server_does_not_hang_a_read(opened, proxy, key):
    async with opened(sdk_attempts=1, read_timeout_s=0.3) as store:
        await store.put(key, b"data")
        proxy.stall()
        async with asyncio.timeout(GUARD_S):
            with pytest.raises(Unreachable):
                await read_all(store, key, 0, 4)
