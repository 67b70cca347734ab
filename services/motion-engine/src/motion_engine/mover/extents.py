"""Where data lies in logical bytes, and where those extents lie in a stored object.

A map is ascending, disjoint (offset, length) pairs. In layout `extents` a stored object holds
exactly these, one after the other; in layout `plain` stored offset and logical offset are one.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence

ALIGN_BYTES = 64 << 10

Extent = tuple[int, int]


class BadExtents(ValueError):
    """Extents that overlap, go backwards, or reach outside the logical bytes."""


class ExtentMap:
    """Immutable map of the data in `size_bytes` logical bytes."""

    def __init__(self, size_bytes: int, extents: Sequence[Extent]) -> None:
        self.size_bytes = size_bytes
        self.extents = tuple((int(offset), int(length)) for offset, length in extents)
        self._starts = [offset for offset, _ in self.extents]
        self._stored: list[int] = []  # where extent i begins in the stored object
        stored = end = 0
        for offset, length in self.extents:
            if length <= 0 or offset < end or offset + length > size_bytes:
                msg = f"extent at {offset} of {length} bytes does not fit"
                raise BadExtents(msg)
            self._stored.append(stored)
            stored += length
            end = offset + length
        self.stored_bytes = stored

    @classmethod
    def full(cls, size_bytes: int) -> "ExtentMap":
        return cls(size_bytes, ((0, size_bytes),) if size_bytes else ())

    @property
    def is_full(self) -> bool:
        return self.stored_bytes == self.size_bytes

    def runs(self, start: int, end: int) -> Iterator[Extent]:
        """Data within [start, end) as (logical offset, length), ascending."""
        index = max(bisect_right(self._starts, start) - 1, 0)
        while index < len(self.extents):
            offset, length = self.extents[index]
            if offset >= end:
                return
            first, last = max(offset, start), min(offset + length, end)
            if first < last:
                yield first, last - first
            index += 1

    def data_bytes(self, start: int, end: int) -> int:
        return self.stored_at(end) - self.stored_at(start)

    def logical_at(self, stored: int) -> int:
        """Logical offset of one stored byte."""
        index = bisect_right(self._stored, stored) - 1
        return self.extents[index][0] + stored - self._stored[index]

    def data_leaves(self, leaf_bytes: int, first: int, end: int) -> list[int]:
        """Indices in [first, end) of the leaves that hold any data, ascending."""
        found: list[int] = []
        past = first
        for offset, length in self.runs(first * leaf_bytes, end * leaf_bytes):
            begin = max(offset // leaf_bytes, past)
            past = max(past, (offset + length - 1) // leaf_bytes + 1)
            found.extend(range(begin, past))
        return found

    def stored_at(self, logical: int) -> int:
        """Stored offset of the first data at or after a logical offset."""
        index = bisect_right(self._starts, logical) - 1
        if index < 0:
            return 0
        offset, length = self.extents[index]
        return self._stored[index] + min(logical - offset, length)


def widen(extents: Sequence[Extent], size_bytes: int, align: int = ALIGN_BYTES) -> ExtentMap:
    """Extents widened to `align` and merged, cut at the end of the logical bytes."""
    merged: list[list[int]] = []
    for offset, length in extents:
        first = offset // align * align
        last = min(-(-(offset + length) // align) * align, size_bytes)
        if first >= last:
            continue
        if merged and first <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], last)
        else:
            merged.append([first, last])
    return ExtentMap(size_bytes, [(first, last - first) for first, last in merged])
