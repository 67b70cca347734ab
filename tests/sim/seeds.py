"""Runs seeds of the simulation in a process of its own; one line of JSON per seed.

    PYTHONHASHSEED=0 .venv/bin/python tests/sim/seeds.py --seed 116
    PYTHONHASHSEED=0 .venv/bin/python tests/sim/seeds.py --first 0 --count 200 --twice-every 10
    PYTHONHASHSEED=0 .venv/bin/python tests/sim/seeds.py --bug "acks before commit" --enough 2

The hash seed is part of a run: product code may iterate over sets of strings.
"""

import argparse
import os
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from bugs import BUGS, CONTROLS
from msgspec import json
from story import UNTIL_S, story

from entrepot_testkit.fate import FAIR, STORM, ZOMBIES, Fate, Odds, drawn_odds
from entrepot_testkit.sim_loop import Deadlock, Livelock, OutOfTime
from entrepot_testkit.sim_world import judge

CAUGHT = (AssertionError, Deadlock, Livelock, OutOfTime)


def main(argv: list[str]) -> int:
    options = _options().parse_args(argv)
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(
            sys.executable,
            [sys.executable, __file__, *argv],
            {**os.environ, "PYTHONHASHSEED": "0"},
        )
    if options.seed is not None:
        return _replay(options)
    caught = 0
    for seed in range(options.first, options.first + options.count):
        line = _line(seed, options)
        print(json.encode(line).decode(), flush=True)
        caught += line["caught"]
        if options.enough and caught >= options.enough:
            break
    return 0


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="replay this one, loudly")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--bug", choices=sorted(BUGS | CONTROLS), default=None, help="plant it")
    parser.add_argument("--weather", choices=(FAIR, STORM, ZOMBIES), default=FAIR)
    parser.add_argument("--enough", type=int, default=0, help="stop after so many catches")
    parser.add_argument("--twice-every", type=int, default=0, help="run every n-th seed twice")
    return parser


def _line(seed: int, options: argparse.Namespace) -> dict:
    began = time.perf_counter()
    line: dict = {
        "seed": seed,
        "trace": "",
        "steps": 0,
        "struck": {},
        "failure": None,
        "caught": False,
    }
    try:
        verdict = judge(_scenario(options), seed, until_s=UNTIL_S, odds=_odds(seed, options))
        line |= {"trace": verdict.trace, "steps": verdict.steps, "struck": verdict.struck}
        line["virtual_s"] = verdict.virtual_s
        if options.twice_every and seed % options.twice_every == 0:
            again = judge(_scenario(options), seed, until_s=UNTIL_S, odds=_odds(seed, options))
            assert again == verdict, "two runs of one seed took different steps"
    except Exception as error:  # noqa: BLE001 - each is told, whatever it is
        line["failure"] = _told(error, seed, options)
        line["caught"] = isinstance(error, CAUGHT)
    line["wall_s"] = time.perf_counter() - began
    return line


def _told(error: BaseException, seed: int, options: argparse.Namespace) -> str:
    bug = "" if options.bug is None else f' --bug "{options.bug}"'
    return (
        f"{type(error).__name__}: {error}\n{Fate(seed, _odds(seed, options)).dump()}\n"
        f"replay: .venv/bin/python tests/sim/seeds.py --seed {seed} --weather {options.weather}{bug}"
    )


def _scenario(options: argparse.Namespace):
    return story(None if options.bug is None else (BUGS | CONTROLS)[options.bug])


def _odds(seed: int, options: argparse.Namespace) -> Odds:
    return drawn_odds(seed, weather=options.weather)


def _replay(options: argparse.Namespace) -> int:
    try:
        verdict = judge(
            _scenario(options), options.seed, until_s=UNTIL_S, odds=_odds(options.seed, options)
        )
    except Exception:  # noqa: BLE001 - shown, with its notes
        traceback.print_exc()
        return 1
    print(f"seed {verdict.seed} held: {verdict.steps} steps, {verdict.virtual_s:.0f} virtual s")
    print(f"struck: {verdict.struck}\ntrace: {verdict.trace}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
