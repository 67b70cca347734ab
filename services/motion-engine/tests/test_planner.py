"""Bids, the choice, and the words for why nobody can."""

from datetime import timedelta

import pytest

from entrepot_contracts.errors import Code
from entrepot_contracts.values import WorkClass
from entrepot_plugin.discovery import PluginProblem
from entrepot_plugin.ports import Bid, Declined, Leg
from motion_engine.planner import load_strategies, new_transfer, plan, topology
from motion_engine.reach import reach_of
from motion_engine.stimuli import Planned, Unplannable

DIRECT = load_strategies(["direct"])


class Told:
    """A strategy that answers what it was told."""

    def __init__(self, name, answer, legs=1):
        self.name, self._answer, self._legs = name, answer, legs

    def bid(self, ask, view):
        return self._answer

    def plan(self, ask, view):
        return (Leg(source="url", target="object"),) * self._legs


@pytest.fixture
def known(asks, mover_row, now):
    def make(*announced, rates=None):
        rows = [mover_row(one) for one in announced or (asks.mover(),)]
        return topology(rows, rates or {}, now=now, silent_s=45)

    return make


def test_the_cheapest_bid_wins_and_all_bids_are_kept_with_reasons(asks, known):
    strategies = [
        Told("dear", Bid(cost_s=9, reason="slow")),
        Told("cheap", Bid(cost_s=1, reason="fast")),
        Told("unable", Declined(reason="no cache here")),
    ]
    found = plan(asks.download(asks.s3()), known(), strategies)
    assert isinstance(found, Planned)
    assert found.strategy == "cheap"
    assert [(one.strategy, one.chosen, one.cost_s, one.reason) for one in found.bids] == [
        ("dear", False, 9, "slow"),
        ("cheap", True, 1, "fast"),
        ("unable", False, None, "no cache here"),
    ]


def test_equal_bids_are_settled_by_name(asks, known):
    strategies = [Told("b", Bid(cost_s=1, reason="")), Told("a", Bid(cost_s=1, reason=""))]
    assert plan(asks.download(asks.s3()), known(), strategies).strategy == "a"


def test_a_plan_of_several_legs_is_declined_with_its_reason(asks, known):
    found = plan(
        asks.download(asks.s3()), known(), [Told("staged", Bid(cost_s=1, reason=""), legs=2)]
    )
    assert isinstance(found, Unplannable)
    assert "2 legs" in found.bids[0].reason


def test_direct_bids_by_size_and_measured_rate(asks, known):
    ask = asks.restore(asks.s3(), asks.pool(zone_id=asks.ids.new()), size_bytes=600)
    assumed = plan(ask, known(), DIRECT).bids[0]
    measured = plan(ask, known(rates={"s3->file": 60.0}), DIRECT).bids[0]
    assert measured.cost_s == 10
    assert "measured" in measured.reason
    assert "assumed" in assumed.reason
    assert assumed.cost_s < measured.cost_s


def test_a_plan_names_all_that_its_mover_needs(asks, known):
    here, there = asks.ids.new(), asks.ids.new()
    ask = asks.restore(asks.s3(zone_id=here), asks.pool(zone_id=there, host="h9"))
    mover = asks.mover(labels={"path-host": "h9"}, zone_ids=(here, there))
    found = plan(ask, known(mover), DIRECT)
    assert found.needs == ("label:path-host:h9", "provider:file", "provider:s3")
    assert found.zones == tuple(sorted((here, there)))


def test_the_default_host_of_a_directory_store_is_local(asks, known):
    found = plan(asks.probe(asks.pool(zone_id=asks.ids.new())), known(), DIRECT)
    assert "label:path-host:local" in found.needs


def test_needs_are_offered_by_just_the_movers_that_bid(asks, known, mover_row):
    zone = asks.ids.new()
    ask = asks.restore(asks.s3(), asks.pool(zone_id=zone))
    able, poor = asks.mover(zone_ids=(zone,)), asks.mover(labels={})
    found = plan(ask, known(able), DIRECT)
    assert set(found.needs) <= set(reach_of(mover_row(able)).has)
    assert not set(found.needs) <= set(reach_of(mover_row(poor)).has)
    assert isinstance(plan(ask, known(poor), DIRECT), Unplannable)


