"""Registry, motion-engine and movers in one simulation: every seed must hold, each the same twice.

The seeds run in processes of their own with a fixed hash seed, two at a time.
"""

import asyncio
import os
import re
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from bugs import BUGS
from clients import Operator
from installation import UNIQUE, Installation, Seams
from msgspec import json
from story import UNTIL_S
from tenants import Tenant

from entrepot_testkit.fate import CALM, STORM, ZOMBIES, Odds, drawn_odds
from entrepot_testkit.sim_world import World, judge

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SEEDS = int(os.environ.get("ENTREPOT_SIM_SEEDS", "200"))
BUG_SEEDS = 60
WORKERS = 2
TIMEOUT_S = 900


def run_seeds(*arguments: str) -> list[dict]:
    """Lines of one process of seeds.py."""
    done = subprocess.run(
        [sys.executable, str(HERE / "seeds.py"), *arguments],
        capture_output=True,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-4000:]
    return [json.decode(line) for line in done.stdout.splitlines()]


def side_by_side(jobs: list[tuple[str, ...]]) -> list[list[dict]]:
    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(lambda arguments: run_seeds(*arguments), jobs))


@pytest.fixture(scope="module")
def verdicts() -> list[dict]:
    step = -(-SEEDS // (WORKERS * 2))
    jobs = [
        ("--first", str(first), "--count", str(min(step, SEEDS - first)), "--twice-every", "10")
        for first in range(0, SEEDS, step)
    ]
    return [line for lines in side_by_side(jobs) for line in lines]


@pytest.mark.timeout(TIMEOUT_S)
def test_every_seed_holds(verdicts, capsys):
    failed = [line for line in verdicts if line["failure"]]
    with capsys.disabled():
        print(
            f"\n{len(verdicts)} seeds, {sum(line['steps'] for line in verdicts)} steps, "
            f"{sum(line['virtual_s'] for line in verdicts) / 3600:.1f} virtual h, "
            f"{sum(line['wall_s'] for line in verdicts):.0f} s of work",
            end=" ",
        )
    assert len(verdicts) == SEEDS
    told = "\n\n".join(line["failure"] for line in failed[:5])
    assert not failed, f"{len(failed)} of {SEEDS} seeds fail\n\n{told}"


@pytest.mark.parametrize("weather", [STORM, ZOMBIES])
def test_worse_weather_is_survived(weather):
    lines = run_seeds("--weather", weather, "--first", "0", "--count", "15")
    failed = [line["failure"] for line in lines if line["failure"]]
    assert not failed, failed[0]


def test_a_seed_takes_the_same_steps_in_another_process(verdicts):
    again = run_seeds("--first", "0", "--count", "5")
    assert [line["trace"] for line in again] == [line["trace"] for line in verdicts[:5]]
    held = [line["trace"] for line in verdicts if not line["failure"]]
    assert len(set(held)) == len(held)


def test_every_kind_of_fault_strikes_often(verdicts):
    struck = Counter()
    for line in verdicts:
        struck.update(line["struck"])
    kinds = {name for seed in range(40) for name in Odds.__struct_fields__ if _on(seed, name)}
    timed = {"crash_every_steps": "crash", "pause_every_s": "pause", "wipe_every_s": "wipe"}
    calm = {"delay_s_max", "delay_long_s"}
    for kind in sorted(kinds - calm):
        assert struck[timed.get(kind, kind)] >= SEEDS // 20, f"{kind} hardly ever struck"
    assert struck["stale"], "no mover ever spoke under an epoch that was over"


def _on(seed: int, name: str) -> bool:
    return bool(getattr(drawn_odds(seed), name))


# What takes many faults at once is found sooner in a storm, what a zombie does among zombies.
WEATHER = {bug: ZOMBIES if "not fenced" in bug else STORM for bug in BUGS}


@pytest.fixture(scope="module")
def hunts() -> dict[str, list[dict]]:
    jobs = [
        ("--bug", bug, "--weather", WEATHER[bug], "--count", str(BUG_SEEDS), "--enough", "1")
        for bug in BUGS
    ]
    return dict(zip(BUGS, side_by_side(jobs), strict=True))


@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught(hunts, bug, capsys):
    lines = hunts[bug]
    caught = [line for line in lines if line["caught"]]
    with capsys.disabled():
        how = caught[0]["failure"].splitlines()[0][:90] if caught else "not caught"
        print(f"\n{bug}: {len(caught)} of the first {len(lines)} seeds ({how})", end=" ")
    assert caught, f"{bug}: held all of {len(lines)} seeds"


def test_a_command_that_arrives_twice_is_accepted_both_times():
    """The copies race: whichever answer comes first, it must not be a refusal."""

    async def scenario(world: World) -> None:
        installation = Installation(world, Seams())
        installation.start()
        operator = Operator(installation)
        await operator.build()
        tenant = Tenant(operator, "ann")
        volume_id, _job = await tenant.blank_volume(0)
        command = tenant.snapshot_of(volume_id)
        one, two = await asyncio.gather(tenant.ask(command), tenant.ask(command))
        assert one == two

    for seed in range(20):
        judge(scenario, seed, until_s=UNTIL_S, odds=CALM)


def test_the_fake_database_knows_every_unique_index_of_the_migrations():
    found: dict[str, int] = Counter()
    for service in ("store-registry", "motion-engine"):
        for path in (ROOT / "services" / service).rglob("migrations/*.sql"):
            text = path.read_text()
            for table, body in re.findall(r"CREATE TABLE (\w+) \((.*?)\n\)", text, re.DOTALL):
                found[table] += len(re.findall(r"\bUNIQUE\b", body))
            for table in re.findall(r"CREATE UNIQUE INDEX \w+ ON (\w+)", text):
                found[table] += 1
    wanted = {table: count for table, count in found.items() if count}
    assert {table: len(rules) for table, rules in UNIQUE.items()} == wanted
