"""The simulation loop keeps its promises: seeded order, virtual time, nothing from outside."""

import asyncio
import socket
import subprocess
import threading

import pytest

from entrepot_testkit.sim_clock import SeededIds, SimClock
from entrepot_testkit.sim_loop import Deadlock, Forbidden, Livelock, OutOfTime, note, run


async def _racing() -> list[int]:
    order: list[int] = []

    async def racer(number: int) -> None:
        for _lap in range(3):
            await asyncio.sleep(0)
            order.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(racer(number))
    return order


def test_a_seed_takes_the_same_steps_twice_and_another_seed_takes_others():
    first, again, other = run(1, _racing), run(1, _racing), run(2, _racing)
    assert (first.trace, first.result) == (again.trace, again.result)
    assert first.result != other.result
    assert first.trace != other.trace


def test_thirty_days_of_sleep_pass_at_once():
    async def main() -> float:
        clock = SimClock()
        before = clock.now()
        await clock.sleep(30 * 86400)
        return (clock.now() - before).total_seconds()

    outcome = run(7, main)
    assert outcome.result == pytest.approx(30 * 86400)
    assert outcome.steps < 10


def test_sets_of_tasks_iterate_alike_in_every_run():
    """F23: asyncio.wait and TaskGroup keep tasks in sets; by address, their order would differ."""

    async def main() -> list[str]:
        ballast = [object() for _ in range(len(noise) % 7 + 1)]
        noise.append(ballast)
        tasks = {asyncio.create_task(asyncio.sleep(1), name=str(n)) for n in range(50)}
        done, _pending = await asyncio.wait(tasks)
        return [task.get_name() for task in done]

    noise: list[object] = []
    results = {tuple(run(3, main).result) for _ in range(5)}
    assert len(results) == 1


def test_sets_of_events_iterate_alike_in_every_run():
    async def main() -> list[int]:
        noise.append([object() for _ in range(len(noise) % 7 + 1)])
        events = [asyncio.Event() for _ in range(50)]
        return [events.index(event) for event in set(events)]

    noise: list[object] = []
    assert len({tuple(run(3, main).result) for _ in range(5)}) == 1


def test_executors_run_inline_and_their_errors_reach_the_caller():
    def fails() -> None:
        raise ValueError("inside")

    async def main() -> int:
        assert await asyncio.to_thread(threading.get_ident) == threading.get_ident()
        with pytest.raises(ValueError, match="inside"):
            await asyncio.get_running_loop().run_in_executor(None, fails)
        return 1

    assert run(1, main).result == 1


def test_sockets_threads_and_subprocesses_are_refused_and_work_again_afterwards():
    async def main() -> None:
        with pytest.raises(Forbidden):
            await asyncio.open_connection("127.0.0.1", 1)
        with pytest.raises(Forbidden):
            await asyncio.create_subprocess_exec("true")
        with pytest.raises(Forbidden):
            threading.Thread(target=print).start()
        with pytest.raises(Forbidden):
            subprocess.run(["true"], check=True)  # noqa: ASYNC221 - it is refused
        with socket.socket() as one, pytest.raises(Forbidden):
            one.bind(("127.0.0.1", 0))

    run(1, main)
    subprocess.run(["true"], check=True)
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))


def test_waiting_for_nothing_is_a_deadlock():
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock):
        run(1, main)


def test_spinning_without_time_is_a_livelock():
    async def main() -> None:
        while True:  # noqa: ASYNC110 - the very mistake
            await asyncio.sleep(0)

    with pytest.raises(Livelock):
        run(1, main)


def test_a_run_past_its_time_says_so_and_shows_its_last_notes():
    async def main() -> None:
        while True:
            note("tick")
            await asyncio.sleep(1)

    with pytest.raises(OutOfTime) as caught:
        run(1, main, until_s=10)
    assert "tick" in caught.value.__notes__[0]


def test_cleanup_of_what_was_left_running_happens_before_the_loop_closes():
    ended: list[str] = []

    async def stubborn() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(0)
            ended.append("stubborn")

    async def main() -> None:
        task = asyncio.create_task(stubborn())
        assert not task.done()
        await asyncio.sleep(1)

    run(1, main)
    assert ended == ["stubborn"]


def test_ids_follow_seed_owner_and_virtual_time():
    async def main() -> list[str]:
        ids, others = SeededIds(1, "a"), SeededIds(1, "b")
        first = [ids.new(), others.new()]
        await asyncio.sleep(5)
        return [*first, ids.new()]

    one, other_owner, later = run(1, main).result
    assert run(1, main).result == [one, other_owner, later]
    assert one != other_owner
    assert one < later
