"""Order of claims: classes, fair shares by bytes, due times, caps."""

from collections import Counter
from datetime import UTC, datetime, timedelta

from entrepot_contracts.values import WorkClass
from motion_engine.dispatch import Candidate, Caps, Held, choose, full

START = datetime(2026, 1, 1, tzinfo=UTC)
WIDE = Caps(account=1000, store=1000, zone=1000)


def one(
    name, account="a", *, work_class=WorkClass.BATCH, size=1 << 30, due_s=0, stores=(), zone=None
):
    return Candidate(
        transfer_id=name,
        account_id=account,
        work_class=work_class,
        order_at=START + timedelta(seconds=due_s),
        size_bytes=size,
        zone_id=zone,
        store_ids=stores,
    )


def pick(candidates, *, held=(), shares=None, free=100, slots=100, caps=WIDE):
    return choose(
        candidates, held, shares or {}, mover_id="m", slots=slots, free_slots=free, caps=caps
    )


def held(account="a", store="s", mover="other", zone=None):
    return Held(account_id=account, zone_id=zone, store_ids=(store,), mover_id=mover)


def test_interactive_goes_before_template_before_batch_whatever_is_due():
    candidates = [
        one("b", due_s=0),
        one("t", work_class=WorkClass.TEMPLATE, due_s=50),
        one("i", work_class=WorkClass.INTERACTIVE, due_s=99),
    ]
    assert pick(candidates).transfer_ids == ("i", "t", "b")


def test_within_an_account_the_earlier_due_goes_first():
    assert pick([one("late", due_s=9), one("soon", due_s=1)]).transfer_ids == ("soon", "late")


def test_an_account_with_a_thousand_transfers_does_not_delay_another_with_one():
    crowd = [one(f"a{n:04}", "a", due_s=n) for n in range(1000)]
    assert "z" in pick([*crowd, one("z", "z", due_s=5000)], free=2).transfer_ids


def test_shares_are_fair_by_bytes_not_by_number():
    big = [one(f"big{n}", "big", size=4 << 30, due_s=n) for n in range(50)]
    small = [one(f"small{n}", "small", size=1 << 30, due_s=n) for n in range(50)]
    served = Counter(name.rstrip("0123456789") for name in pick(big + small, free=25).transfer_ids)
    assert served == {"small": 20, "big": 5}


def test_shares_are_remembered_from_claim_to_claim():
    shares: dict[str, int] = {}
    left = [one(f"a{n}", "a", size=3 << 30) for n in range(20)]
    left += [one(f"b{n}", "b", size=1 << 30) for n in range(20)]
    served = Counter()
    for _ in range(16):
        choice = pick(left, shares=shares, free=1)
        shares.update(choice.shares)
        served[choice.transfer_ids[0][0]] += 1
        left = [candidate for candidate in left if candidate.transfer_id not in choice.transfer_ids]
    assert served == {"a": 4, "b": 12}


def test_an_account_that_was_idle_saved_up_nothing():
    shares: dict[str, int] = {}
    for n in range(10):
        shares.update(pick([one(f"a{n}", "a")], shares=shares, free=1).shares)
    left = [one(f"a{n}", "a", due_s=n) for n in range(10)]
    left += [one(f"new{n}", "new", due_s=n) for n in range(10)]
    names = Counter(
        name.rstrip("0123456789") for name in pick(left, shares=shares, free=6).transfer_ids
    )
    assert names["a"] >= 2, names


def test_unknown_sizes_are_not_free():
    unknown = [one(f"u{n}", "u", size=None) for n in range(9)]
    known = [one(f"k{n}", "k", size=256 << 20) for n in range(9)]
    served = Counter(name[0] for name in pick(unknown + known, free=8).transfer_ids)
    assert served == {"u": 4, "k": 4}


def test_caps_per_account_store_zone_and_mover_hold():
    crowd = [one(f"a{n}", f"acc{n % 3}", stores=(f"s{n % 2}",), zone="z") for n in range(30)]
    assert len(pick(crowd, caps=Caps(account=2, store=99, zone=99)).transfer_ids) == 6
    assert len(pick(crowd, caps=Caps(account=99, store=2, zone=99)).transfer_ids) == 4
    assert len(pick(crowd, caps=Caps(account=99, store=99, zone=5)).transfer_ids) == 5
    assert len(pick(crowd, slots=3).transfer_ids) == 3
    assert len(pick(crowd, slots=3, held=[held(mover="m")]).transfer_ids) == 2


def test_what_runs_already_counts_against_the_caps():
    caps = Caps(account=2, store=2, zone=99)
    running = [held("a", "s1"), held("a", "s1")]
    assert pick([one("x", "a")], held=running, caps=caps).transfer_ids == ()
    assert pick([one("x", "b", stores=("s1",))], held=running, caps=caps).transfer_ids == ()
    assert pick([one("x", "b", stores=("s2",))], held=running, caps=caps).transfer_ids == ("x",)
    assert full(running, caps).accounts == {"a"}
    assert full(running, caps).stores == {"s1"}


def test_work_behind_a_full_store_does_not_block_the_account():
    caps = Caps(account=99, store=1, zone=99)
    candidates = [one("full", stores=("s",), due_s=0), one("free", stores=("t",), due_s=9)]
    assert pick(candidates, held=[held("z", "s")], caps=caps).transfer_ids == ("free",)


def test_the_same_question_gets_the_same_answer():
    crowd = [one(f"{n}", f"acc{n % 7}", size=n << 20, due_s=n % 3) for n in range(50)]
    assert pick(crowd, free=20) == pick(list(reversed(crowd)), free=20)
