"""Copies inside one directory store: shared blocks where the file system can, else sparse."""

import errno
import fcntl
import os
from collections.abc import Iterator

FICLONE = 0x40049409
COPY_BYTES = 8 << 20
_CANNOT = frozenset(
    {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM}
)


def clone_or_copy(source: int, target: int) -> bool:
    """True if blocks are shared, False if they were copied. Holes stay holes. Blocking."""
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError as err:
        if err.errno not in _CANNOT:
            raise
        copy_sparse(source, target)
        return False
    return True


def copy_sparse(source: int, target: int) -> None:
    size_bytes = os.fstat(source).st_size
    os.ftruncate(target, size_bytes)
    for offset, length in data_extents(source, size_bytes):
        _copy_range(source, target, offset, offset + length)


def data_extents(descriptor: int, size_bytes: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of what is allocated; all of it where the file system cannot tell."""
    position = 0
    while position < size_bytes:
        try:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
            end = os.lseek(descriptor, start, os.SEEK_HOLE)
        except OSError as err:
            if err.errno == errno.ENXIO:
                return
            if err.errno not in _CANNOT:
                raise
            start, end = position, size_bytes
        end = min(end, size_bytes)
        if end > start:
            yield start, end - start
        position = end


def widened(
    extents: Iterator[tuple[int, int]], align: int, size_bytes: int
) -> list[tuple[int, int]]:
    """Extents grown to multiples of `align`, merged, cut at the end."""
    grown: list[tuple[int, int]] = []
    for offset, length in extents:
        start = offset - offset % align
        end = min(-(-(offset + length) // align) * align, size_bytes)
        if grown and start <= grown[-1][0] + grown[-1][1]:
            start, end = grown[-1][0], max(end, grown[-1][0] + grown[-1][1])
            grown.pop()
        grown.append((start, end - start))
    return grown


def _copy_range(source: int, target: int, position: int, end: int) -> None:
    in_kernel = True
    while position < end:
        wanted = min(COPY_BYTES, end - position)
        copied = _in_kernel(source, target, wanted, position) if in_kernel else 0
        if not copied:
            in_kernel = False
            copied = _by_hand(source, target, wanted, position)
        position += copied


def _in_kernel(source: int, target: int, wanted: int, position: int) -> int:
    try:
        return os.copy_file_range(source, target, wanted, position, position)
    except OSError as err:
        if err.errno not in _CANNOT:
            raise
        return 0


def _by_hand(source: int, target: int, wanted: int, position: int) -> int:
    block = os.pread(source, wanted, position)
    if not block:
        raise OSError(errno.EIO, "the file became shorter while it was copied")
    return os.pwrite(target, block, position)
