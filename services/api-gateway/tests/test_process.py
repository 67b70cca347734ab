"""The real process: first administrator, no secrets in its log, health, drain."""

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from contextlib import contextmanager

import httpx
import pytest

SECRETS = {
    "config": "canary-config-5d1f",
    "userinfo": "canary-userinfo-77aa",
    "query": "canary-query-90bc",
    "idempotency": "canary-idempotency-1e2d",
    "name": "canary-name-4411",
}


class Process:
    def __init__(self, popen):
        self._popen = popen
        self.lines = []
        self._listening = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self._popen.stderr:
            self.lines.append(json.loads(line))
            if self.lines[-1]["event"] == "http_listening":
                self._listening.set()
        self._listening.set()

    def ports(self):
        assert self._listening.wait(60)
        events = {line["event"]: line for line in self.lines}
        return events["http_listening"]["port"], events["health.listening"]["port"]

    def stop(self):
        self._popen.send_signal(signal.SIGTERM)
        code = self._popen.wait(30)
        self._reader.join(10)
        return code


@pytest.fixture
def environment(nats_url, database_url, tmp_path):
    own = {
        "NATS_URL": nats_url,
        "DATABASE_URL": database_url,
        "SEAL_KEY_FILE": str(tmp_path / "seal.key"),
        "ADMIN_KEY_FILE": str(tmp_path / "admin.key"),
        "ASK_TIMEOUT_S": "0.3",
    }
    return os.environ | {f"ENTREPOT_API_GATEWAY_{name}": value for name, value in own.items()}


@contextmanager
def process(environment):
    popen = subprocess.Popen(
        [sys.executable, "-m", "api_gateway"], env=environment, stderr=subprocess.PIPE, text=True
    )
    running = Process(popen)
    try:
        yield running
    finally:
        if popen.poll() is None:
            popen.kill()
        popen.wait(30)
        running._reader.join(10)
        popen.stderr.close()


def migrate(environment):
    argv = [sys.executable, "-m", "api_gateway", "migrate"]
    subprocess.run(argv, env=environment, check=True, capture_output=True, timeout=120)


def test_the_first_start_makes_an_administrator_and_later_ones_do_not(environment, tmp_path):
    migrate(environment)
    key_file = tmp_path / "admin.key"
    with process(environment) as running:
        port, health = running.ports()
        assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
        key = key_file.read_text().strip()
        headers = {"Authorization": f"Bearer {key}"}
        me = httpx.get(f"http://127.0.0.1:{port}/v1/me", headers=headers)
        assert (me.status_code, me.json()["role"]) == (200, "admin")
        assert httpx.get(f"http://127.0.0.1:{health}/readyz").status_code == 200
        _send_secrets(port, headers)
        assert 'route="/v1/me"' in httpx.get(f"http://127.0.0.1:{health}/metrics").text
        assert running.stop() == 0
    told = json.dumps(running.lines)
    assert "first_admin_created" in told
    assert '"route": "/v1/image-stores"' in told
    for secret in (*SECRETS.values(), key, key.split("_", 2)[2]):
        assert secret not in told
    key_file.unlink()
    with process(environment) as running:
        port, _ = running.ports()
        assert httpx.get(f"http://127.0.0.1:{port}/v1/me", headers=headers).status_code == 200
        assert not key_file.exists()
        assert running.stop() == 0


def _send_secrets(port, headers):
    url = f"http://127.0.0.1:{port}/v1"
    key = {"Idempotency-Key": SECRETS["idempotency"]}
    store = {"name": "s", "provider": "dir", "config": {"password": SECRETS["config"]}}
    # Nobody answers behind it: the failure paths are those that like to talk.
    answer = httpx.post(f"{url}/image-stores", json=store, headers=headers | key)
    assert answer.status_code == 503
    signed = f"http://x/i?sig={SECRETS['query']}"
    template = {"name": SECRETS["name"], "url": signed, "format": "raw"}
    assert httpx.post(f"{url}/templates", json=template, headers=headers).status_code == 503
    with_password = template | {"url": f"http://u:{SECRETS['userinfo']}@x/i"}
    answer = httpx.post(f"{url}/templates", json=with_password, headers=headers)
    assert answer.status_code == 400
    assert SECRETS["userinfo"] not in answer.text
    wrong = template | {"format": SECRETS["config"]}
    assert httpx.post(f"{url}/templates", json=wrong, headers=headers).status_code == 400
    path = f"{url}/templates/{SECRETS['name']}?sig={SECRETS['query']}"
    assert httpx.get(path, headers=headers).status_code == 400
    bad = {"Authorization": f"Bearer {SECRETS['config']}"}
    assert httpx.get(f"{url}/zones", headers=bad).status_code == 401


def test_an_open_event_stream_does_not_hold_up_the_drain(environment, tmp_path):
    migrate(environment)
    with process(environment) as running:
        port, _ = running.ports()
        headers = {"Authorization": f"Bearer {(tmp_path / 'admin.key').read_text().strip()}"}
        url = f"http://127.0.0.1:{port}/v1/events"
        with httpx.stream("GET", url, headers=headers, timeout=30) as stream:
            lines = stream.iter_lines()
            assert next(lines).startswith(":")
            assert running.stop() == 0
            assert not any(line.startswith("data") for line in lines)
        events = [line["event"] for line in running.lines]
        assert "service.stopped" in events
        assert "service.stopped_hard" not in events


def test_wrong_settings_end_the_process_with_78_and_all_reasons(environment):
    broken = {
        name: value for name, value in environment.items() if not name.endswith("SEAL_KEY_FILE")
    }
    broken["ENTREPOT_API_GATEWAY_HTTP_PORT"] = "70000"
    done = subprocess.run(
        [sys.executable, "-m", "api_gateway"],
        env=broken,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 78
    assert "SEAL_KEY_FILE" in done.stderr
    assert "HTTP_PORT" in done.stderr
