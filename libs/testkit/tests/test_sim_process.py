"""A killed process leaves what it had committed and nothing else; a paused one is a zombie."""

import asyncio
from typing import ClassVar

import pytest

from entrepot_chassis.ports import DatabaseUnavailable, Row, Table
from entrepot_testkit.fate import CALM, Fate, Odds
from entrepot_testkit.memory_database import MemoryDatabase
from entrepot_testkit.sim_loop import run
from entrepot_testkit.sim_process import SimProcess


class Count(Row, kw_only=True):
    TABLE: ClassVar[Table] = Table(name="count", key="name")
    name: str
    n: int = 0


async def add_one(database, name: str) -> None:
    async with database.transaction() as tx:
        row = await tx.get(Count, name, lock=True) or Count(name=name)
        row.n += 1
        await tx.put(row)


def counted(store) -> dict[str, int]:
    return {row.name: row.n for row in store.rows(Count)}


def test_no_finally_of_a_killed_process_has_an_effect():
    async def main() -> None:
        fate = Fate(1, CALM)
        store = MemoryDatabase(fate, service="s")
        left: list[str] = []

        async def body(life) -> None:
            database = store.connection(life)
            await add_one(database, "before")
            try:
                await asyncio.sleep(100)
            finally:
                left.append("finally ran")
                await add_one(database, "after")

        process = SimProcess("p", body, fate=fate)
        process.restarts = False
        process.start()
        await asyncio.sleep(10)
        process.kill()
        await asyncio.sleep(1000)
        assert counted(store) == {"before": 1}
        assert left == []
        stores.append(store)

    stores: list[MemoryDatabase] = []
    run(1, main)
    assert counted(stores[0]) == {"before": 1}, "not at the end of the loop either"


def test_a_killed_process_gives_back_its_locks_and_writes_nothing():
    async def main() -> None:
        fate = Fate(1, CALM)
        store = MemoryDatabase(fate, service="s")
        await add_one(store.connection(), "a")

        async def body(life) -> None:
            async with store.connection(life).transaction() as tx:
                row = await tx.get(Count, "a", lock=True)
                row.n = 99
                await tx.put(row)
                await asyncio.sleep(1000)

        process = SimProcess("p", body, fate=fate)
        process.restarts = False
        process.start()
        await asyncio.sleep(5)
        blocked = asyncio.ensure_future(add_one(store.connection(), "a"))
        await asyncio.sleep(5)
        assert not blocked.done()
        process.kill()
        await blocked
        assert counted(store) == {"a": 2}

    run(1, main)


def test_a_killed_process_comes_back_and_finds_what_was_committed():
    async def main() -> None:
        fate = Fate(1, CALM)
        store = MemoryDatabase(fate, service="s")

        async def body(life) -> None:
            database = store.connection(life)
            while True:
                await add_one(database, "ticks")
                await asyncio.sleep(1)

        process = SimProcess("p", body, fate=fate, restart_s=5)
        process.start()
        await asyncio.sleep(10)
        before = counted(store)["ticks"]
        process.kill()
        await asyncio.sleep(4)
        assert counted(store)["ticks"] == before
        await asyncio.sleep(10)
        assert counted(store)["ticks"] > before
        assert process.life.number == 2

    run(1, main)


def test_doom_strikes_at_every_await_in_turn():
    """Over many seeds the process dies at different steps, and each death is whole or nothing."""

    async def main() -> int:
        fate = Fate(seed, Odds(crash_every_steps=12))
        fate.unleash()
        store = MemoryDatabase(fate, service="s")

        async def body(life) -> None:
            database = store.connection(life)
            async with database.transaction() as tx:
                await tx.put(Count(name="a"))
                await tx.put(Count(name="b"))

        process = SimProcess("p", body, fate=fate)
        process.restarts = False
        process.start()
        steps = process.life
        await asyncio.sleep(5)
        assert set(counted(store)) in (set(), {"a", "b"})
        return steps.steps

    deaths = set()
    for seed in range(40):
        deaths.add(run(seed, main).result)
    assert len(deaths) > 4


def test_a_paused_process_does_nothing_while_time_goes_on_and_then_does_not_know():
    async def main() -> None:
        fate = Fate(1, CALM)
        store = MemoryDatabase(fate, service="s")
        felt: list[float] = []

        async def body(life) -> None:
            database, clock = store.connection(life), store.clock
            while True:
                before = clock.monotonic()
                await clock.sleep(1)
                felt.append(clock.monotonic() - before)
                await add_one(database, "ticks")

        process = SimProcess("p", body, fate=fate)
        process.start()
        await asyncio.sleep(10)
        process.pause()
        before = counted(store)["ticks"]
        await asyncio.sleep(60)
        assert counted(store)["ticks"] == before
        process.resume()
        await asyncio.sleep(3)
        assert counted(store)["ticks"] > before
        assert max(felt) >= 60

    run(1, main)


@pytest.mark.parametrize("fault", ["commit_unsaid", "commit_failed"])
def test_a_commit_that_raised_may_have_happened_or_not(fault):
    async def main() -> None:
        fate = Fate(1, Odds(**{fault: 1.0}))
        fate.unleash()
        store = MemoryDatabase(fate, service="s")
        with pytest.raises(DatabaseUnavailable):
            await add_one(store.connection(), "a")
        assert counted(store) == ({"a": 1} if fault == "commit_unsaid" else {})

    run(1, main)
