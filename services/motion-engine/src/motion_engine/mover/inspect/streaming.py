"""Feeds first and last bytes of a passing stream to the format rules and gives a verdict."""

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.values import ImageFormat
from entrepot_plugin.ports import Buffer
from motion_engine.mover.inspect import qcow2
from motion_engine.mover.inspect.magic import TRAILER_BYTES, formats_of_head, formats_of_trailer

HEAD_BYTES = 64 << 10
SECTOR_BYTES = 512


class Verdict(Struct, frozen=True, kw_only=True):
    """What the head said; plain data, so that a resumed transfer need not see the head again."""

    virtual_size_bytes: int | None  # None: the size of the file
    tables_end: int


class Inspector:
    """One image on its way. `feed` in order, then `finish`; both raise Refused.

    `verdict`: of an earlier attempt, when the stream does not begin at byte 0.
    """

    def __init__(
        self,
        declared: ImageFormat,
        *,
        virtual_size_bytes_max: int,
        verdict: Verdict | None = None,
    ) -> None:
        self._declared = declared
        self._virtual_max = virtual_size_bytes_max
        self._head = bytearray()
        self._trailer = b""
        self.verdict = verdict

    def feed(self, chunks: Sequence[Buffer]) -> None:
        for chunk in chunks:
            if self.verdict is None:
                self._head += memoryview(chunk)[: HEAD_BYTES - len(self._head)]
                if len(self._head) == HEAD_BYTES:
                    self.verdict = self._judge(bytes(self._head))
            if len(chunk) >= TRAILER_BYTES:
                self._trailer = bytes(chunk[-TRAILER_BYTES:])
            else:
                self._trailer = (self._trailer + bytes(chunk))[-TRAILER_BYTES:]

    def finish(self, size_bytes: int) -> int:
        """The virtual size, once all bytes have passed."""
        if self.verdict is None:
            self.verdict = self._judge(bytes(self._head))
        trailing = formats_of_trailer(self._trailer)
        if trailing:
            raise self._mismatch(trailing | {self._declared.value})
        if size_bytes < self.verdict.tables_end:
            raise unsafe("its tables lie outside the file")
        if self.verdict.virtual_size_bytes is not None:
            return self.verdict.virtual_size_bytes
        if size_bytes == 0 or size_bytes % SECTOR_BYTES:
            raise Refused(
                Code.FORMAT_MISMATCH,
                f"{size_bytes} bytes are no {self._declared.value} image: not whole sectors",
                field="url",
                hint="declare the right format, or fetch the file by hand to see what it is",
                facts={"size_bytes": str(size_bytes)},
            )
        self._check_quota(size_bytes)
        return size_bytes

    def _judge(self, head: bytes) -> Verdict:
        found = formats_of_head(head)
        wanted = {self._declared.value} - {ImageFormat.RAW.value}
        if found != wanted:
            raise self._mismatch(found)
        if self._declared is not ImageFormat.QCOW2:
            return Verdict(virtual_size_bytes=None, tables_end=0)
        try:
            header = qcow2.check(head)
        except qcow2.Unsafe as err:
            raise unsafe(str(err)) from err
        self._check_quota(header.virtual_size_bytes)
        return Verdict(virtual_size_bytes=header.virtual_size_bytes, tables_end=header.tables_end)

    def _check_quota(self, virtual_bytes: int) -> None:
        if virtual_bytes > self._virtual_max:
            raise Refused(
                Code.QUOTA_EXCEEDED,
                f"the image is {virtual_bytes} bytes large, {self._virtual_max} are allowed",
                field="url",
                hint="ask for a larger quota or use a smaller image",
                facts={
                    "virtual_size_bytes": str(virtual_bytes),
                    "virtual_size_bytes_max": str(self._virtual_max),
                },
            )

    def _mismatch(self, found: frozenset[str] | set[str]) -> Refused:
        if len(found) > 1:
            return unsafe(f"it can be taken for several formats: {', '.join(sorted(found))}")
        seen = next(iter(found), "raw")
        return Refused(
            Code.FORMAT_MISMATCH,
            f"declared as {self._declared.value}, but it is {seen}",
            field="format",
            hint="declare the right format; qcow2, raw and iso are taken",
            facts={"declared": self._declared.value, "found": seen},
        )


def own_virtual_size(declared: ImageFormat, head: bytes, size_bytes: int) -> int:
    """Virtual size of a volume of ours from the first bytes of its container."""
    if declared is not ImageFormat.QCOW2:
        return size_bytes
    try:
        return qcow2.check(head, own=True).virtual_size_bytes
    except qcow2.Unsafe as err:
        raise unsafe(str(err)) from err


def verdict_of(facts: object) -> Verdict | None:
    """From a checkpoint's facts, or None when there is none (or none that can be read)."""
    try:
        return msgspec.convert(facts, Verdict)
    except msgspec.ValidationError:
        return None


def unsafe(why: str) -> Refused:
    return Refused(
        Code.UNSAFE_IMAGE,
        f"the image is not safe to keep: {why}",
        field="url",
        hint="flatten it first: qemu-img convert -O qcow2 IN OUT",
    )
