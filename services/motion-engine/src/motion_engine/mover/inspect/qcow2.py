"""What a qcow2 header must and must not say before its image is kept."""

import struct

from msgspec import Struct

MAGIC = b"QFI\xfb"
VIRTUAL_BYTES_MAX = 1 << 60
L1_BYTES_MAX = 32 << 20
REFTABLE_BYTES_MAX = 8 << 20
HEADER_BYTES_MAX = 4096
EXTENSIONS_BYTES_MAX = 60 << 10

_V2 = struct.Struct(">4sIQIIQIIQQIIQ")
_V3 = struct.Struct(">QQQII")
_EXTENSION = struct.Struct(">II")

_DIRTY, _CORRUPT, _DATA_FILE, _COMPRESSION, _EXTENDED_L2 = 1, 2, 4, 8, 16
_EXT_END = 0
_EXT_FEATURE_NAMES = 0x6803F857
_EXT_BITMAPS = 0x23852875
_EXT_BACKING_FORMAT = 0xE2792ACA
_EXT_DATA_FILE = 0x44415441
_EXT_CRYPTO = 0x0537BE77
_EXT_ALLOWED = frozenset({_EXT_FEATURE_NAMES, _EXT_BITMAPS, _EXT_BACKING_FORMAT})


class Unsafe(Exception):
    """The image is not kept; the text says why."""


class Header(Struct, frozen=True, kw_only=True):
    """The facts that later checks need."""

    virtual_size_bytes: int
    tables_end: int  # the file must reach at least to here


def check(head: bytes, *, own: bool = False) -> Header:
    """Check the first bytes of an image. Raises Unsafe.

    `own`: a volume of ours that a guest's tools may have written snapshots into; only what would
    make its bytes incomplete is refused.
    """
    try:
        return _check(head, own=own)
    except struct.error as err:
        msg = "its header is cut off"
        raise Unsafe(msg) from err


def _check(head: bytes, *, own: bool) -> Header:
    (magic, version, backing, backing_size, cluster_bits, virtual, crypt, l1_n, l1_at, ref_at) = (
        _V2.unpack_from(head)[:10]
    )
    ref_clusters, snapshots, _ = _V2.unpack_from(head)[10:]
    _need(magic == MAGIC and version in {2, 3}, f"qcow2 version {version} is not known")
    _need(backing == 0 and backing_size == 0, "it has a backing file")
    _need(crypt == 0, "it is encrypted")
    _need(9 <= cluster_bits <= 21, "its cluster size is out of range")  # noqa: PLR2004
    _need(0 < virtual <= VIRTUAL_BYTES_MAX, "its virtual size is out of range")
    _need(own or snapshots == 0, "it has internal snapshots")
    cluster = 1 << cluster_bits
    extended = False
    header_end = _V2.size
    if version == 3:  # noqa: PLR2004 - the format's number
        header_end, extended = _check_v3(head)
    _check_extensions(head, header_end, cluster)
    entry_bytes = 16 if extended else 8
    covered = cluster * (cluster // entry_bytes)  # by one L1 entry
    _need(l1_n <= -(-virtual // covered) + 1 or own, "its L1 table is larger than its size needs")
    _need(l1_n * covered >= virtual, "its L1 table is too small")
    _need(l1_n * 8 <= L1_BYTES_MAX, "its L1 table is too large")
    _need(ref_clusters * cluster <= REFTABLE_BYTES_MAX, "its refcount table is too large")
    _need(l1_at % cluster == 0 and ref_at % cluster == 0, "its tables are not aligned")
    _need(ref_at > 0 and (l1_at > 0 or l1_n == 0), "its tables lie in its header")
    end = max(l1_at + l1_n * 8, ref_at + 8)
    return Header(virtual_size_bytes=virtual, tables_end=end)


def _check_v3(head: bytes) -> tuple[int, bool]:
    incompatible, _, _, refcount_order, length = _V3.unpack_from(head, _V2.size)
    _need(not incompatible & _DATA_FILE, "it has an external data file")
    _need(not incompatible & _CORRUPT, "it is marked corrupt")
    known = _DIRTY | _COMPRESSION | _EXTENDED_L2
    _need(not incompatible & ~known, f"it needs features that are not known ({incompatible:#x})")
    _need(refcount_order <= 6, "its refcount width is out of range")  # noqa: PLR2004
    _need(_V2.size + _V3.size <= length <= HEADER_BYTES_MAX, "its header length is out of range")
    _need(length % 8 == 0, "its header length is not aligned")
    return length, bool(incompatible & _EXTENDED_L2)


def _check_extensions(head: bytes, start: int, cluster: int) -> None:
    """Header extensions up to their end mark, inside the first cluster."""
    position = start
    limit = min(cluster, EXTENSIONS_BYTES_MAX)
    while position + _EXTENSION.size <= limit:
        kind, length = _EXTENSION.unpack_from(head, position)
        if kind == _EXT_END:
            return
        _need(kind != _EXT_DATA_FILE, "it names an external data file")
        _need(kind != _EXT_CRYPTO, "it is encrypted")
        _need(kind in _EXT_ALLOWED, f"it has a header extension that is not known ({kind:#x})")
        position += _EXTENSION.size + -(-length // 8) * 8
        _need(position <= limit, "a header extension reaches outside its place")


def _need(holds: bool, why: str) -> None:  # noqa: FBT001 - a condition beside its reason
    if not holds:
        raise Unsafe(why)
