"""Window, strategies and guardrails: pure, so tested as tables."""

from datetime import UTC, datetime

import pytest

from autoscaler.guardrails import clamp
from autoscaler.strategies.backlog import STRATEGY as BACKLOG
from autoscaler.strategies.fixed import STRATEGY as FIXED
from autoscaler.window import LoadWindow, snapshot_of
from entrepot_contracts.fleet import ClassLoad, DueBucket, LoadSample, Mode
from entrepot_contracts.values import WorkClass

ZONE = "01890a5d-ac96-774b-bcce-b302099a8057"


def sample(*, epoch=1, seq=1, complete=True, queued_bytes=0, queued_n=0, unknown_n=0, due=()):
    load = ClassLoad(
        work_class=WorkClass.BATCH,
        queued_n=queued_n,
        queued_bytes=queued_bytes,
        running_n=0,
        remaining_bytes=0,
        oldest_wait_s=0,
        unknown_n=unknown_n,
        due=due,
    )
    return LoadSample(
        zone_id=ZONE,
        source="test",
        epoch=epoch,
        seq=seq,
        observed_at=datetime(2026, 11, 20, tzinfo=UTC),
        interval_s=5,
        complete=complete,
        by_class=(load,),
        workers=(),
    )


def proposed(strategy, heard, vms_min=0):
    return strategy.decide(snapshot_of(heard, vms_min=vms_min, vms_max=9), b"").desired


def test_without_a_sample_there_is_a_reason_and_no_number():
    assert LoadWindow().trusted(ZONE, now_s=0) == "no load sample yet"


def test_a_sample_is_trusted_for_three_intervals():
    window = LoadWindow()
    window.hear(sample(), at_s=100)
    assert isinstance(window.trusted(ZONE, now_s=115), LoadSample)
    assert "old" in window.trusted(ZONE, now_s=115.1)


def test_an_incomplete_sample_is_not_acted_on():
    window = LoadWindow()
    window.hear(sample(complete=False), at_s=0)
    assert "incomplete" in window.trusted(ZONE, now_s=1)


def test_a_sample_of_an_older_epoch_or_a_repeat_does_not_refresh_the_window():
    window = LoadWindow()
    window.hear(sample(epoch=2, seq=5), at_s=0)
    window.hear(sample(epoch=1, seq=99), at_s=50)
    window.hear(sample(epoch=2, seq=5), at_s=50)
    assert "old" in window.trusted(ZONE, now_s=51)


@pytest.mark.parametrize(
    ("heard", "vms"),
    [
        (sample(), 0),
        (sample(queued_n=1, unknown_n=1), 1),  # unknown size is not zero work
        (sample(queued_n=1, queued_bytes=10**9), 1),
        (sample(queued_n=1, queued_bytes=2 * 675 * 10**9), 2),  # 1,800 s x 0.75 x 500 MB/s = one VM
        (
            sample(
                queued_n=1, queued_bytes=15 * 10**9, due=(DueBucket(due_in_s=20, bytes=15 * 10**9),)
            ),
            2,
        ),
    ],
)
def test_backlog_asks_for_enough_vms_to_meet_the_due_times(heard, vms):
    assert proposed(BACKLOG, heard) == vms


def test_fixed_is_the_minimum_whatever_the_load():
    assert proposed(FIXED, sample(queued_n=9, queued_bytes=10**15), vms_min=3) == 3


@pytest.mark.parametrize(
    ("ask", "current", "mode", "desired", "clamps"),
    [
        (3, 0, Mode.SHADOW, 3, ()),
        (9, 1, Mode.SHADOW, 5, ("velocity",)),
        (50, 10, Mode.SHADOW, 12, ("velocity", "bounds")),
        (0, 4, Mode.SHADOW, 1, ("bounds",)),
        (0, 4, Mode.PAUSED_IN, 4, ("paused-in",)),
        (6, 4, Mode.PAUSED_OUT, 4, ("paused-out",)),
        (6, 4, Mode.FROZEN, 4, ("frozen",)),
    ],
)
def test_guardrails_clamp_in_order_and_name_themselves(ask, current, mode, desired, clamps):
    verdict = clamp(ask, current=current, vms_min=1, vms_max=12, mode=mode)
    assert (verdict.desired, verdict.clamps) == (desired, clamps)
