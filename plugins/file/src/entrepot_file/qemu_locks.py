"""Whether qemu has an image open for writing: it says so in locks on bytes of the file."""

import fcntl
import os
import struct

# qemu's file driver: byte 100 + n is locked while permission n is in use; 1 is write.
_WRITE_IN_USE_AT = 101
_FLOCK = struct.Struct("hhxxxxqqixxxx")  # struct flock on 64-bit Linux


def open_for_writing(descriptor: int) -> bool:
    """Asks without taking a lock; a file system without locks answers no. Blocking."""
    ask = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _WRITE_IN_USE_AT, 1, 0)
    try:
        answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, ask)
    except OSError:
        return False
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
