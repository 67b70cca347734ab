"""Layers around a store, in virtual time: retrying, throttled, metered, faulty."""

import asyncio
from collections import Counter

import pytest

from entrepot_contracts.values import ImageFormat
from entrepot_plugin.bodies import BytesBody
from entrepot_plugin.conformance.material import keys, pattern, read_all, store_object
from entrepot_plugin.errors import Denied, ObjectMissing, ResumeLost, Stalled, Unreachable
from entrepot_plugin.ports import (
    ClonesVolumes,
    CopiesInside,
    ForgetsUploads,
    ReportsCapacity,
    SharesLinks,
    VolumeRef,
)
from entrepot_plugin.wrappers import (
    Fault,
    FaultKind,
    Faulty,
    Metered,
    Retrying,
    RetryPolicy,
    Throttled,
    TokenBucket,
    wrap_objects,
    wrap_volumes,
)
from entrepot_testkit.memory_store import MemoryWorld
from entrepot_testkit.sim_clock import SimClock
from entrepot_testkit.sim_loop import run

MIB = 1 << 20
POLICY = RetryPolicy(jitter_s=0, wait_first_s=1, wait_max_s=60, call_s=100)


def world():
    world = MemoryWorld()
    world.make("b")
    return world


def simulated(test):
    """The test runs on the simulation's loop: sleeping costs nothing, time is exact."""

    def call():
        run(7, test, until_s=100_000)

    call.__name__ = test.__name__
    call.__doc__ = test.__doc__
    return call


def retrying(*script, policy=POLICY, store=None):
    store = store or world().objects("b")
    faulty = Faulty(*script, clock=SimClock())
    return store, faulty, wrap_objects(wrap_objects(store, faulty), Retrying(policy))


# --- wrapping ---------------------------------------------------------------------------------


def test_a_wrapped_store_has_the_powers_of_the_inner_one_and_no_other():
    plain = wrap_objects(world().objects("b"), Retrying(POLICY))
    assert isinstance(plain, CopiesInside)
    assert isinstance(plain, ForgetsUploads)
    assert isinstance(plain, ReportsCapacity)
    assert not isinstance(plain, SharesLinks)
    volumes = wrap_volumes(world().volumes("b"), Retrying(POLICY))
    assert isinstance(volumes, ClonesVolumes)

    class Bare:
        """No powers."""

    assert not isinstance(wrap_objects(Bare(), Retrying(POLICY)), CopiesInside)


# --- retrying ---------------------------------------------------------------------------------


@simulated
async def test_what_fails_a_few_times_succeeds_in_the_end():
    _, faulty, store = retrying(Fault(op="put", kind=FaultKind.FAIL, times=3))
    await store.put("k", b"x")
    assert len(faulty.met) == 3
    assert asyncio.get_running_loop().time() >= 1 + 2 + 4


@simulated
async def test_tries_are_counted():
    _, faulty, store = retrying(Fault(op="stat", kind=FaultKind.FAIL, times=99))
    with pytest.raises(Unreachable):
        await store.stat("k")
    assert len(faulty.met) == POLICY.attempts_max


@simulated
async def test_the_servers_wish_to_wait_is_obeyed():
    busy = Unreachable("busy", after_s=37)
    _, _, store = retrying(Fault(op="put", kind=FaultKind.FAIL, error=busy))
    await store.put("k", b"x")
    assert 37 <= asyncio.get_running_loop().time() < 38


@simulated
async def test_a_wish_to_wait_beyond_the_callers_time_ends_the_matter_at_once():
    busy = Unreachable("busy", after_s=101)
    _, faulty, store = retrying(Fault(op="stat", kind=FaultKind.FAIL, times=99, error=busy))
    with pytest.raises(Unreachable) as caught:
        await store.stat("k")
    assert caught.value is busy
    assert len(faulty.met) == 1
    assert asyncio.get_running_loop().time() < 1


@simulated
async def test_nothing_is_tried_or_waited_for_beyond_the_callers_time():
    policy = RetryPolicy(jitter_s=0, wait_first_s=40, wait_max_s=60, call_s=100, attempts_max=50)
    _, _, store = retrying(Fault(op="stat", kind=FaultKind.FAIL, times=99), policy=policy)
    with pytest.raises(Unreachable):
        await store.stat("k")
    assert asyncio.get_running_loop().time() == pytest.approx(100)


