"""Restart, stop and take-over, with real processes."""

import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from entrepot_chassis.clock import SystemClock
from entrepot_cli.embedded.child import Child, StartFailed
from entrepot_cli.embedded.folder import DataFolder, Occupied, ProcessMark
from entrepot_cli.embedded.supervisor import Supervisor
from entrepot_cli.embedded.takeover import end_leftovers

WAIT_S = 20


class Sleeper:
    """A process that does nothing; notes when it is asked to stop."""

    def __init__(self, name, folder, ended, *, ready_after=0, code="import time; time.sleep(600)"):
        self.name = name
        self._ended, self._asks, self._ready_after = ended, 0, ready_after
        self._child = Child(
            [sys.executable, "-c", code], log_path=folder.log_of(name), die_with_parent=True
        )

    pid = property(lambda self: self._child.pid)
    running = property(lambda self: self._child.running)

    def start(self):
        self._child.start()

    def ready(self):
        self._asks += 1
        return self._asks > self._ready_after

    def ask_stop(self):
        self._child.ask_stop()

    def stop(self):
        self._child.stop()
        self._ended.append(self.name)

    def kill(self):
        self._child.kill()


@pytest.fixture
def folder(tmp_path):
    folder = DataFolder(tmp_path / "data")
    folder.prepare()
    return folder


def until(condition):
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.02)


def alive(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.fixture
def watched(folder):
    """Two stages, watched by the thread that started them."""
    ended, pids, box = [], [], {}
    going = threading.Event()

    def run():
        supervisor = Supervisor(folder, clock=SystemClock(), changed=lambda: pids.append(1))
        supervisor.start([Sleeper("first", folder, ended)], timeout_s=WAIT_S)
        supervisor.start(
            [Sleeper("second", folder, ended, ready_after=2), Sleeper("third", folder, ended)],
            timeout_s=WAIT_S,
        )
        box["supervisor"] = supervisor
        going.set()
        supervisor.watch()
        supervisor.stop()

    thread = threading.Thread(target=run)
    thread.start()
    assert going.wait(WAIT_S)
    yield box["supervisor"], ended, pids
    box["supervisor"].request_stop()
    thread.join()


def test_what_dies_is_started_again_under_a_new_pid_and_the_pid_file_follows(watched, folder):
    supervisor, _, changes = watched
    before = supervisor.pids["second"]
    os.kill(before, signal.SIGKILL)
    until(lambda: supervisor.pids.get("second", before) != before and changes)
    assert folder.marked("second").pid == supervisor.pids["second"]
    assert supervisor.pids["first"] == folder.marked("first").pid


def test_a_stop_ends_everything_in_reverse_order_of_start(watched, folder):
    supervisor, ended, _ = watched
    pids = supervisor.pids
    supervisor.request_stop()
    until(lambda: len(ended) == 3)
    assert ended == ["third", "second", "first"]
    assert not any(alive(pid) for pid in pids.values())
    until(lambda: not folder.all_marked())


def test_a_process_that_keeps_dying_fails_the_start_with_its_name_and_log(folder):
    supervisor = Supervisor(folder, clock=SystemClock(), changed=lambda: None)
    broken = Sleeper("broken", folder, [], code="raise SystemExit(3)", ready_after=10**6)
    with pytest.raises(StartFailed, match=r"broken.*not ready.*log/broken\.log"):
        supervisor.start([broken], timeout_s=1)
    supervisor.stop()
    assert not broken.running


def test_children_die_with_a_supervisor_that_is_killed(tmp_path):
    code = (
        "import sys, time; from pathlib import Path\n"
        "from entrepot_cli.embedded.child import Child\n"
        f"child = Child([sys.executable, '-c', 'import time; time.sleep(600)'],"
        f" log_path=Path({str(tmp_path / 'x.log')!r}), die_with_parent=True)\n"
        "child.start(); print(child.pid, flush=True); time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
        parent.wait()
        until(lambda: not alive(pid))


def test_leftovers_of_a_killed_run_are_ended_and_a_recycled_pid_is_left_alone(folder):
    with (
        subprocess.Popen(["sleep", "600"], start_new_session=True) as ours,
        subprocess.Popen(["sleep", "600"], start_new_session=True) as stranger,
    ):
        try:
            folder.mark("motion-engine", ours.pid)
            folder.mark("autoscaler", stranger.pid)
            mark = folder.marked("autoscaler")
            earlier = ProcessMark(pid=mark.pid, started=mark.started - 60)
            (folder.run / "autoscaler.pid").write_bytes(_encoded(earlier))
            assert end_leftovers(folder) == ["motion-engine"]
            assert ours.wait(WAIT_S) is not None
            assert stranger.poll() is None
            assert folder.all_marked() == {}
        finally:
            stranger.kill()
            ours.kill()


def test_a_folder_belongs_to_one_supervisor_at_a_time(folder):
    with folder.locked(), pytest.raises(Occupied, match="in use"), folder.locked():
        pass
    with folder.locked():
        pass


def test_ports_stay_the_same_from_run_to_run_unless_somebody_took_one(folder):
    import socket

    first = folder.ports(["api", "nats"])
    assert folder.ports(["api", "nats", "mover-1"]).items() >= first.items()
    with socket.socket() as taker:
        taker.bind(("127.0.0.1", first["api"]))
        taker.listen()
        again = folder.ports(["api", "nats"])
    assert again["nats"] == first["nats"]
    assert again["api"] != first["api"]


def test_secrets_are_made_once_and_readable_by_their_owner_only(folder):
    path = folder.secret("key", lambda: "one")
    assert folder.secret("key", lambda: "two").read_text() == "one"
    assert path.stat().st_mode & 0o777 == 0o600
    assert folder.secrets.stat().st_mode & 0o777 == 0o700


def _encoded(mark):
    import msgspec

    return msgspec.json.encode(mark)
