"""The ports: small protocols; powers are separate protocols; facts are traits (traits.py).

Every method is safe to repeat. All errors are `entrepot_plugin.errors`. All buffers handed to or
by a port are immutable once handed over. Offsets and lengths are bytes; ranges are half open.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol, runtime_checkable

from msgspec import Struct

from entrepot_contracts.values import ImageFormat, ProbeReport

Buffer = bytes | memoryview
UNKNOWN_OFFSET = -1  # in a listed part: the store knows its number and length only


class ObjectStat(Struct, frozen=True, kw_only=True):
    """`version` changes whenever the bytes do (ETag, inode+mtime); compared, never parsed."""

    key: str
    size_bytes: int
    version: str
    modified_at: datetime | None = None


class PartReceipt(Struct, frozen=True, kw_only=True):
    """What the store acknowledged. `tag` is the store's name for the part (ETag) or empty."""

    number: int  # from 1
    offset: int  # in the object
    length: int
    tag: str


class PartBody(Protocol):
    """The bytes of one part. May be walked more than once: a retry starts from the beginning.

    `len()` is exact. Chunks are immutable and at most 1 MiB, so a transport may keep one while the
    next is produced. Never hold more than a few.
    """

    def __len__(self) -> int: ...
    def __aiter__(self) -> AsyncIterator[Buffer]: ...
    def pieces(self) -> AsyncIterator[tuple[int, Buffer]]:
        """(offset in the target, chunk); for targets that can leave holes. Skips zero runs."""
        ...


class PartWriter(Protocol):
    """An unfinished object or volume; invisible to readers until `commit`.

    `resume` is the token to persist before the first part: `begin(..., resume=token)` in another
    process continues the same upload. Leaving it open costs space, not correctness.
    """

    resume: str

    async def write(self, number: int, offset: int, body: PartBody) -> PartReceipt:
        """Send one part. Parts may come in any order, several at once, and again."""
        ...

    async def parts(self) -> Sequence[PartReceipt]:
        """Parts the target holds now, all pages, ascending. Targets without the trait `lists_parts`
        return (): their receipts are durable, so the caller's own records decide.
        """
        ...

    async def commit(self, parts: Sequence[PartReceipt], size_bytes: int) -> ObjectStat:
        """Make exactly these parts visible under the key, at once, durable when it returns.

        Repeating a commit that took effect answers the same. An unclear answer is resolved by
        asking the store; CommitUnclear only if that fails too.
        """
        ...

    async def abort(self) -> None:
        """Forget the upload. Gone already = success."""
        ...

    async def close(self) -> None:
        """Release handles; the upload stays resumable."""
        ...


class ObjectStore(Protocol):
    """Image and cache stores. Keys are `/`-separated ASCII made by us, never by users."""

    async def stat(self, key: str) -> ObjectStat:
        """Raises ObjectMissing."""
        ...

    def read(self, key: str, start: int, end: int) -> AsyncIterator[Buffer]:
        """Bytes [start, end) in order, at most 1 MiB a chunk, exactly end-start of them or an
        error: a short body is Unreachable. Raises ObjectMissing.
        """
        ...

    async def begin(self, key: str, size_bytes: int | None, resume: str | None) -> PartWriter:
        """Start or resume an upload. Raises ResumeLost when `resume` is unknown here. After its
        commit took effect it may be unknown too (`stat(key)` tells) or the commit be repeated.
        The token of a resumed writer may be a new one: persist it before the first part.
        """
        ...

    async def put(self, key: str, data: bytes) -> ObjectStat:
        """A small object (<= 64 MiB) in one atomic step; the same key and data may be put twice.
        Readers see the whole old or the whole new bytes.
        """
        ...

    def list(self, prefix: str) -> AsyncIterator[ObjectStat]:
        """Finished objects under a prefix, by key, all pages."""
        ...

    async def delete(self, key: str) -> None:
        """Gone already = success. Also forgets unfinished uploads of that key."""
        ...

    async def probe(self) -> ProbeReport:
        """Write, read back, range-read, list and delete a canary; name each failing step and its
        remedy. Never raises for a broken store: that is what the report says.
        """
        ...


