"""Services as processes: exit codes, signals, the hard stop."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

HEAD = """
import asyncio, sys, time
from msgspec import Struct
from entrepot_chassis import health, lifecycle, postgres
from entrepot_chassis.ports import Misconfigured

class Settings(Struct, frozen=True, kw_only=True):
    database_url: str
    log_level: str = "info"

def say(text):
    print(text, flush=True)
"""
MAIN = """
lifecycle.main(
    service="demo-svc", settings=Settings, run=run,
    migrations=postgres.Migrations(package="entrepot_testkit", schema="demo"),
)
"""


@pytest.fixture
def start(tmp_path):
    """A service whose `run` is the given source; killed at the end whatever happens."""
    begun = []

    def begin(body, *words, url="postgresql://u:secretpw@127.0.0.1:1/x", **environ):
        path = tmp_path / "service.py"
        path.write_text(HEAD + textwrap.dedent(body) + MAIN)
        process = subprocess.Popen(
            [sys.executable, str(path), *words],
            env={**os.environ, "ENTREPOT_DEMO_SVC_DATABASE_URL": url, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        begun.append(process)
        return process

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


ENDS = """
async def run(settings):
    say("ran")
"""
SERVES = """
async def run(settings):
    async with health.serve("127.0.0.1", 0, pings={}) as probe:
        say("ready")
        try:
            await lifecycle.until_stopped(probe, grace_s=GRACE)
            say(await probe.failing())
        finally:
            SLOW
            say("drained")
"""


def ended(process) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_a_service_that_returns_exits_zero(start):
    assert ended(start(ENDS))[:2] == (0, "ran\n")


def test_wrong_settings_exit_78_with_all_their_names(start):
    code, out, err = ended(start(ENDS, url="", ENTREPOT_DEMO_SVC_SPEED="9"))
    assert (code, out) == (78, "")
    assert "ENTREPOT_DEMO_SVC_DATABASE_URL: missing" in err
    assert "ENTREPOT_DEMO_SVC_SPEED: unknown setting" in err


def test_a_misconfiguration_found_while_running_exits_78(start):
    body = """
    async def run(settings):
        raise Misconfigured("stream EVT differs")
    """
    code, _, err = ended(start(body))
    assert code == 78
    assert "stream EVT differs" in err


def test_a_failure_exits_1_with_its_traceback_and_without_secrets(start):
    body = """
    async def run(settings):
        raise RuntimeError(f"cannot use {settings.database_url}")
    """
    code, _, err = ended(start(body))
    assert code == 1
    assert "RuntimeError" in err
    assert "secretpw" not in err


def test_an_unknown_word_is_a_usage_error(start):
    code, _, err = ended(start(ENDS, "serve"))
    assert code == 2
    assert "usage" in err


def test_migrate_applies_and_ends(start, database_url):
    code, out, err = ended(start(ENDS, "migrate", url=database_url))
    assert (code, out) == (0, "")
    assert "chassis/0000_history.sql" in err


def test_assertions_may_not_be_switched_off(start):
    assert ended(start(ENDS, PYTHONOPTIMIZE="1"))[0] == 78


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_turns_readiness_off_then_drains_and_exits_zero(start, number):
    process = start(SERVES.replace("GRACE", "25").replace("SLOW", "await asyncio.sleep(0.2)"))
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    code, out, _ = ended(process)
    assert (code, out) == (0, "['stopping']\ndrained\n")


def test_a_second_signal_ends_it_hard(start):
    process = start(SERVES.replace("GRACE", "3600").replace("SLOW", "await asyncio.sleep(3600)"))
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "['stopping']\n"
    process.send_signal(signal.SIGTERM)
    code, out, err = ended(process)
    assert (code, out) == (1, "")
    assert "second signal" in err


def test_a_drain_that_hangs_even_the_loop_ends_hard_after_the_grace(start):
    process = start(SERVES.replace("GRACE", "0.3").replace("SLOW", "time.sleep(3600)"))
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    code, _, err = ended(process)
    assert code == 1
    assert "drain took too long" in err
