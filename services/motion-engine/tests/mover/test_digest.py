"""The content digest against its definition, written out again here from docs/format."""

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from motion_engine.mover.digest import (
    LEAF_BYTES,
    ZERO_LEAF_DIGEST,
    LeafTable,
    leaf_count,
    leaf_digest,
    leaf_length,
    runs_digest,
    zero_digest,
)
from motion_engine.mover.extents import ExtentMap

LEAF = 4 * 1024 * 1024


def by_definition(data):
    leaves = [
        blake3(data[at : at + LEAF], derive_key_context="entrepot content-digest v1 leaf").digest()
        for at in range(0, len(data), LEAF)
    ]
    text = len(data).to_bytes(8, "little") + LEAF.to_bytes(4, "little") + b"".join(leaves)
    return blake3(text, derive_key_context="entrepot content-digest v1 root").hexdigest()


def ours(data):
    table = LeafTable(ExtentMap.full(len(data)))
    for index in range(leaf_count(len(data))):
        table[index] = leaf_digest(data[index * LEAF_BYTES : (index + 1) * LEAF_BYTES])
    return table.root().root


VECTORS = {
    "empty": (b"", "1e371eac3e8ec62347ede39024a9fbef1156dedef25916eae77fc3d1f13f3216"),
    "one byte": (b"a", "66b1b50952e06e7cc239b32121abf7d5828b57389aa4756b2e11947283fe45a0"),
    "one leaf": (
        bytes(range(256)) * (LEAF // 256),
        "f900f49b1aa35bf3c2cc52debedcd94f9d8e800ea0f8ca184f637156b46c6dde",
    ),
    "one leaf and a byte": (
        bytes(range(256)) * (LEAF // 256) + b"x",
        "9ed0a64204ac6cb1f153653235304ce4fab36570fdcb5510a42fb1d854aa7d49",
    ),
    "zeros": (
        bytes(LEAF * 2 + 512),
        "29037f9eab6a8b5ab7e71c88d4a33fff7cd9f94c807d7b8c4e9c3becda5c9f50",
    ),
}


@pytest.mark.parametrize("name", VECTORS)
def test_vectors_never_change(name):
    data, expected = VECTORS[name]
    assert ours(data) == expected == by_definition(data)


def test_zero_leaves_are_looked_up_and_equal_computed_ones():
    assert leaf_digest(bytes(LEAF)) == ZERO_LEAF_DIGEST
    assert zero_digest(512) == leaf_digest(bytes(512))


def test_holes_hash_as_the_zeros_they_read_as():
    data = bytearray(2 * LEAF + 8192)
    data[LEAF + 4096 : LEAF + 8192] = b"\x07" * 4096
    sparse = ExtentMap(len(data), ((LEAF, 65536),))
    table = LeafTable(sparse)
    table[1] = runs_digest(LEAF, LEAF, [(LEAF, bytes(data[LEAF : LEAF + 65536]))])
    assert table.root().root == by_definition(bytes(data))


def test_the_length_is_part_of_the_digest():
    roots = {ours(bytes(n)) for n in (0, 1, 512, LEAF - 1, LEAF, LEAF + 1, 2 * LEAF)}
    assert len(roots) == 7


@given(st.lists(st.tuples(st.integers(0, 60000), st.binary(min_size=1, max_size=999)), max_size=6))
def test_runs_of_a_leaf_hash_as_the_leaf(pieces):
    length = 65536
    data = bytearray(length)
    runs, end = [], 0
    for offset, piece in sorted(pieces):
        if offset >= end:
            data[offset : offset + len(piece)] = piece
            runs.append((1000 + offset, bytes(data[offset : offset + len(piece)])))
            end = offset + len(piece)
    assert runs_digest(1000, length, runs) == leaf_digest(bytes(data))


def test_a_table_refuses_a_wrong_number_of_digests():
    extents = ExtentMap.full(3 * LEAF)
    with pytest.raises(ValueError):
        LeafTable.of_joined(extents, ZERO_LEAF_DIGEST * 2)
    with pytest.raises(ValueError):
        LeafTable.of_joined(extents, ZERO_LEAF_DIGEST * 3 + b"x")


def test_the_last_leaf_is_short():
    assert [leaf_length(LEAF * 2 + 5, i) for i in range(3)] == [LEAF, LEAF, 5]
