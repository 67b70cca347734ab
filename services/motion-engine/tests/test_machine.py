"""The transfer machine: every pair is decided, walks end right, zombies change nothing."""

import os
import random
from datetime import UTC, datetime, timedelta

import pytest

from entrepot_contracts.errors import Code, Problem
from entrepot_contracts.motion import TransferFailed, TransferState, TransferSucceeded
from entrepot_testkit.motion_asks import Asks, copied
from motion_engine.machine import FENCED, IGNORED, TRANSITIONS, Fenced, IllegalTransition, step
from motion_engine.planner import new_transfer
from motion_engine.rows import HELD, TERMINAL
from motion_engine.stimuli import (
    Announce,
    CancelAsked,
    Claimed,
    Evicted,
    Faltered,
    LeaseExpired,
    Park,
    Planned,
    Released,
    RetryDue,
    Ring,
    Stimulus,
    Succeeded,
    Unplannable,
    Verifying,
)  # fmt: skip

START = datetime(2026, 1, 1, tzinfo=UTC)
SOFT = Problem(code=Code.SOURCE_UNREACHABLE, message="no route", retryable=True)
HARD = Problem(code=Code.CHECKSUM_MISMATCH, message="other bytes")
PLAN = Planned(strategy="direct", bids=(), legs=(), needs=(), zones=())
NO_PLAN = Unplannable(bids=(), problem=Problem(code=Code.NO_MOVER, message="nobody"))


def queued(**ask):
    asks = Asks()
    return step(new_transfer(asks.download(asks.s3(), **ask), now=START), PLAN)[0]


def claimed(**ask):
    return step(queued(**ask), Claimed(mover_id="m", boot_id="b1", now=START, lease_s=30))[0]


# --- the tables ---------------------------------------------------------------------------------


def test_every_pair_of_state_and_stimulus_is_decided_once_or_illegal_on_purpose():
    illegal = {(state, Claimed) for state in (*TERMINAL, TransferState.RETRY_WAIT)}
    for state in TransferState:
        for kind in Stimulus.__args__:
            found = [(state, kind) in table for table in (TRANSITIONS, IGNORED, FENCED, illegal)]
            assert sum(found) == 1, (state, kind, found)


def test_an_undecided_pair_tells_the_state_and_the_history():
    done, _ = step(claimed(), Succeeded(epoch=1, result=copied(5), now=START))
    with pytest.raises(IllegalTransition, match="Claimed in state done"):
        step(done, Claimed(mover_id="m", boot_id="b", now=START, lease_s=1))


# --- single rules -------------------------------------------------------------------------------


def test_a_claim_counts_the_attempt_before_any_work():
    one = claimed()
    assert (one.state, one.epoch, one.attempts, one.mover_id) == ("running", 1, 1, "m")
    assert one.lease_until == START + timedelta(seconds=30)


def test_a_release_refunds_the_attempt_and_keeps_the_epoch():
    back, instructions = step(claimed(), Released(epoch=1, now=START))
    assert (back.state, back.epoch, back.attempts, back.mover_id) == ("queued", 1, 0, None)
    assert instructions == (Ring(),)


def test_a_retryable_problem_waits_and_comes_back():
    waiting, _ = step(claimed(), Faltered(epoch=1, problem=SOFT, now=START, delay_s=7))
    assert (waiting.state, waiting.problem) == ("retry_wait", SOFT)
    assert waiting.not_before == START + timedelta(seconds=7)
    again, _ = step(waiting, RetryDue())
    assert (again.state, again.attempts) == ("queued", 1)


def test_a_lasting_problem_fails_at_once_and_is_announced():
    failed, instructions = step(claimed(), Faltered(epoch=1, problem=HARD, now=START, delay_s=7))
    assert failed.state == "failed"
    event = instructions[0].event
    assert isinstance(event, TransferFailed)
    assert (event.state, event.problem) == ("failed", HARD)


def test_the_last_attempt_keeps_its_code_and_quarantines():
    one = claimed(attempts_max=1)
    ended, instructions = step(one, Faltered(epoch=1, problem=SOFT, now=START, delay_s=7))
    assert ended.state == "quarantined"
    assert ended.problem.code == Code.SOURCE_UNREACHABLE
    assert ended.problem.retryable is False
    assert ended.problem.facts["attempts"] == "1"
    assert any(isinstance(one, Park) for one in instructions)


def test_a_silent_mover_on_the_last_attempt_quarantines_with_attempts_exhausted():
    ended, _ = step(claimed(attempts_max=1), LeaseExpired(now=START))
    assert (ended.state, ended.problem.code) == ("quarantined", Code.ATTEMPTS_EXHAUSTED)


def test_an_expired_lease_with_attempts_left_stays_for_the_next_claimer():
    one = claimed()
    assert step(one, LeaseExpired(now=START)) == (one, ())


def test_waiting_work_is_cancelled_at_once_and_held_work_when_its_holder_stops():
    assert step(queued(), CancelAsked(reason="no", now=START))[0].state == "cancelled"
    asked, instructions = step(claimed(), CancelAsked(reason="no", now=START))
    assert (asked.state, asked.cancel_requested, instructions) == ("running", True, ())
    stopped, _ = step(asked, Faltered(epoch=1, problem=SOFT, now=START, delay_s=1))
    assert stopped.state == "cancelled"
    assert step(asked, Released(epoch=1, now=START))[0].state == "cancelled"
    assert step(asked, LeaseExpired(now=START))[0].state == "cancelled"


