"""The content digest: BLAKE3 over fixed 4 MiB leaves and a root over the leaf digests.

Written down in docs/format/content-digest.md; the constants here are a file format and never
change. Everything is synchronous and meant for worker threads: the blake3 wheel drops the GIL.
"""

from collections.abc import Iterable

from blake3 import blake3

from entrepot_contracts.values import ContentDigest
from motion_engine.mover.extents import ExtentMap

LEAF_BYTES = 4 << 20
DIGEST_BYTES = 32
LEAF_CONTEXT = "entrepot content-digest v1 leaf"
ROOT_CONTEXT = "entrepot content-digest v1 root"

ZEROS = bytes(LEAF_BYTES)  # one shared page of nothing: holes are hashed and compared from it
_ZERO_VIEW = memoryview(ZEROS)

Run = tuple[int, bytes | memoryview]  # (logical offset, bytes)


def leaf_count(size_bytes: int) -> int:
    return -(-size_bytes // LEAF_BYTES)


def leaf_length(size_bytes: int, index: int) -> int:
    """Length of one leaf; the last one is short, never padded."""
    return min(LEAF_BYTES, size_bytes - index * LEAF_BYTES)


def leaf_digest(data: bytes | memoryview) -> bytes:
    return blake3(data, derive_key_context=LEAF_CONTEXT).digest()


ZERO_LEAF_DIGEST = leaf_digest(ZEROS)


def runs_digest(start: int, length: int, runs: Iterable[Run]) -> bytes:
    """Digest of the leaf at logical offset `start`: its data runs, ascending, and zeros between."""
    hasher = None
    position = start
    for offset, data in runs:
        if hasher is None:
            hasher = blake3(derive_key_context=LEAF_CONTEXT)
        if offset > position:
            hasher.update(_ZERO_VIEW[: offset - position])
        hasher.update(data)
        position = offset + len(data)
    end = start + length
    if hasher is None:
        return zero_digest(length)
    if position < end:
        hasher.update(_ZERO_VIEW[: end - position])
    return hasher.digest()


def zero_digest(length: int) -> bytes:
    """Digest of a leaf without data: a constant, except for the one short leaf at the end."""
    return ZERO_LEAF_DIGEST if length == LEAF_BYTES else leaf_digest(_ZERO_VIEW[:length])


class LeafTable:
    """Digests of the leaves that hold data; every other leaf is zeros, so a constant."""

    def __init__(self, extents: ExtentMap) -> None:
        self.size_bytes = extents.size_bytes
        self._extents = extents
        self._digests: dict[int, bytes] = {}

    @classmethod
    def of_joined(cls, extents: ExtentMap, joined: bytes) -> "LeafTable":
        """From `joined()` of another table. Raises ValueError when the count is wrong."""
        table = cls(extents)
        table.fill(0, leaf_count(extents.size_bytes), joined)
        return table

    def data_leaves(self, first: int, end: int) -> list[int]:
        return self._extents.data_leaves(LEAF_BYTES, first, end)

    def __setitem__(self, index: int, digest: bytes) -> None:
        self._digests[index] = digest

    def __getitem__(self, index: int) -> bytes:
        found = self._digests.get(index)
        return found or zero_digest(leaf_length(self.size_bytes, index))

    def joined(self, first: int = 0, end: int | None = None) -> bytes:
        """Digests of the data leaves in [first, end), one after the other."""
        last = leaf_count(self.size_bytes) if end is None else end
        return b"".join(self._digests[index] for index in self.data_leaves(first, last))

    def fill(self, first: int, end: int, joined: bytes) -> None:
        """Take what `joined` gave. Raises ValueError when the count is wrong."""
        indices = self.data_leaves(first, end)
        digests = split_leaves(joined)
        self._digests.update(zip(indices, digests, strict=True))

    def root(self) -> ContentDigest:
        hasher = root_hasher(self.size_bytes)
        position, last = 0, leaf_count(self.size_bytes)
        for index in sorted(self._digests):
            if index > position:
                hasher.update(ZERO_LEAF_DIGEST * (index - position))
            hasher.update(self._digests[index])
            position = index + 1
        if position < last:
            hasher.update(ZERO_LEAF_DIGEST * (last - 1 - position))
            hasher.update(self[last - 1])
        return ContentDigest(root=hasher.hexdigest(), size_bytes=self.size_bytes)


def root_hasher(size_bytes: int) -> blake3:
    hasher = blake3(derive_key_context=ROOT_CONTEXT)
    hasher.update(size_bytes.to_bytes(8, "little") + LEAF_BYTES.to_bytes(4, "little"))
    return hasher


def split_leaves(joined: bytes) -> list[bytes]:
    if len(joined) % DIGEST_BYTES:
        msg = "leaf digests come in 32-byte pieces"
        raise ValueError(msg)
    return [joined[i : i + DIGEST_BYTES] for i in range(0, len(joined), DIGEST_BYTES)]
