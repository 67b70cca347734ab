"""The part plan: which leaves make up which part. A pure function, so a resume finds the same.

A part is a group of whole leaves; its bytes in the target are those leaves' stored bytes. Parts
are at least 16 MiB (but the last) and at most 9,000.
"""

from collections.abc import Iterator

from blake3 import blake3
from msgspec import Struct

from motion_engine.mover.digest import LEAF_BYTES, leaf_count
from motion_engine.mover.extents import ExtentMap

PART_BYTES_MIN = 16 << 20
PART_BYTES_USUAL_MAX = 64 << 20
PARTS_MAX = 9_000
PARTS_WANTED = 16  # small transfers still get enough parts to run and to resume in steps
GROW_EVERY = 1_000  # parts of a sequential read: the part size doubles that often


class Part(Struct, frozen=True, kw_only=True):
    number: int  # from 1
    first_leaf: int
    end_leaf: int
    offset: int  # in the target
    length: int  # in the target


def part_bytes_for(target_bytes: int) -> int:
    """Part size for bytes known in advance: whole leaves, bounded from both sides."""
    wanted = _whole_leaves(min(target_bytes // PARTS_WANTED, PART_BYTES_USUAL_MAX))
    return max(wanted, part_bytes_least(target_bytes))


def part_bytes_least(target_bytes: int) -> int:
    """The smallest parts that will do, for senders that hold whole parts in memory."""
    return max(_whole_leaves(-(-target_bytes // PARTS_MAX)), PART_BYTES_MIN)


def plan(extents: ExtentMap, *, dense: bool, part_bytes: int) -> tuple[Part, ...]:
    """Parts of `extents.size_bytes` logical bytes.

    `dense`: the target leaves holes out (layout extents); otherwise target offsets are logical.
    """
    size = extents.size_bytes
    parts: list[Part] = []
    first, offset, leaves = 0, 0, leaf_count(size)
    while first < leaves:
        end = _part_end(extents, first, dense=dense, part_bytes=part_bytes)
        stop = min(end * LEAF_BYTES, size)
        target_end = extents.stored_at(stop) if dense else stop
        length = target_end - offset
        if length > 0:
            number = len(parts) + 1
            parts.append(
                Part(number=number, first_leaf=first, end_leaf=end, offset=offset, length=length)
            )
        first, offset = end, target_end
    assert len(parts) <= PARTS_MAX, "part_bytes is too small for this size"
    return tuple(parts)


def _part_end(extents: ExtentMap, first: int, *, dense: bool, part_bytes: int) -> int:
    """End leaf of the part that begins at leaf `first`; a dense part swallows trailing holes."""
    size = extents.size_bytes
    leaves = leaf_count(size)
    if not dense:
        return min(first + part_bytes // LEAF_BYTES, leaves)
    full_at = extents.stored_at(first * LEAF_BYTES) + part_bytes
    if full_at > extents.stored_bytes:
        return leaves
    return extents.logical_at(full_at - 1) // LEAF_BYTES + 1


def sequential(part_bytes: int, *, equal: bool = False) -> Iterator[Part]:
    """Parts of a source read from its beginning whose end is not known: an endless plan.

    The part size doubles every 1,000 parts, so 9,000 parts hold almost 8 TiB. `equal`: one size
    only, for targets that insist on it.
    """
    offset, number = 0, 1
    while number <= PARTS_MAX:
        length = part_bytes if equal else part_bytes << ((number - 1) // GROW_EVERY)
        first = offset // LEAF_BYTES
        end = first + length // LEAF_BYTES
        yield Part(number=number, first_leaf=first, end_leaf=end, offset=offset, length=length)
        offset, number = offset + length, number + 1


def plan_digest(extents: ExtentMap, *, dense: bool, part_bytes: int) -> str:
    """Names a plan, so that a resume can tell whether its parts still mean the same."""
    hasher = blake3(f"{extents.size_bytes} {dense} {part_bytes} ".encode())
    if dense:
        hasher.update(repr(extents.extents).encode())
    return hasher.hexdigest(16)


def _whole_leaves(size_bytes: int) -> int:
    return -(-size_bytes // LEAF_BYTES) * LEAF_BYTES