def test_work_that_ended_before_its_cancellation_was_heard_is_done():
    asked, _ = step(claimed(), CancelAsked(reason="no", now=START))
    done, _ = step(asked, Succeeded(epoch=1, result=copied(5), now=START))
    assert done.state == "done"


def test_only_the_boot_that_held_it_is_evicted():
    one = claimed()
    assert step(one, Evicted(boot_id="other", now=START)) == (one, ())
    out, _ = step(one, Evicted(boot_id="b1", now=START))
    assert (out.state, out.attempts, out.mover_id) == ("queued", 1, None)


@pytest.mark.parametrize(
    "late",
    [
        Verifying(epoch=1),
        Succeeded(epoch=1, result=copied(5), now=START),
    ],
    ids=lambda one: type(one).__name__,
)
def test_an_evicted_holder_is_fenced_though_its_epoch_is_the_last(late):
    out, _ = step(claimed(), Evicted(boot_id="b1", now=START))
    with pytest.raises(Fenced):
        step(out, late)


@pytest.mark.parametrize(
    "late",
    [
        Verifying(epoch=1),
        Succeeded(epoch=1, result=copied(5), now=START),
        Faltered(epoch=1, problem=HARD, now=START, delay_s=1),
        Released(epoch=1, now=START),
    ],
    ids=lambda one: type(one).__name__,
)
def test_a_holder_whose_work_was_claimed_again_is_fenced(late):
    second, _ = step(claimed(), Claimed(mover_id="n", boot_id="b2", now=START, lease_s=30))
    assert second.epoch == 2
    with pytest.raises(Fenced):
        step(second, late)


def test_a_repeat_of_the_end_changes_nothing_and_is_not_announced_again():
    end = Succeeded(epoch=1, result=copied(5), now=START)
    done, first = step(claimed(), end)
    assert [type(one) for one in first] == [Announce, Ring]
    assert step(done, end) == (done, ())


def test_work_that_nobody_can_do_says_so_once_and_keeps_its_place():
    bare = new_transfer(queued().ask, now=START)
    left, instructions = step(bare, NO_PLAN)
    assert (left.state, left.strategy, left.problem.code) == ("queued", "", Code.NO_MOVER)
    assert instructions == ()
    assert step(left, NO_PLAN) == (left, ())
    planned, instructions = step(left, PLAN)
    assert (planned.strategy, planned.problem, instructions) == ("direct", None, (Ring(),))


# --- seeded walks -------------------------------------------------------------------------------


def walk(seed, steps=60):
    """A transfer among movers, sweepers and users who speak at random, also out of turn."""
    rng = random.Random(seed)
    asks = Asks(seed)
    one = new_transfer(asks.download(asks.s3(), attempts_max=rng.randint(1, 4)), now=START)
    trail, announced, refunds, claims, epochs = [], [], 0, 0, set()
    for number in range(steps):
        now = START + timedelta(seconds=number)
        epoch = max(0, one.epoch - rng.choice([0, 0, 0, 1]))
        boot = one.boot_id or "gone"
        stimulus = rng.choice(
            [
                PLAN, NO_PLAN, Verifying(epoch=epoch), RetryDue(), LeaseExpired(now=now),
                Succeeded(epoch=epoch, result=copied(1), now=now),
                Faltered(epoch=epoch, problem=rng.choice([SOFT, HARD]), now=now, delay_s=1),
                Released(epoch=epoch, now=now), Evicted(boot_id=boot, now=now),
                *[Claimed(mover_id="m", boot_id=f"b{number}", now=now, lease_s=1)] * 4,
                *([CancelAsked(reason="x", now=now)] if rng.random() < 0.2 else []),
            ]
        )  # fmt: skip
        if isinstance(stimulus, Claimed) and not may_claim(one):
            continue
        before = one
        try:
            one, instructions = step(before, stimulus)
        except Fenced:
            trail.append(f"{type(stimulus).__name__} fenced")
            continue
        trail.append(f"{before.state} {type(stimulus).__name__} -> {one.state}")
        announced += [item.event for item in instructions if isinstance(item, Announce)]
        refunds += one.attempts < before.attempts
        if isinstance(stimulus, Claimed):
            claims += 1
            assert one.epoch not in epochs, "two claims share an epoch"
            epochs.add(one.epoch)
        assert one.version == before.version + (one is not before)
        assert one.epoch >= before.epoch
        assert 0 <= one.attempts <= one.attempts_max
        assert claims - refunds == one.attempts
        assert (one.state in HELD) == (one.lease_until is not None)
        assert (one.state in TERMINAL) == (one.finished_at is not None)
        assert len(announced) == (one.state in TERMINAL)
        if before.state in TERMINAL:
            assert one is before, "a terminal transfer changed"
    if one.state == "done":
        assert isinstance(announced[0], TransferSucceeded)
    return one, trail


def may_claim(one):
    return (
        one.state in ("queued", *HELD)
        and bool(one.strategy)
        and one.attempts < one.attempts_max
        and not one.cancel_requested
    )


def test_200_seeded_walks_keep_every_promise():
    """One seed alone: ENTREPOT_WALK_SEED=<seed> pytest ... -k seeded_walks."""
    only = os.environ.get("ENTREPOT_WALK_SEED")
    reached = set()
    for seed in [int(only)] if only else range(200):
        try:
            reached.add(walk(seed)[0].state)
        except Exception as err:
            replay = f"ENTREPOT_WALK_SEED={seed} pytest {__file__} -k seeded_walks"
            raise AssertionError(f"{err!r}; replay: {replay}") from err
    assert only or reached >= TERMINAL, f"the walks are too tame: only {reached}"
