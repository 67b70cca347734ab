"""Jobs: waiting, progress, the sweep, the list."""

import asyncio

from entrepot_contracts import motion as m
from entrepot_contracts import registry as r
from entrepot_contracts import values as v
from entrepot_contracts.errors import Code
from entrepot_testkit.sim_clock import SimClock
from entrepot_testkit.sim_loop import run
from store_registry import sweeper


async def test_waiting_in_vain_tells_where_the_job_stands(desk, house):
    command = desk.register()
    await desk.ask(command)
    job = await desk.ask(r.GetJob(actor=desk.user, job_id=command.job_id, wait_s=0.05))
    assert (job.state, job.step) == (v.JobState.RUNNING, "copy")


def _delivered(ask, result):
    from entrepot_chassis.ports import Delivered

    done = m.TransferSucceeded(
        transfer_id=ask.transfer_id, job_id=ask.job_id, epoch=1, result=result
    )
    return Delivered(subject="evt.test", msg_id="motion:other", message=done)


def progress(ask, done, total, epoch=1):
    return m.TransferProgress(
        transfer_id=ask.transfer_id,
        job_id=ask.job_id,
        account_id=ask.account_id,
        mover_id=ask.transfer_id,
        epoch=epoch,
        phase="reading",
        bytes_done=done,
        bytes_total=total,
        rate_bps=1.0,
    )


async def test_progress_is_the_latest_word_of_the_holder_and_adds_up(desk, house):
    volume_id = await desk.volume(house.zone_a)
    command = desk.create_snapshot(volume_id)
    await desk.ask(command)
    await desk.succeed((await desk.asks(command.job_id))[-1])
    backup = (await desk.asks(command.job_id))[-1]
    job = await desk.job(command.job_id)
    assert (job.step, job.bytes_done, job.bytes_total) == ("backup", 0, None)
    await desk.registry.progress.hear(progress(backup, 10, 100, epoch=2))
    await desk.registry.progress.hear(progress(backup, 90, 100, epoch=1))  # a zombie
    job = await desk.job(command.job_id)
    assert (job.bytes_done, job.bytes_total) == (10, 100)
    await desk.succeed(backup, epoch=2)
    job = await desk.settle(command.job_id)
    assert job.bytes_done == job.bytes_total == 1 << 30
    assert len(job.transfer_ids) == 3
    assert job.finished_at is not None


async def test_jobs_are_listed_newest_first_in_pages(desk, house):
    made = [desk.register() for _ in range(5)]
    for command in made:
        await desk.ask(command)
    newest = sorted((command.job_id for command in made), reverse=True)
    first = await desk.ask(r.ListJobs(actor=desk.user, page=r.Page(limit=2)))
    last = first.items[-1].job_id
    rest = await desk.ask(r.ListJobs(actor=desk.user, page=r.Page(after=last)))
    assert [job.job_id for job in (*first.items, *rest.items)] == newest


async def test_settings_are_listed_with_defaults_and_kept(desk):
    reply = await desk.ask(r.GetSettings(actor=desk.admin))
    mixing = {s.name: s for s in reply.items}["image-store.mixing"]
    assert (mixing.value, mixing.default) == ("same-provider", "same-provider")
    await desk.mixing("any")
    reply = await desk.ask(r.GetSettings(actor=desk.admin))
    mixing = {s.name: s for s in reply.items}["image-store.mixing"]
    assert (mixing.value, mixing.default) == ("any", "same-provider")


# --- the sweep, in virtual time ---------------------------------------------------------------


def in_virtual_time(scenario, make_desk):
    """Hours pass at once: every clock is the loop's."""

    async def main():
        desk = make_desk(clock=SimClock())
        await scenario(desk, await desk.furnish())

    run(1, main)


