"""`entrepot up`, `down`, `status`: a folder finds everything again, and nothing is left running."""

import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

import psutil
import pytest

from entrepot_testkit.embedded import ENTREPOT, EmbeddedStack, up

SERVICES = {
    "store-registry",
    "motion-engine",
    "cache-manager",
    "autoscaler",
    "api-gateway",
    "mover-1",
    "nats",
    "postgres",
}


def entrepot(*words):
    return subprocess.run(
        [*ENTREPOT, *words], check=False, capture_output=True, text=True, timeout=240
    )


@pytest.fixture(scope="module")
def folder():
    # Not below pytest's folder: it is closed to the user PostgreSQL runs as.
    place = Path(tempfile.mkdtemp(prefix="entrepot-flow-", dir="/var/tmp"))
    place.chmod(0o711)
    yield place / "data"
    EmbeddedStack(place / "data").down()
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def stack(folder):
    return up(folder)


def listeners(pids):
    return {
        connection.laddr.ip
        for pid in pids
        for connection in psutil.Process(pid).net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }


def test_every_part_is_its_own_process_and_listens_on_loopback_only(stack):
    pids = stack.endpoints["pids"]
    assert set(pids) == SERVICES
    assert len(set(pids.values())) == len(SERVICES)
    assert listeners(pids.values()) == {"127.0.0.1"}
    assert listeners([pids["postgres"]]) == set(), "a unix socket is all it needs"


def test_secrets_are_for_their_owner_only(stack):
    for path in [*stack.folder.glob("secrets/*"), stack.folder / "nats" / "nats.conf"]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    for name in ("secrets", "log", "run"):
        assert stat.S_IMODE((stack.folder / name).stat().st_mode) == 0o700


def test_no_password_is_in_anybodys_arguments_or_logs(stack):
    secrets = [
        path.read_text().strip()
        for path in stack.folder.glob("secrets/*")
        if path.suffix in {".password", ".nk"} or path.name == "admin.key"
    ]
    assert len(secrets) >= 12
    said = [" ".join(psutil.Process(pid).cmdline()) for pid in stack.endpoints["pids"].values()]
    said += [path.read_text(errors="replace") for path in stack.folder.glob("log/*.log")]
    assert not [one for one in secrets for text in said if one in text]


def test_status_names_every_process_and_says_that_it_is_ready(stack):
    done = entrepot("status", "--data", str(stack.folder))
    assert done.returncode == 0
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert set(lines) >= SERVICES | {"supervisor", "API"}
    assert all(lines[name].endswith(" ready") for name in SERVICES - {"nats", "postgres"})


def test_a_second_up_on_the_same_folder_is_refused(stack):
    done = entrepot("up", "--data", str(stack.folder))
    assert done.returncode == 1
    assert "in use by a running" in done.stderr


def test_down_leaves_nothing_running_and_up_finds_everything_again(stack):
    zone = stack.admin().post("/v1/zones", {"name": "kept"})
    before = stack.endpoints
    key = stack.admin_key_file.read_text()
    stack.down()
    assert not [pid for pid in before["pids"].values() if psutil.pid_exists(pid)]
    assert not psutil.pid_exists(before["supervisor"])
    assert not stack.folder.joinpath("run", "endpoints.json").exists()
    assert not list(stack.folder.glob("run/*.pid"))
    up(stack.folder)
    assert stack.endpoints["api"] == before["api"]
    assert stack.admin_key_file.read_text() == key
    assert [one["id"] for one in stack.admin().get("/v1/zones")["items"]] == [zone["id"]]


def test_status_and_down_of_a_folder_where_nothing_runs_say_so(tmp_path):
    assert entrepot("status", "--data", str(tmp_path)).returncode == 1
    done = entrepot("down", "--data", str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "nothing was running\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root drops to another user for PostgreSQL")
def test_a_folder_that_postgresql_cannot_reach_is_refused_with_a_sentence():
    closed = Path(tempfile.mkdtemp(prefix="entrepot-closed-", dir="/var/tmp"))
    try:
        assert stat.S_IMODE(closed.stat().st_mode) == 0o700
        done = entrepot("up", "--data", str(closed / "data"))
        assert done.returncode == 1
        assert "cannot reach" in done.stderr
        assert "parent folder is closed" in done.stderr
        assert not list(closed.glob("data/run/*.pid"))
    finally:
        shutil.rmtree(closed)
