"""What a body holds of its source while it is sent."""

import weakref

import pytest

from motion_engine.mover.digest import LEAF_BYTES, LeafTable
from motion_engine.mover.extents import ExtentMap
from motion_engine.mover.parts import plan
from motion_engine.mover.pipeline import LeafBody
from motion_engine.mover.progress import Progress
from motion_engine.mover.sources import Leaf


class Block(bytearray):
    """A buffer whose end can be seen."""


class Watched:
    """Leaves of one run each; notes whether the one before is gone when the next is asked for."""

    def __init__(self, leaves):
        self.extents = ExtentMap.full(leaves * LEAF_BYTES)
        self.gone = []

    async def leaves(self, first, end, *, skip_zeros):
        del skip_zeros
        for index in range(first, end):
            block = Block(LEAF_BYTES)
            block[:] = b"x" * LEAF_BYTES
            watch = weakref.ref(block)
            runs = ((index * LEAF_BYTES, memoryview(block)),)
            leaf = Leaf(index=index, digest=bytes(32), runs=runs)
            del block, runs
            yield leaf
            del leaf
            self.gone.append(watch() is None)


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
async def test_a_leaf_that_was_sent_is_let_go_before_the_next_is_asked_for(kind):
    source = Watched(4)
    part = plan(source.extents, dense=False, part_bytes=4 * LEAF_BYTES)[0]
    body = LeafBody(source, part, dense=False, table=LeafTable(source.extents), progress=Progress())
    sent = 0
    if kind == "bytes":
        async for piece in body:
            sent += len(piece)
            del piece
    else:
        async for _, piece in body.pieces():
            sent += len(piece)
            del piece
    assert sent == 4 * LEAF_BYTES
    assert source.gone == [True] * 4
