"""One copy from open source to published target: resume, send, commit, verify, publish.

Nothing here knows what the ends are (ends.py opens them). The order of the steps is what makes a
copy safe to kill anywhere: upload token recorded before the first part, parts recorded as they
are acknowledged, everything recorded before commit, verified before published.
"""

import asyncio
import hashlib
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from entrepot_chassis import logs
from entrepot_contracts.errors import Code, Problem, Refused
from entrepot_contracts.motion import Checkpointed, Copied, Grant, PartRecord
from entrepot_contracts.values import Checksum
from entrepot_plugin.errors import AlreadyThere, ResumeLost, StoreError
from entrepot_plugin.ports import PartReceipt, PartWriter
from motion_engine.mover import verify
from motion_engine.mover.checkpoints import Journal
from motion_engine.mover.lease import Hold
from motion_engine.mover.parts import Part
from motion_engine.mover.pipeline import lone_errors
from motion_engine.mover.progress import Progress
from motion_engine.mover.targets import Target, Written, forget
from motion_engine.mover.threads import Hops, RunBlocking

T = TypeVar("T")
_log = logs.get("mover.copy")

WRITTEN = "written"  # stage: every part is recorded, commit may have happened
GIVEN_UP = "given_up"  # stage: failed for good, its bytes are being removed


class Tools(Struct, frozen=True, kw_only=True):
    """What a copy works with; all of it can be faked."""

    run_blocking: RunBlocking
    parts_in_flight: int
    reread: bool = True  # policy: compare what the store holds before it is published


class Upload:
    """The unfinished target of one transfer, with what earlier attempts left of it."""

    def __init__(
        self, target: Target, grant: Grant, hold: Hold, journal: Journal, progress: Progress
    ) -> None:
        self.target = target
        self.progress = progress
        self.records: dict[int, PartRecord] = {}
        self.key = ""
        self.committed = False
        self._grant = grant
        self._hold = hold
        self._journal = journal
        self._writer: PartWriter | None = None

    @property
    def writer(self) -> PartWriter:
        assert self._writer is not None, "begun before it is written to"
        return self._writer

    async def keep_given_up(self) -> None:
        """Raise the problem over which an earlier attempt gave up, if one did: its removals may
        still be on their way, so nothing may be published any more.
        """
        past = self._grant.checkpoint
        if past.facts.get("stage") == GIVEN_UP:
            self.key, self.committed = past.key, bool(past.facts.get("committed"))
            await self._journal.begin(past.key, past.resume, past.facts)
            raise Refused.of(msgspec.convert(past.facts.get("problem"), Problem))

    async def begin(self, plan: str, size_bytes: int | None, facts: dict[str, Any]) -> None:
        """Continue what the checkpoint describes if it is of this plan, else begin afresh."""
        past = self._grant.checkpoint
        noted = {"stage": "", "etag": None, "inspection": None} | past.facts | facts
        noted["plan"] = plan
        if past.key:
            same = past.facts.get("plan") == plan
            if same and await self.find_committed():
                return
            if same and await self._resume(size_bytes):
                # It goes on under the token it began with; some stores give a new one each time.
                noted["resume"] = self.writer.resume
                await self._journal.begin(self.key, past.resume, noted)
                return
        lost, self._writer = self._writer, None
        self.records.clear()
        self.key = self.target.key_for(self._grant.ask.transfer_id, self._grant.epoch)
        self._writer = await self.target.begin(self.key, size_bytes, None)
        fresh = {"stage": "", "etag": None, "inspection": None, "plan": plan} | facts
        fresh["resume"] = self.writer.resume
        await self._journal.begin(self.key, self.writer.resume, fresh)
        if past.key:
            await self._drop_past(lost, size_bytes)

    async def find_committed(self) -> bool:
        """Whether an earlier attempt came as far as a commit that took effect."""
        past = self._grant.checkpoint
        if not past.key or past.facts.get("stage") != WRITTEN:
            return False
        records = {one.number: one for one in past.parts}
        if not await self.target.is_there(past.key, end_of(records)):
            return False
        self.key, self.records, self.committed = past.key, records, True
        await self._journal.begin(past.key, past.resume, past.facts)
        return True

    async def sent(
        self, part: Part, receipt: PartReceipt, leaves: bytes, *, weight_bytes: int | None = None
    ) -> None:
        """A part was acknowledged. `weight_bytes`: what it adds to progress."""
        record = PartRecord(
            number=part.number,
            offset=part.offset,
            length=part.length,
            receipt=receipt.tag,
            leaves=leaves,
        )
        self.records[part.number] = record
        self.progress.part_done(part.number, part.length if weight_bytes is None else weight_bytes)
        await self._journal.add(record)

    def note(self, **facts: Any) -> None:
        self._journal.facts |= facts

    async def record(self) -> None:
        """Everything noted so far, on record when it returns."""
        await self._journal.flush(force=True)

    async def commit(self, size_bytes: int) -> None:
        """Everything on record, the lease surely ours, then commit."""
        if self.committed:
            return
        self.progress.enter("committing", total=size_bytes, done=size_bytes)
        self.note(stage=WRITTEN)
        await self.record()
        self._hold.check()
        parts = [self.records[number] for number in sorted(self.records)]
        await self.target.commit(self.key, self.writer, parts, size_bytes)
        self.committed = True

    async def discard(self, problem: Problem) -> None:
        """Leave nothing of ours behind; what fails is left to the sweeper and said.

        A request to remove something may take effect long after we lost the work. So it is first
        on record that the work is given up: whoever takes over fails the same way, and nobody
        ever points at what is removed late.
        """
        if not self.key:
            return
        why = msgspec.to_builtins(msgspec.structs.replace(problem, retryable=False))
        self.note(stage=GIVEN_UP, committed=self.committed, problem=why)
        await self.record()
        try:
            if self._writer is not None and not self.committed:
                await forget(self._writer)
            await self.target.discard(self.key, committed=self.committed)
        except StoreError as err:
            _log.warning("copy.discard_failed", key=self.key, error=str(err))

    async def close(self) -> None:
        if self._writer is not None:
            with suppress(StoreError):
                await self._writer.close()

    async def _resume(self, size_bytes: int | None) -> bool:
        past = self._grant.checkpoint
        self.key = past.key
        try:
            self._writer = await self.target.begin(past.key, size_bytes, _token(past))
            listed = await self._writer.parts()
        except (ResumeLost, AlreadyThere):
            return False
        self.records = _held_by_both({one.number: one for one in past.parts}, listed)
        return True

    async def _drop_past(self, writer: PartWriter | None, size_bytes: int | None) -> None:
        """Forget an upload that does not fit any more, once another is on record in its place:
        before that somebody who takes over might go on with it while we remove it.
        """
        past = self._grant.checkpoint
        _log.info("copy.begun_afresh", transfer_id=self._grant.ask.transfer_id)
        if writer is None:
            with suppress(StoreError):
                writer = await self.target.begin(past.key, size_bytes, _token(past))
        if writer is not None:
            with suppress(StoreError):
                await writer.abort()
            await writer.close()
        with suppress(StoreError):
            await self.target.discard(past.key, committed=False)


