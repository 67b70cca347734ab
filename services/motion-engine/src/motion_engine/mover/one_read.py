"""A copy from a source that is read once, from its beginning: a fetched URL.

Inspection, the user's checksum and the content digest are computed in the same pass. On a resume
the source is read from the first byte that is not on record if it has a strong ETag, else from
its beginning; parts on record are compared instead of sent.
"""

from collections.abc import Callable, Sequence
from contextlib import aclosing

import msgspec

from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.motion import Checkpointed, Copied, PartRecord, UrlEnd
from entrepot_plugin.errors import ResumeLost
from entrepot_plugin.ports import Buffer, PartReceipt
from motion_engine.mover.copying import (
    Tools,
    Upload,
    check_flat,
    end_of,
    flat_hasher,
    settle,
)
from motion_engine.mover.digest import LEAF_BYTES, LeafTable, leaf_count
from motion_engine.mover.extents import ExtentMap
from motion_engine.mover.fetch import Fetch, Fetched
from motion_engine.mover.inspect import Inspector
from motion_engine.mover.inspect.streaming import verdict_of
from motion_engine.mover.parts import PART_BYTES_MIN, part_bytes_least
from motion_engine.mover.pipeline import HeldPart, held_parts, send_held, sequential_plan
from motion_engine.mover.progress import Progress
from motion_engine.mover.targets import Written
from motion_engine.mover.threads import Hops

InOrder = Callable[[Sequence[Buffer]], None]


class OneRead:
    """One URL into one upload."""

    def __init__(
        self, end: UrlEnd, upload: Upload, *, fetch: Fetch, tools: Tools, progress: Progress
    ) -> None:
        self._end = end
        self._upload = upload
        self._fetch = fetch
        self._tools = tools
        self._progress = progress
        # targets that take parts of one length only get a size for the largest file allowed
        self._equal = not upload.target.may_be_dense and not upload.target.writes_holes
        self._part_bytes = part_bytes_least(end.size_bytes_max) if self._equal else PART_BYTES_MIN
        self._plan = f"sequential {self._part_bytes} {self._equal}"

    async def run(self, past: Checkpointed) -> Copied:
        if past.facts.get("plan") == self._plan and await self._upload.find_committed():
            return await self._settle(past.facts)
        etag, start = None, 0
        if verdict_of(past.facts.get("inspection")) is not None:
            etag = past.facts.get("etag")
            start = _prefix_bytes(past.parts) if etag else 0
        async with self._fetch(
            self._end.url, size_bytes_max=self._end.size_bytes_max, start=start, etag=etag
        ) as fetched:
            facts = await self._move(fetched, past)
        return await self._settle(facts)

    async def _move(self, fetched: Fetched, past: Checkpointed) -> dict[str, object]:
        """All bytes into the upload, inspected; what settling has to know."""
        upload, end = self._upload, self._end
        if upload.target.writes_holes and fetched.size_bytes is None:
            raise _length_unknown()
        await upload.begin(self._plan, fetched.size_bytes, {"etag": fetched.etag})
        if fetched.start and _prefix_bytes(tuple(upload.records.values())) < fetched.start:
            upload.note(etag=None)  # so the next attempt reads from the beginning
            await upload.record()
            raise ResumeLost("the store lost parts that were on record", key=upload.key)
        whole = fetched.start == 0
        flat = flat_hasher(end.checksum) if end.checksum is not None and whole else None
        inspector = Inspector(
            end.format,
            virtual_size_bytes_max=end.virtual_size_bytes_max,
            verdict=None if whole else verdict_of(past.facts.get("inspection")),
        )

        def in_order(chunks: Sequence[Buffer]) -> None:
            inspector.feed(chunks)
            if flat is not None:
                for chunk in chunks:
                    flat.update(chunk)

        size = await self._send(fetched, inspector, in_order)
        if size > end.size_bytes_max:
            raise _changed("it grew beyond the size allowed")
        facts: dict[str, object] = {
            "virtual": inspector.finish(size),
            "flat_checked": flat is not None,
        }
        if flat is not None and end.checksum is not None:
            check_flat(end.checksum, flat.hexdigest())
        upload.note(**facts)
        await upload.commit(size)
        return facts

    async def _send(self, fetched: Fetched, inspector: Inspector, in_order: InOrder) -> int:
        """Send what is not on record; the size of the source."""
        upload, progress = self._upload, self._progress
        progress.enter("copying", total=fetched.size_bytes, done=fetched.start)
        first, seen = 1, 0
        for record in sorted(upload.records.values(), key=lambda one: one.number):
            if record.offset + record.length <= fetched.start:
                first, seen = record.number + 1, record.number

        def is_known(held: HeldPart) -> bool:
            nonlocal seen
            part, seen = held.part, held.part.number
            record = upload.records.get(part.number)
            if record is None:
                return False
            if record.length != part.length or record.leaves != b"".join(held.digests):
                raise _changed("its bytes are not the ones read before")
            progress.part_done(part.number, part.length)
            return True

        async def on_sent(held: HeldPart, receipt: PartReceipt) -> None:
            upload.note(inspection=msgspec.to_builtins(inspector.verdict))
            await upload.sent(held.part, receipt, b"".join(held.digests))

        parts = held_parts(
            fetched.chunks,
            plan=sequential_plan(self._part_bytes, first, equal=self._equal),
            hops=Hops(self._tools.run_blocking),
            in_order=in_order,
            progress=progress,
        )
        async with aclosing(parts):
            await send_held(
                parts,
                upload.writer,
                is_known,
                on_sent,
                in_flight=self._tools.parts_in_flight,
                progress=progress,
            )
        if any(number > seen for number in upload.records):
            raise _changed("it is shorter than when it was read before")
        return end_of(upload.records)

    async def _settle(self, facts: dict[str, object]) -> Copied:
        upload, end = self._upload, self._end
        size = end_of(upload.records)
        extents = ExtentMap.full(size)
        table = LeafTable(extents)
        for record in upload.records.values():
            count = leaf_count(record.length)
            first = record.offset // LEAF_BYTES
            table.fill(first, first + count, record.leaves)
        virtual = facts["virtual"]
        assert isinstance(virtual, int), "noted before the commit was"
        written = Written(
            key=upload.key,
            extents=extents,
            table=table,
            dense=False,
            target_bytes=size,
            format=end.format,
            virtual_size_bytes=virtual,
            checksum=end.checksum,
        )
        flat_wanted = None if facts.get("flat_checked") else end.checksum
        return await settle(upload, written, tools=self._tools, flat_wanted=flat_wanted)


def _prefix_bytes(parts: Sequence[PartRecord]) -> int:
    """Bytes from the beginning that are on record without a gap."""
    end = 0
    for record in sorted(parts, key=lambda one: one.number):
        if record.offset != end:
            break
        end += record.length
    return end


def _changed(why: str) -> Refused:
    return Refused(
        Code.SOURCE_CHANGED,
        f"the source changed while it was fetched: {why}",
        field="url",
        hint="register it again when the source stays the same",
    )


def _length_unknown() -> Refused:
    return Refused(
        Code.SOURCE_LENGTH,
        "the server does not say how long the file is, and a volume must know",
        field="url",
        hint="register it as a template first",
    )
