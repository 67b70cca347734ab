"""The real Swift of the tests: it starts anywhere, keeps its data, and leaves nothing running."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request

import psutil
import pytest

from entrepot_testkit.swift import SwiftTrouble, start, swift_server


def token_and_url(server):
    request = urllib.request.Request(
        server.auth_url,
        headers={"X-Auth-User": server.access_key, "X-Auth-Key": server.secret_key},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.headers["X-Auth-Token"], answer.headers["X-Storage-Url"]


def call(method, url, token, data=None):
    request = urllib.request.Request(url, data, {"X-Auth-Token": token}, method=method)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.read()


def test_it_finds_its_data_keys_and_ports_again_and_ends_all_processes(tmp_path):
    with swift_server(tmp_path) as first:
        token, url = token_and_url(first)
        call("PUT", f"{url}/box", token)
        call("PUT", f"{url}/box/thing", token, b"kept")
        pids = dict(first.pids)
        assert set(pids) == {"memcached", "account", "container", "object", "proxy"}
    assert not any(psutil.pid_exists(pid) for pid in pids.values())
    with swift_server(tmp_path) as second:
        assert (second.endpoint, second.secret_key) == (first.endpoint, first.secret_key)
        token, url = token_and_url(second)
        assert call("GET", f"{url}/box/thing", token) == b"kept"
    assert (tmp_path / "state.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("how", ["terminated", "leash", "killed"])
def test_as_a_process_it_prints_one_line_and_leaves_nothing_running(tmp_path, how):
    process = subprocess.Popen(
        [sys.executable, "-m", "entrepot_testkit.swift", "--dir", str(tmp_path), "--leash"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        facts = json.loads(process.stdout.readline())
        assert facts["endpoint"].startswith("http://127.0.0.1:")
        children = list(facts["pids"].values())
        assert all(psutil.pid_exists(pid) for pid in children)
        if how == "terminated":
            process.send_signal(signal.SIGTERM)
        elif how == "killed":
            process.kill()
        process.stdin.close()
        process.wait(30)
        assert process.returncode == (-signal.SIGKILL if how == "killed" else 0)
    deadline = time.monotonic() + 30
    while any(psutil.pid_exists(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(psutil.pid_exists(pid) for pid in children)


def test_a_server_that_dies_ends_the_others(tmp_path):
    server = start(tmp_path)
    try:
        os.kill(server.pids["object"], signal.SIGKILL)
        deadline = time.monotonic() + 30
        while server.running and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not server.running
        assert not any(psutil.pid_exists(pid) for pid in server.pids.values())
    finally:
        server.stop()


def test_a_folder_without_extended_attributes_is_refused_in_words(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(os, "setxattr", refuse)
    with pytest.raises(SwiftTrouble, match="extended attributes"):
        start(tmp_path)
