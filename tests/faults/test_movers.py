"""Movers that die, and movers that freeze and come back."""

import time

from tests.faults.scenery import JOB_S, LEASE_S, MIB

PART_BYTES = 16 * MIB
PARTS_RESENT_MAX = 8
IN_FLIGHT = 4
FAST_BPS = 60_000_000


def test_a_killed_movers_transfer_is_finished_by_another_sending_little_again(scenery):
    file = scenery.large.raw
    before = scenery.served(file)
    accepted = scenery.register("killed", file, scope="region", bps=FAST_BPS)
    held = scenery.running_copy(accepted["job_id"], share=0.4)
    killed = scenery.holder_of(held)
    old_pid = scenery.stack.kill(killed)
    scenery.api.succeeded(accepted["job_id"], timeout_s=JOB_S)
    after = scenery.api.get(f"/v1/transfers/{held['id']}")
    assert after["epoch"] > held["epoch"]
    assert after["bytes_resent"] <= (PARTS_RESENT_MAX + IN_FLIGHT) * PART_BYTES
    again = scenery.served(file) - before - file.stat().st_size
    assert 0 <= again <= (PARTS_RESENT_MAX + IN_FLIGHT) * PART_BYTES
    assert held["bytes_done"] > again, "most of it was not fetched again"
    scenery.assert_template(accepted["id"], file)
    scenery.stack.comes_back(killed, old_pid=old_pid)


def test_a_mover_frozen_past_its_lease_changes_nothing_when_it_comes_back_after_the_end(scenery):
    file = scenery.large.raw
    accepted = scenery.register("late", file, scope="region", bps=FAST_BPS)
    held = scenery.running_copy(accepted["job_id"], share=0.2)
    zombie = scenery.holder_of(held)
    scenery.freeze(zombie)
    try:
        scenery.api.succeeded(accepted["job_id"], timeout_s=JOB_S)
        finished = scenery.api.get(f"/v1/transfers/{held['id']}")
        stored = scenery.stored("templates", accepted["id"])
        assert finished["epoch"] > held["epoch"]
        assert finished["mover_id"] != held["mover_id"]
    finally:
        scenery.thaw(zombie)
    scenery.noticed_its_loss(zombie, held)
    time.sleep(LEASE_S)  # long enough for it to try everything it had in mind
    assert scenery.api.get(f"/v1/transfers/{held['id']}") == finished
    assert scenery.stored("templates", accepted["id"]) == stored
    scenery.assert_template(accepted["id"], file)
    scenery.work().ends_right()  # and it is of use again


def test_a_mover_that_comes_back_while_another_does_its_work_is_fenced_off(scenery):
    file = scenery.large.raw
    accepted = scenery.register("meanwhile", file, scope="region", bps=FAST_BPS)
    held = scenery.running_copy(accepted["job_id"], share=0.2)
    zombie = scenery.holder_of(held)
    scenery.freeze(zombie)
    try:
        taken = scenery.taken_over(held)
    finally:
        scenery.thaw(zombie)
    scenery.noticed_its_loss(zombie, held)
    scenery.api.succeeded(accepted["job_id"], timeout_s=JOB_S)
    after = scenery.api.get(f"/v1/transfers/{held['id']}")
    assert (after["epoch"], after["mover_id"]) == (taken["epoch"], taken["mover_id"])
    assert after["epoch"] == held["epoch"] + 1, "nobody lost it to the zombie again"
    scenery.assert_template(accepted["id"], file)
