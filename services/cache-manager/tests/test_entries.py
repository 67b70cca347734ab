"""The entry table: every pair is named, every walk stays inside it."""

import itertools
import random

import pytest

from cache_manager.entries import (
    ENDED,
    IGNORED,
    TRANSITIONS,
    IllegalTransition,
    Stimulus,
    step,
)
from entrepot_contracts.cache import EntryState


def test_no_pair_is_both_a_transition_and_ignored():
    assert not IGNORED & TRANSITIONS.keys()


def test_an_evicting_entry_is_never_handed_out_again():
    reachable = {EntryState.EVICTING}
    for state, stimulus in itertools.product(list(reachable), Stimulus):
        reachable.add(TRANSITIONS.get((state, stimulus), state))
    assert EntryState.READY not in reachable


def test_only_a_verified_fill_makes_an_entry_ready():
    into_ready = {pair for pair, state in TRANSITIONS.items() if state is EntryState.READY}
    assert into_ready == {(EntryState.FILLING, Stimulus.FILL_VERIFIED)}


@pytest.mark.parametrize("seed", range(200))
def test_every_walk_that_ends_stays_ended(seed):
    rng, state, ended = random.Random(seed), EntryState.RESERVED, False
    for _ in range(200):
        try:
            state = step(state, rng.choice(list(Stimulus)))
        except IllegalTransition:
            continue
        assert not ended or state in ENDED, f"seed {seed}"
        ended = state in ENDED


def test_an_unnamed_pair_raises_with_its_names():
    with pytest.raises(IllegalTransition, match="gone.*fill_verified"):
        step(EntryState.GONE, Stimulus.FILL_VERIFIED)
