"""Runs every command of the README's tour, in order, in one shell that stops at the first error."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
TOUR_S = 600
# `! command` does not stop a shell under -e whichever way it goes; the README's refusals must.
REFUSED = re.compile(r"^! ((?:.*\\\n)*.*)$", re.MULTILINE)


@pytest.fixture
def folder(tmp_path_factory):
    """PostgreSQL drops root, so its folder must be reachable by everybody."""
    path = Path(f"/var/tmp/entrepot-tour-{os.getpid()}")
    yield path
    down = ["entrepot", "down", "--data", str(path / "data")]
    env = os.environ | {"PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}"}
    subprocess.run(down, env=env, capture_output=True, check=False)
    shutil.rmtree(path, ignore_errors=True)


def script() -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = BLOCK.findall(text)
    assert len(blocks) > 5
    commands = "\n".join(blocks).replace("make setup\n", "")  # the test runs in what it made
    return REFUSED.sub(r"if \1; then echo 'was not refused' >&2; exit 9; fi", commands)


@pytest.mark.timeout(TOUR_S + 60)
def test_every_command_of_the_tour_works(folder):
    trap = "trap 'kill $(jobs -p) 2>/dev/null' EXIT\n"
    done = subprocess.run(
        ["bash", "-xeuo", "pipefail", "-c", trap + script()],
        cwd=ROOT,
        env=os.environ | {"TOUR": str(folder)},
        capture_output=True,
        text=True,
        timeout=TOUR_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-5000:]}"
    assert "sha256" in done.stdout or "checksum" in done.stderr


def test_a_refusal_that_does_not_come_stops_the_tour():
    turned = REFUSED.sub(r"if \1; then echo 'was not refused' >&2; exit 9; fi", "! true\necho on")
    done = subprocess.run(["bash", "-ec", turned], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (9, "")
