"""Each service, the bus and the database die in turn while jobs run: every job still ends right."""

import shutil

import pytest

from entrepot_testkit import embedded

PROCESSES = (
    "store-registry",
    "motion-engine",
    "api-gateway",
    "cache-manager",
    "autoscaler",
    "nats",
    "postgres",
)


@pytest.mark.parametrize("name", PROCESSES)
def test_jobs_end_right_although_one_process_is_killed_in_the_middle(scenery, name):
    work = scenery.work()
    scenery.kill_and_wait(name)
    work.ends_right()


def test_jobs_end_right_although_the_whole_event_store_is_lost(scenery):
    work = scenery.work()
    store = scenery.stack.folder / "nats" / "jetstream"
    gone = store.with_name("jetstream.lost")
    store.rename(gone)  # nats-server dies before it can write into what is left of it
    scenery.kill_and_wait("nats")
    assert store.exists(), "the server made a new, empty store"
    work.ends_right()
    shutil.rmtree(gone)
    again = scenery.work()
    again.ends_right()


def test_jobs_end_right_after_everything_was_killed_at_once_and_started_again(scenery):
    """The supervisor's death takes the services with it; PostgreSQL is taken over."""
    work = scenery.work()
    before = scenery.stack.endpoints
    scenery.stack.kill_supervisor()
    embedded.up(scenery.stack.folder, movers=2, env=scenery.env)
    after = scenery.stack.endpoints
    assert after["api"] == before["api"], "the same folder has the same address"
    assert not set(after["pids"].values()) & set(before["pids"].values())
    work.ends_right()