@pytest.mark.parametrize(
    ("mover", "reason"),
    [
        ({"providers": ("file",)}, "source: provider s3 is not installed"),
        ({"labels": {"path-host": "elsewhere"}}, "target: lacks label path-host:local"),
        ({"labels": {}}, "target: lacks label path-host:local"),
        ({"zone_ids": ("019b76da-a805-73d7-96b2-1a48120eb366",)}, "target: does not serve zone"),
    ],
)
def test_a_mover_that_cannot_is_told_what_it_lacks(asks, known, mover, reason):
    ask = asks.restore(asks.s3(), asks.pool(zone_id=asks.ids.new()))
    announced = asks.mover(**mover)
    found = plan(ask, known(announced), DIRECT)
    assert isinstance(found, Unplannable)
    assert found.problem.code == Code.NO_MOVER
    assert found.problem.retryable
    assert f"{announced.mover_id}: {reason}" in found.problem.message
    assert "file, s3" in found.problem.hint
    assert found.bids[0].cost_s is None


def test_the_zone_of_the_ask_bounds_who_may_run_it(asks, known):
    here, there = asks.ids.new(), asks.ids.new()
    ask = asks.download(asks.s3(), zone_id=here)
    assert isinstance(plan(ask, known(asks.mover(zone_ids=(there,))), DIRECT), Unplannable)
    assert plan(ask, known(asks.mover(zone_ids=(here,))), DIRECT).zones == (here,)


def test_silent_movers_are_nobody(asks, mover_row, now):
    late = mover_row(asks.mover(), seen_at=now - timedelta(seconds=46))
    known = topology([late], {}, now=now, silent_s=45)
    found = plan(asks.download(asks.s3()), known, DIRECT)
    assert "no mover is alive" in found.problem.message


def test_work_on_one_store_needs_no_bids_but_says_why(asks, known):
    found = plan(asks.probe(asks.s3()), known(), [Told("never", Declined(reason="x"))])
    assert (found.strategy, found.bids[0].chosen) == ("at-store", True)
    assert isinstance(
        plan(asks.probe(asks.s3()), known(asks.mover(providers=())), DIRECT), Unplannable
    )


def test_the_same_ask_and_topology_give_the_same_plan(asks, known):
    ask, view = asks.restore(asks.s3(), asks.pool(zone_id=asks.ids.new())), known()
    assert plan(ask, view, DIRECT) == plan(ask, view, DIRECT)


def test_an_unknown_strategy_refuses_the_start_by_name():
    with pytest.raises(PluginProblem, match="teleport"):
        load_strategies(["teleport"])


def test_sizes_of_new_transfers_are_known_unknown_or_nothing_to_move(asks, now):
    images, pool = asks.s3(), asks.pool(zone_id=asks.ids.new())
    restore = new_transfer(asks.restore(images, pool, size_bytes=77), now=now)
    assert (restore.size_bytes, restore.rate_pair, restore.kind) == (77, "s3->file", "copy")
    assert restore.store_ids == (images.store_id, pool.store_id)
    assert restore.zone_id == pool.zone_id
    download = new_transfer(asks.download(images), now=now)
    assert (download.size_bytes, download.rate_pair) == (None, "url->s3")
    probe = new_transfer(asks.probe(images), now=now)
    assert (probe.size_bytes, probe.rate_pair, probe.kind) == (0, "", "probe")


def test_work_without_a_due_time_is_ordered_by_age_with_patience_by_class(asks, now):
    waits = [
        new_transfer(asks.download(asks.s3(), work_class=one), now=now).order_at - now
        for one in WorkClass
    ]
    assert waits == sorted(waits)
    due = now + timedelta(hours=3)
    assert new_transfer(asks.download(asks.s3(), due_at=due), now=now).order_at == due