def test_a_quiet_saga_is_asked_again_with_the_same_ids_and_growing_patience(memory_desk):
    async def scenario(desk, house):
        command = desk.register()
        await desk.ask(command)
        await asyncio.sleep(59)
        assert await sweeper.sweep(desk.registry) == 0
        await asyncio.sleep(2)
        assert await sweeper.sweep(desk.registry) == 1
        assert await rung_counts(desk, command.job_id) == [2]
        await asyncio.sleep(61)
        assert await sweeper.sweep(desk.registry) == 0, "the second ring waits twice as long"
        await asyncio.sleep(60)
        assert await sweeper.sweep(desk.registry) == 1
        await asyncio.sleep(86_400)
        assert await sweeper.sweep(desk.registry) == 1
        assert await rung_counts(desk, command.job_id) == [4]
        (ask,) = await desk.asks(command.job_id)
        await desk.succeed(ask)
        await asyncio.sleep(86_400)
        assert await sweeper.sweep(desk.registry) == 0, "an ended job is left alone"

    in_virtual_time(scenario, memory_desk)


async def rung_counts(desk, job_id):
    asked = [e.ask for e in await desk.events(r.MotionRequested) if e.ask.job_id == job_id]
    ids = [ask.transfer_id for ask in asked]
    assert all(ask == asked[ids.index(ask.transfer_id)] for ask in asked), "same id, same work"
    return [ids.count(transfer_id) for transfer_id in dict.fromkeys(ids)]


def test_progress_heard_lately_is_answer_enough(memory_desk):
    async def scenario(desk, house):
        command = desk.register()
        await desk.ask(command)
        (ask,) = await desk.asks(command.job_id)
        for _ in range(5):
            await asyncio.sleep(50)
            await desk.registry.progress.hear(progress(ask, 1, 2))
            assert await sweeper.sweep(desk.registry) == 0
        await asyncio.sleep(61)
        assert await sweeper.sweep(desk.registry) == 1

    in_virtual_time(scenario, memory_desk)


def test_a_saga_that_is_stopping_is_rung_with_its_stops(memory_desk):
    async def scenario(desk, house):
        await desk.store(desk.add_folder(house.zone_b, name="nfs-b"))
        command = desk.register(scope=v.Scope.ZONE, zone_ids=(house.zone_a, house.zone_b))
        await desk.ask(command)
        one, _ = await desk.asks(command.job_id)
        await desk.fail(one, Code.SOURCE_STATUS)
        await asyncio.sleep(61)
        assert await sweeper.sweep(desk.registry) == 1
        assert len(await desk.events(r.MotionCancelled)) == 2
        assert await rung_counts(desk, command.job_id) == [1, 2]

    in_virtual_time(scenario, memory_desk)


def test_waiting_for_a_job_ends_with_its_commit_here_at_once(memory_desk):
    async def scenario(desk, house):
        ask, waits, since = await _waiting(desk)
        await desk.succeed(ask)
        job, until = await waits
        assert job.state is v.JobState.SUCCEEDED
        assert until - since < 0.9, "the bell woke it, not the next look"

    in_virtual_time(scenario, memory_desk)


def test_a_job_another_instance_ended_is_seen_within_a_second_or_so(memory_desk):
    async def scenario(desk, house):
        ask, waits, since = await _waiting(desk)
        # As another instance does it: the commit is the same, and nobody rings here.
        await desk.once([_delivered(ask, desk.result(ask))])
        job, until = await waits
        assert job.state is v.JobState.SUCCEEDED
        assert 0.9 < until - since < 2

    in_virtual_time(scenario, memory_desk)


async def _waiting(desk):
    """A transfer, a task that waits for its job, and the time (virtual) it began to."""
    command = desk.register()
    await desk.ask(command)
    (ask,) = await desk.asks(command.job_id)
    clock = desk.registry.clock

    async def wait():
        job = await desk.ask(r.GetJob(actor=desk.user, job_id=command.job_id, wait_s=20))
        return job, clock.monotonic()

    waits = asyncio.create_task(wait())
    since = clock.monotonic()
    await asyncio.sleep(0.1)
    assert not waits.done()
    return ask, waits, since