@runtime_checkable
class SharesLinks(Protocol):
    async def link(self, key: str, *, expires_s: int, file_name: str) -> str:
        """An URL that anyone may GET until it expires, offering `file_name` for saving."""
        ...


@runtime_checkable
class CopiesInside(Protocol):
    async def copy(self, source: str, target: str) -> ObjectStat:
        """Server-side copy to a fresh key; atomic to readers."""
        ...


@runtime_checkable
class ForgetsUploads(Protocol):
    async def forget_uploads(self, prefix: str) -> int:
        """Abort every unfinished upload whose key begins with `prefix`, whoever began it; how many
        there were. No listing shows them, so this is the only way to leave nothing under a prefix.
        """
        ...


@runtime_checkable
class ReportsCapacity(Protocol):
    async def capacity(self) -> tuple[int, int]:
        """(total bytes, free bytes) as a writer would meet them."""
        ...


class VolumeStat(Struct, frozen=True, kw_only=True):
    path: str  # where the hypervisor finds it
    format: ImageFormat
    size_bytes: int  # virtual size
    file_bytes: int  # logical bytes of the container file (= size_bytes for raw)


class VolumeRef(Struct, frozen=True, kw_only=True):
    volume_id: str
    format: ImageFormat


class VolumeReader(Protocol):
    """A pinned generation: its bytes do not change while it is open.

    The logical bytes of a volume are those of its container: a raw volume's sectors, a qcow2
    volume's file bytes.
    """

    size_bytes: int

    async def extents(self, align: int) -> Sequence[tuple[int, int]]:
        """Ascending (offset, length) of what may hold data; widened to `align`, merged, cut at the
        end. Everything else reads as zeros.
        """
        ...

    def pread(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes; blocking: call it in a worker thread."""
        ...


class VolumeStore(Protocol):
    """Primary stores. Ids are ours; a volume or snapshot that is there already is a success."""

    async def create(self, volume: VolumeRef, *, size_bytes: int) -> VolumeStat:
        """A blank volume of that virtual size."""
        ...

    async def begin(
        self, volume: VolumeRef, *, size_bytes: int, token: str, resume: str | None
    ) -> PartWriter:
        """Write a volume's container bytes; `size_bytes` is their length, holes included.
        `token` (transfer and epoch) keeps rivals apart; commit publishes only if no other did.
        """
        ...

    async def stat(self, volume: VolumeRef) -> VolumeStat:
        """Raises ObjectMissing."""
        ...

    async def delete(self, volume: VolumeRef) -> None:
        """The volume, its unfinished writes, not its snapshots. Gone already = success."""
        ...

    async def snapshot(self, volume: VolumeRef, snapshot_id: str) -> VolumeStat:
        """Pin the present generation under `snapshot_id`; later writes do not reach it."""
        ...

    async def drop_snapshot(self, volume: VolumeRef, snapshot_id: str) -> None:
        """Gone already = success."""
        ...

    def open_read(
        self, volume: VolumeRef, snapshot_id: str | None
    ) -> AbstractAsyncContextManager[VolumeReader]:
        """Open a pinned generation, or with None a volume nobody writes to."""
        ...

    async def probe(self) -> ProbeReport: ...


@runtime_checkable
class ClonesVolumes(Protocol):
    async def clone(
        self, source: VolumeRef, snapshot_id: str | None, target: VolumeRef
    ) -> VolumeStat:
        """A writable copy inside the store, sharing blocks where it can."""
        ...


# --- motion strategies ------------------------------------------------------------------------


class EndFact(Struct, frozen=True, kw_only=True):
    """One end of a movement as a strategy sees it: no secrets, no keys."""

    kind: str  # url, object, volume
    store_id: str | None = None
    provider: str | None = None
    zone_id: str | None = None  # None: reachable from every zone
    reach_label: str | None = None  # label a mover needs, None: any mover


class MotionAsk(Struct, frozen=True, kw_only=True):
    transfer_id: str
    source: EndFact
    target: EndFact
    size_bytes: int | None


class MoverFact(Struct, frozen=True, kw_only=True):
    mover_id: str
    zone_ids: tuple[str, ...]  # empty: every zone
    labels: dict[str, str]
    providers: tuple[str, ...]
    free_slots: int


class TopologyView(Struct, frozen=True, kw_only=True):
    """A consistent snapshot of what is known when bids are taken."""

    movers: tuple[MoverFact, ...]
    rate_bps: dict[str, float]  # measured, by "<source provider>-><target provider>"
    rate_default_bps: float = 100e6


class Bid(Struct, frozen=True, kw_only=True):
    """`cost_s`: expected seconds; the lowest bid wins. `reason` is shown to operators."""

    cost_s: float
    reason: str


class Leg(Struct, frozen=True, kw_only=True):
    """One hop. `labels`: what the mover that runs it must have."""

    source: str  # url, object, volume, cache
    target: str
    zone_id: str | None = None
    labels: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()


class Declined(Struct, frozen=True, kw_only=True):
    """A strategy that cannot, and why."""

    reason: str


class MotionStrategy(Protocol):
    """Pure: same ask and view, same answer."""

    name: str

    def bid(self, ask: MotionAsk, view: TopologyView) -> Bid | Declined: ...
    def plan(self, ask: MotionAsk, view: TopologyView) -> tuple[Leg, ...]: ...


# --- cache policies ---------------------------------------------------------------------------


class PoolLoad(Struct, frozen=True, kw_only=True):
    pool_id: str
    scope: str
    capacity_bytes: int
    used_bytes: int  # reservations count as used
    streams: int
    in_flight_bytes: int
    has_copy: bool
    draining: bool = False


class LeaseAsk(Struct, frozen=True, kw_only=True):
    object_id: str
    size_bytes: int
    purpose: str


class Placement(Struct, frozen=True, kw_only=True):
    pool_id: str
    reason: str
    table: tuple[tuple[str, str], ...] = ()  # (pool id, verdict) for every candidate


class Refusal(Struct, frozen=True, kw_only=True):
    reason: str
    table: tuple[tuple[str, str], ...] = ()


class CachePolicy(Protocol):
    name: str

    def place(self, ask: LeaseAsk, pools: Sequence[PoolLoad]) -> Placement | Refusal: ...


class Entry(Struct, frozen=True, kw_only=True):
    entry_id: str
    bytes: int
    last_use: datetime
    uses: int
    purpose: str


class ReplacementPolicy(Protocol):
    name: str

    def victims(
        self, entries: Sequence[Entry], bytes_needed: int, now: datetime
    ) -> Iterator[str]: ...


# --- scaling ----------------------------------------------------------------------------------


class PoolSnapshot(Struct, frozen=True, kw_only=True):
    """What a scale strategy may look at; bytes with due times, never message counts."""

    now: datetime
    ready: int
    booting: int
    vms_min: int
    vms_max: int
    queued_bytes: int
    remaining_bytes: int
    queued_n: int
    running_n: int
    unknown_n: int
    due: tuple[tuple[float, int], ...]  # (seconds from now, bytes)
    vm_rate_bps: float
    boot_s: float


class Proposal(Struct, frozen=True, kw_only=True):
    desired: int
    reason: str
    state: bytes = b""


class ScaleStrategy(Protocol):
    name: str

    def decide(self, snapshot: PoolSnapshot, state: bytes) -> Proposal: ...


class VmSpec(Struct, frozen=True, kw_only=True):
    vm_id: str
    owner: str
    zone_id: str
    config: dict[str, str]


class VmFact(Struct, frozen=True, kw_only=True):
    vm_id: str
    state: str  # pending, running, stopped, failed, unknown
    reason: str = ""


class Provisioner(Protocol):
    """`launch` repeats safely by vm_id; `list` is the truth; `destroy` confirms."""

    async def launch(self, spec: VmSpec) -> VmFact: ...
    async def list(self, owner: str) -> Sequence[VmFact]: ...
    async def destroy(self, vm_id: str) -> None: ...