async def settle(
    upload: Upload,
    written: Written,
    *,
    tools: Tools,
    flat_wanted: Checksum | None,
) -> Copied:
    """Verify committed bytes, compare the flat checksum if nobody has yet, publish."""
    if tools.reread or flat_wanted is not None:
        await _verify(upload, written, tools, flat_wanted)
    copied = await upload.target.publish(written)
    progress = upload.progress
    return msgspec.structs.replace(
        copied, bytes_read=progress.bytes_read, bytes_sent=progress.bytes_sent
    )


async def _verify(
    upload: Upload, written: Written, tools: Tools, flat_wanted: Checksum | None
) -> None:
    progress = upload.progress
    progress.enter("verifying", total=written.target_bytes)
    hops = Hops(tools.run_blocking)
    async with upload.target.reread(written, hops) as source:
        if flat_wanted is None:
            await verify.compare(
                source,
                written.table,
                key=written.key,
                in_flight=tools.parts_in_flight,
                progress=progress,
            )
            return
        flat = flat_hasher(flat_wanted)
        await verify.compare_in_order(
            source,
            written.table,
            flat,
            key=written.key,
            run_blocking=tools.run_blocking,
            progress=progress,
        )
        check_flat(flat_wanted, flat.hexdigest())


async def beside(journal: Journal, work: Coroutine[Any, Any, T]) -> T:
    """Run `work` while parts are recorded every 2 seconds; the first error stops both."""
    async with lone_errors(), asyncio.TaskGroup() as group:
        flusher = group.create_task(journal.flush_now_and_then(), name="checkpoints")
        try:
            return await work
        finally:
            flusher.cancel()


def flat_hasher(checksum: Checksum) -> Any:
    return hashlib.new(checksum.algorithm.value, usedforsecurity=False)


def check_flat(wanted: Checksum, actual: str) -> None:
    if actual != wanted.value:
        raise Refused(
            Code.CHECKSUM_MISMATCH,
            f"the {wanted.algorithm.value} of the bytes is not the one given",
            field="checksum",
            hint="compare with the publisher's checksum, then register again",
            facts={
                "algorithm": wanted.algorithm.value,
                "expected": wanted.value,
                "actual": actual,
            },
        )


def _token(past: Checkpointed) -> str | None:
    """What the store knows the upload by at present."""
    token = past.facts.get("resume")
    return token if isinstance(token, str) else past.resume


def end_of(records: Mapping[int, PartRecord]) -> int:
    return max((one.offset + one.length for one in records.values()), default=0)


def _held_by_both(
    records: dict[int, PartRecord], listed: Sequence[PartReceipt]
) -> dict[int, PartRecord]:
    """Parts on record that the target holds too. A target that cannot tell lists none: its parts
    were durable when it acknowledged them.
    """
    if not listed:
        return records
    held = {one.number: one for one in listed}
    return {
        number: one
        for number, one in records.items()
        if number in held
        and held[number].length == one.length
        and (not one.receipt or not held[number].tag or held[number].tag == one.receipt)
    }
