"""Part plans and extent maps: properties for any layout of data."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motion_engine.mover.digest import LEAF_BYTES, leaf_count
from motion_engine.mover.extents import ALIGN_BYTES, BadExtents, ExtentMap, widen
from motion_engine.mover.parts import (
    PART_BYTES_MIN,
    PARTS_MAX,
    part_bytes_for,
    part_bytes_least,
    plan,
    plan_digest,
    sequential,
)

MIB = 1 << 20
SIZES = st.integers(0, 3 << 30)


@st.composite
def maps(draw):
    size = draw(SIZES)
    cuts = sorted(draw(st.sets(st.integers(0, size), max_size=12)))
    pairs = zip(cuts[::2], cuts[1::2], strict=False)
    return ExtentMap(size, [(a, b - a) for a, b in pairs if b > a])


@given(maps(), st.booleans(), st.sampled_from([16 * MIB, 20 * MIB, 64 * MIB]))
def test_a_plan_covers_the_target_once_and_in_order(extents, dense, part_bytes):
    parts = plan(extents, dense=dense, part_bytes=part_bytes)
    position, leaf = 0, 0
    for number, part in enumerate(parts, 1):
        assert part.number == number
        assert part.offset == position
        assert part.length > 0
        assert part.first_leaf == leaf
        assert part.end_leaf > part.first_leaf
        position, leaf = position + part.length, part.end_leaf
        stop = min(part.end_leaf * LEAF_BYTES, extents.size_bytes)
        stored = extents.data_bytes(part.first_leaf * LEAF_BYTES, stop)
        logical = stop - part.first_leaf * LEAF_BYTES
        assert part.length == (stored if dense else logical)
    assert position == (extents.stored_bytes if dense else extents.size_bytes)
    if parts:
        assert leaf == leaf_count(extents.size_bytes)
    assert all(part.length >= min(part_bytes, PART_BYTES_MIN) for part in parts[:-1])
    assert all(part.length < part_bytes + LEAF_BYTES for part in parts)


@given(maps(), st.booleans())
def test_the_same_input_gives_the_same_plan_and_name(extents, dense):
    again = ExtentMap(extents.size_bytes, list(extents.extents))
    assert plan(extents, dense=dense, part_bytes=16 * MIB) == plan(
        again, dense=dense, part_bytes=16 * MIB
    )
    name = plan_digest(extents, dense=dense, part_bytes=16 * MIB)
    assert name == plan_digest(again, dense=dense, part_bytes=16 * MIB)
    assert name != plan_digest(extents, dense=dense, part_bytes=20 * MIB)


@given(st.integers(0, 1 << 46))
def test_part_sizes_keep_every_limit(size):
    for part_bytes in (part_bytes_for(size), part_bytes_least(size)):
        assert part_bytes >= PART_BYTES_MIN
        assert part_bytes % LEAF_BYTES == 0
        assert -(-size // part_bytes) <= PARTS_MAX


@pytest.mark.parametrize(
    ("size_mib", "streamed_mib", "held_mib"),
    [(1, 16, 16), (256, 16, 16), (512, 32, 16), (1 << 14, 64, 16), (1 << 20, 120, 120)],
)
def test_parts_are_large_when_streamed_and_small_when_held(size_mib, streamed_mib, held_mib):
    """Every part is a request, and a request costs what a mebibyte does."""
    assert part_bytes_for(size_mib * MIB) == streamed_mib * MIB
    assert part_bytes_least(size_mib * MIB) == held_mib * MIB


@given(st.integers(1, 4000), st.booleans())
def test_sequential_parts_follow_on_each_other(count, equal):
    parts = list(itertools.islice(sequential(16 * MIB, equal=equal), count))
    for before, after in itertools.pairwise(parts):
        assert after.offset == before.offset + before.length
        assert after.first_leaf == before.end_leaf
        assert after.length in {before.length, 2 * before.length}
    assert not equal or {part.length for part in parts} == {16 * MIB}


def test_a_sequential_plan_ends_before_a_store_would_refuse_its_numbers():
    parts = list(sequential(16 * MIB))
    assert parts[-1].number == PARTS_MAX
    assert parts[-1].offset + parts[-1].length > 7 << 40
    assert parts[-1].length < 5 << 30


@given(maps(), st.data())
def test_stored_and_logical_offsets_are_inverse_on_data(extents, data):
    if not extents.stored_bytes:
        return
    stored = data.draw(st.integers(0, extents.stored_bytes - 1))
    logical = extents.logical_at(stored)
    assert extents.stored_at(logical) == stored
    assert list(extents.runs(logical, logical + 1)) == [(logical, 1)]


@given(maps(), st.data())
def test_runs_are_the_data_of_a_window_and_nothing_else(extents, data):
    size = extents.size_bytes
    start = data.draw(st.integers(0, size))
    end = data.draw(st.integers(start, size))
    runs = list(extents.runs(start, end))
    assert sum(length for _, length in runs) == extents.data_bytes(start, end)
    for offset, length in runs:
        assert start <= offset < offset + length <= end
        assert any(o <= offset and offset + length <= o + n for o, n in extents.extents)


@given(maps())
def test_data_leaves_are_the_leaves_with_runs(extents):
    count = leaf_count(extents.size_bytes)
    found = extents.data_leaves(LEAF_BYTES, 0, count)
    expected = [
        index
        for index in range(count)
        if any(extents.runs(index * LEAF_BYTES, (index + 1) * LEAF_BYTES))
    ]
    assert found == expected


@given(maps())
def test_widened_extents_are_aligned_and_lose_no_data(extents):
    wide = widen(extents.extents, extents.size_bytes)
    for offset, length in wide.extents:
        assert offset % ALIGN_BYTES == 0
        end = offset + length
        assert end % ALIGN_BYTES == 0 or end == extents.size_bytes
    for offset, length in extents.extents:
        assert wide.data_bytes(offset, offset + length) == length
    ends = [offset + length for offset, length in wide.extents]
    starts = [offset for offset, _ in wide.extents]
    assert all(end < start for end, start in zip(ends, starts[1:], strict=False)), "not merged"


@pytest.mark.parametrize(
    "extents", [[(0, 0)], [(5, 10), (10, 5)], [(90, 20)], [(-1, 5)], [(9, -1)]]
)
def test_extents_that_make_no_sense_are_refused(extents):
    with pytest.raises(BadExtents):
        ExtentMap(100, extents)
