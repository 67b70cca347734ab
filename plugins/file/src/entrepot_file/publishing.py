"""Making a finished file appear: durable first, then under a fresh name, never over another."""

import os
from contextlib import suppress

from entrepot_file.rooms import Place
from entrepot_plugin.errors import AlreadyThere, ResumeLost


def publish(descriptor: int, place: Place, *, fsync: bool) -> os.stat_result:
    """Give the file its final name. Says the same again when it has it already. Blocking.

    The inode decides whose file stands there: link(2) over NFS may report EEXIST although it was
    our own first request that made the name.
    """
    if fsync:
        os.fsync(descriptor)
    ours = os.fstat(descriptor)
    with place.room.folder(place.parts) as folder:
        if not _stands(folder, place, ours):
            _link(folder, place, ours)
        with suppress(FileNotFoundError):
            os.unlink(place.part, dir_fd=folder)
        if fsync:
            os.fsync(folder)
    return os.fstat(descriptor)


def _stands(folder: int, place: Place, ours: os.stat_result) -> bool:
    try:
        there = os.stat(place.name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    if (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
        raise AlreadyThere("another file was published under this name", key=place.key)
    return True


def _link(folder: int, place: Place, ours: os.stat_result) -> None:
    try:
        part = os.stat(place.part, dir_fd=folder, follow_symlinks=False)
        if part.st_ino != ours.st_ino:
            raise ResumeLost("another process took the unfinished file over", key=place.key)
        os.link(place.part, place.name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError:
        _stands(folder, place, ours)
    except FileNotFoundError as err:
        raise ResumeLost("the unfinished file was removed", key=place.key) from err


def publish_over(descriptor: int, place: Place, *, fsync: bool) -> os.stat_result:
    """Like `publish` for small objects that may be put again: the old bytes give way at once."""
    if fsync:
        os.fsync(descriptor)
    with place.room.folder(place.parts) as folder:
        os.replace(place.part, place.name, src_dir_fd=folder, dst_dir_fd=folder)
        if fsync:
            os.fsync(folder)
    return os.fstat(descriptor)