@simulated
async def test_a_call_that_hangs_is_a_stall_after_the_callers_time():
    _, _, store = retrying(Fault(op="stat", kind=FaultKind.SLOW, seconds=5000))
    with pytest.raises(Stalled):
        await store.stat("k")
    assert asyncio.get_running_loop().time() == pytest.approx(100)


@simulated
async def test_the_callers_own_time_out_is_not_mistaken_for_ours():
    _, _, store = retrying(Fault(op="stat", kind=FaultKind.SLOW, seconds=5000))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(10):
            await store.stat("k")
    assert asyncio.get_running_loop().time() == pytest.approx(10)


@simulated
async def test_what_will_not_change_is_not_tried_again():
    for error in (Denied("no"), ResumeLost("gone"), ObjectMissing("none")):
        _, faulty, store = retrying(Fault(op="put", kind=FaultKind.FAIL, times=9, error=error))
        with pytest.raises(type(error)):
            await store.put("k", b"x")
        assert len(faulty.met) == 1


@simulated
async def test_a_stream_that_breaks_goes_on_from_the_byte_where_it_broke():
    inner, faulty, store = retrying(Fault(op="read", kind=FaultKind.CUT, times=3))
    data = pattern(3 * MIB + 17, "x")
    await inner.put("k", data)
    assert await read_all(store, "k", 5, len(data)) == data[5:]
    assert len(faulty.met) == 3


@simulated
async def test_a_stream_that_moves_has_no_end_to_its_tries():
    """Each break here comes after new bytes: ten of them are no reason to give up."""
    inner, faulty, store = retrying(Fault(op="read", kind=FaultKind.CUT, times=10))
    data = pattern(MIB, "x")
    await inner.put("k", data)
    assert await read_all(store, "k", 0, len(data)) == data
    assert len(faulty.met) == 10


@simulated
async def test_a_listing_that_breaks_goes_on_without_repeating_a_key():
    inner, _, store = retrying(Fault(op="list", kind=FaultKind.CUT, times=2))
    names = [f"k{n:02}" for n in range(20)]
    for name in names:
        await inner.put(name, b"")
    assert await keys(store, "k") == names


@simulated
async def test_parts_and_commits_that_took_effect_unsaid_are_simply_done_again():
    _, faulty, store = retrying(
        Fault(op="write", kind=FaultKind.UNSAID, times=2),
        Fault(op="write", kind=FaultKind.HALF_WRITTEN, after=3),
        Fault(op="commit", kind=FaultKind.UNSAID),
    )
    data = pattern(3000, "x")
    stat = await store_object(store, "k", data, 1000)
    assert await read_all(store, "k", 0, 3000) == data
    assert stat == await store.stat("k")
    assert len(faulty.met) == 4


@simulated
async def test_volumes_are_retried_too():
    volume = VolumeRef(volume_id="v1", format=ImageFormat.RAW)
    faulty = Faulty(
        Fault(op="create", kind=FaultKind.UNSAID), Fault(op="snapshot", kind=FaultKind.FAIL)
    )
    volumes = wrap_volumes(wrap_volumes(world().volumes("b"), faulty), Retrying(POLICY))
    await volumes.create(volume, size_bytes=4096)
    await volumes.snapshot(volume, "s1")
    async with volumes.open_read(volume, "s1") as reader:
        assert reader.size_bytes == 4096
    assert len(faulty.met) == 2


# --- throttled --------------------------------------------------------------------------------


