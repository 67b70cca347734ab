"""Translation of the operating system's errors into the errors of the port."""

import errno

from entrepot_plugin.errors import (
    AlreadyThere,
    Denied,
    ObjectMissing,
    OutOfSpace,
    StoreError,
    Unreachable,
)

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP})
_SHAPE = frozenset({errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY})
_PASSING = frozenset(
    {
        errno.EIO,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.EAGAIN,
        errno.EINTR,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.EREMOTEIO,
        errno.ENOTCONN,
    }
)


def translated(err: OSError, key: str | None) -> StoreError:
    """The port error that says what the errno means to a caller; the path is left out."""
    number = err.errno or 0
    text = f"{errno.errorcode.get(number, number)}: {err.strerror or 'unknown error'}"
    if number == errno.ENOENT:
        return ObjectMissing(f"nothing is stored here ({text})", key=key)
    if number in _FULL:
        return OutOfSpace(
            f"no room left ({text})", key=key, hint="free space or raise the quota of the directory"
        )
    if number in _DENIED:
        return Denied(
            f"the operating system refuses it ({text})",
            key=key,
            hint="give the mover's user read and write permission; links inside are not followed",
        )
    if number in _SHAPE:
        return AlreadyThere(f"the name is taken by something else ({text})", key=key)
    if number in _PASSING:
        return Unreachable(f"the file system did not answer well ({text})", key=key)
    return StoreError(f"the file system failed ({text})", key=key)
