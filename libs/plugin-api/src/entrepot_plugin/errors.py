"""What can go wrong at a port. `retryable` belongs to the type; fields carry the facts.

Drivers translate every SDK error at their border, unknown ones too, with `from err`.
"""

from typing import ClassVar

from entrepot_contracts.errors import Code


class StoreError(Exception):
    """Root of all port errors; a driver's last resort for an error it does not know."""

    retryable: ClassVar[bool] = True
    code: ClassVar[Code] = Code.STORE_ERROR

    def __init__(self, message: str, *, key: str | None = None, hint: str = "") -> None:
        super().__init__(message)
        self.key = key
        self.hint = hint


class Unreachable(StoreError):
    """No answer, reset, 5xx, throttled: the same call may work later. `after_s`: server's hint."""

    def __init__(
        self, message: str, *, key: str | None = None, hint: str = "", after_s: float | None = None
    ) -> None:
        super().__init__(message, key=key, hint=hint)
        self.after_s = after_s


class Stalled(Unreachable):
    """No byte moved for the named time."""


class Denied(StoreError):
    """Credentials are wrong or do not allow it."""

    retryable = False
    code = Code.STORE_DENIED


class ObjectMissing(StoreError):
    retryable = False
    code = Code.OBJECT_MISSING


class BucketMissing(StoreError):
    """The container the config names (bucket, directory, pool) does not exist."""

    retryable = False
    code = Code.STORE_ERROR


class OutOfSpace(StoreError):
    retryable = False
    code = Code.STORE_FULL


class AlreadyThere(StoreError):
    """A name that must be fresh is taken."""

    retryable = False
    code = Code.CONFLICT


class ResumeLost(StoreError):
    """The store no longer knows the unfinished upload: begin again from nothing."""

    retryable = True


class PartsRefused(StoreError):
    """Commit named parts that do not make up the object, or a part lies outside of it."""

    retryable = False


class CommitUnclear(StoreError):
    """Commit was sent and neither answer nor inspection tells whether it took effect."""

    retryable = True


class InUse(StoreError):
    """A volume is open elsewhere or has dependants."""

    retryable = False
    code = Code.IN_USE


class BadConfig(StoreError):
    """The config cannot work; the message names the field."""

    retryable = False
    code = Code.INVALID
