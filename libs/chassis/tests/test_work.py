import asyncio
import contextlib

import pytest

from entrepot_chassis import work
from entrepot_chassis.clock import SystemClock

CLOCK = SystemClock()


async def test_intake_runs_no_more_than_its_number_at_once():
    intake, running, most = work.Intake(2, name="t"), 0, 0

    async def job():
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1

    for _ in range(6):
        await intake.start(job)
    assert await intake.drain(5) == 0
    assert (most, running, intake.in_flight) == (2, 0, 0)


async def test_drain_waits_for_what_runs_and_cancels_the_rest():
    intake, ended = work.Intake(8, name="t"), []

    async def job(name, seconds):
        try:
            await asyncio.sleep(seconds)
            ended.append(name)
        except asyncio.CancelledError:
            ended.append(f"{name} cancelled")
            raise

    await intake.start(lambda: job("quick", 0.05))
    await intake.start(lambda: job("endless", 3600))
    await asyncio.sleep(0)
    assert await intake.drain(0.5) == 1
    assert ended == ["quick", "endless cancelled"]


async def test_a_failing_job_frees_its_slot():
    intake, done = work.Intake(1, name="t"), []

    async def bad():
        raise ValueError

    async def good():
        done.append(1)

    await intake.start(bad)
    await intake.start(good)
    await intake.drain(5)
    assert done == [1]


async def test_periodic_work_goes_on_after_a_failure_and_ends_with_the_block(eventually):
    turns = 0

    async def turn():
        nonlocal turns
        turns += 1
        if turns == 1:
            raise RuntimeError("once")

    async with work.periodic("t", 0.01, turn, clock=CLOCK):
        await eventually(lambda: turns >= 3)
    seen = turns
    await asyncio.sleep(0.05)
    assert turns == seen


async def test_looping_work_is_begun_again(eventually):
    begun = 0

    async def loop():
        nonlocal begun
        begun += 1
        if begun < 3:
            raise RuntimeError("again")
        await asyncio.sleep(3600)

    async with work.looping("t", loop, clock=CLOCK, pause_max_s=0.01):
        await eventually(lambda: begun == 3)


async def test_leaving_an_owned_block_by_an_error_still_ends_the_task():
    ended = []

    async def forever():
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(1)

    with pytest.raises(KeyError):
        async with work.owned("t", forever):
            await asyncio.sleep(0)
            raise KeyError
    assert ended == [1]


async def test_a_task_that_loses_a_cancel_is_cancelled_again():
    lost = []

    async def careless():
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            lost.append(1)
        await asyncio.sleep(3600)

    async with work.owned("t", careless):
        await asyncio.sleep(0)
    intake = work.Intake(1, name="t")
    await intake.start(careless)
    await asyncio.sleep(0)
    assert await intake.drain(0) == 1
    assert lost == [1, 1]


async def test_a_time_limit_holds_for_work_that_loses_a_cancel():
    async def careless():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        await asyncio.sleep(3600)

    async def quick():
        return None

    async def broken():
        raise KeyError

    with pytest.raises(TimeoutError):
        await work.within(0.01, "t", careless)
    await work.within(5, "t", quick)
    with pytest.raises(KeyError):
        await work.within(5, "t", broken)