@simulated
async def test_bytes_pass_at_the_rate_and_all_holders_share_it():
    bucket = TokenBucket(rate_bps=1 * MIB, burst_bytes=MIB, clock=SimClock())
    inner = world().objects("b")
    stores = [wrap_objects(inner, Throttled(bucket)) for _ in range(2)]
    data = pattern(4 * MIB, "x")
    loop = asyncio.get_running_loop()
    await asyncio.gather(
        *(store_object(store, f"k{n}", data, MIB) for n, store in enumerate(stores))
    )
    wrote_at = loop.time()
    assert wrote_at == pytest.approx(7)  # 8 MiB, one of them free
    assert await read_all(stores[0], "k0", 0, len(data)) == data
    assert loop.time() - wrote_at == pytest.approx(4)
    await stores[1].put("small", bytes(MIB // 2))
    assert loop.time() - wrote_at == pytest.approx(4.5)


# --- metered ----------------------------------------------------------------------------------


class Sink:
    def __init__(self):
        self.calls, self.moved, self.seconds = Counter(), Counter(), Counter()

    def observe(self, op, *, outcome, moved_bytes, seconds):
        self.calls[op, outcome] += 1
        self.moved[op] += moved_bytes
        self.seconds[op] += seconds


@simulated
async def test_calls_bytes_seconds_and_errors_are_counted():
    sink = Sink()
    faulty = Faulty(
        Fault(op="stat", kind=FaultKind.FAIL),
        Fault(op="put", kind=FaultKind.SLOW, seconds=3),
        Fault(op="read", kind=FaultKind.CUT),
        clock=SimClock(),
    )
    store = wrap_objects(
        wrap_objects(world().objects("b"), faulty), Metered(sink, clock=SimClock())
    )
    await store.put("p", b"12345")
    await store_object(store, "k", bytes(3000), 1000)
    for _ in range(2):
        with pytest.raises((Unreachable, ObjectMissing)):
            await store.stat("none")
    with pytest.raises(Unreachable):
        await read_all(store, "k", 0, 3000)
    await read_all(store, "k", 0, 3000)
    stream = store.read("k", 0, 3000)
    await anext(stream)
    await stream.aclose()
    assert await keys(store, "") == ["k", "p"]
    assert sink.calls == {
        ("put", "ok"): 1,
        ("begin", "ok"): 1,
        ("write", "ok"): 3,
        ("commit", "ok"): 1,
        ("stat", "Unreachable"): 1,
        ("stat", "ObjectMissing"): 1,
        ("read", "Unreachable"): 1,
        ("read", "ok"): 1,
        ("read", "left"): 1,
        ("list", "ok"): 1,
    }
    assert sink.moved["put"] == 5
    assert sink.moved["write"] == 3000
    assert sink.moved["read"] == 1500 + 3000 + 3000
    assert sink.seconds["put"] == pytest.approx(3)


# --- faulty -----------------------------------------------------------------------------------


@simulated
async def test_each_fault_does_what_its_name_says():
    inner = world().objects("b")
    data = pattern(1000, "x")
    faulty = Faulty(
        Fault(op="put", kind=FaultKind.FAIL),
        Fault(op="put", kind=FaultKind.UNSAID, after=1),
        Fault(op="put", kind=FaultKind.WRONG_BYTES, after=2),
        Fault(op="read", kind=FaultKind.SHORT),
        Fault(op="read", kind=FaultKind.WRONG_BYTES, after=1),
        Fault(op="list", kind=FaultKind.STALE, after=1, times=1),
    )
    store = wrap_objects(inner, faulty)
    with pytest.raises(Unreachable):
        await store.put("fail", data)
    with pytest.raises(Unreachable):
        await store.put("unsaid", data)
    await store.put("wrong", data)
    assert await keys(inner, "") == ["unsaid", "wrong"]
    assert await read_all(inner, "unsaid", 0, 1000) == data
    assert await read_all(inner, "wrong", 0, 1000) != data
    assert await read_all(store, "unsaid", 0, 1000) == data[:500]
    assert await read_all(store, "unsaid", 0, 1000) != data
    assert await read_all(store, "unsaid", 0, 1000) == data
    assert await keys(store, "") == ["unsaid", "wrong"]
    await store.put("new", data)
    assert await keys(store, "") == ["unsaid", "wrong"]
    assert await keys(store, "") == ["new", "unsaid", "wrong"]
    assert [fault.kind for fault in faulty.met] == [
        FaultKind.FAIL,
        FaultKind.UNSAID,
        FaultKind.WRONG_BYTES,
        FaultKind.SHORT,
        FaultKind.WRONG_BYTES,
        FaultKind.STALE,
    ]


@simulated
async def test_a_half_written_part_stands_in_the_upload_until_it_is_sent_again():
    inner = world().objects("b")
    store = wrap_objects(inner, Faulty(Fault(op="write", kind=FaultKind.HALF_WRITTEN)))
    writer = await store.begin("k", 10, None)
    with pytest.raises(Unreachable):
        await writer.write(1, 0, BytesBody(b"0123456789"))
    assert [part.length for part in await writer.parts()] == [5]
    receipt = await writer.write(1, 0, BytesBody(b"0123456789"))
    await writer.commit([receipt], 10)
    assert await read_all(inner, "k", 0, 10) == b"0123456789"
