"""CopyWork end to end: open both ends, move the bytes, clean up after failures for good."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from msgspec import Struct

from entrepot_chassis.ports import Bus, Clock
from entrepot_contracts.errors import Code, Problem, Refused
from entrepot_contracts.motion import (
    Copied,
    CopyWork,
    ObjectEnd,
    UrlEnd,
    VolumeEnd,
)
from entrepot_contracts.values import Checksum, ImageFormat
from entrepot_plugin.ports import PartReceipt, VolumeRef
from motion_engine.mover import copying
from motion_engine.mover.checkpoints import Journal
from motion_engine.mover.copying import Tools, Upload, settle
from motion_engine.mover.digest import LeafTable
from motion_engine.mover.extents import ALIGN_BYTES, widen
from motion_engine.mover.fetch import Fetch
from motion_engine.mover.inspect.streaming import HEAD_BYTES, own_virtual_size
from motion_engine.mover.lease import End, Hold
from motion_engine.mover.manifest import load
from motion_engine.mover.one_read import OneRead
from motion_engine.mover.parts import Part, part_bytes_for, plan, plan_digest
from motion_engine.mover.pipeline import LeafBody, send_parts
from motion_engine.mover.problems import CANCELLED, Fenced, problem_from
from motion_engine.mover.progress import Progress
from motion_engine.mover.sources import LeafSource, ObjectSource, VolumeSource
from motion_engine.mover.stores import Stores
from motion_engine.mover.targets import ObjectTarget, Target, VolumeTarget, Written
from motion_engine.mover.threads import Hops


class OpenSource(Struct, frozen=True, kw_only=True):
    """A source that can be read anywhere, and what is known of its bytes."""

    leaves: LeafSource
    format: ImageFormat
    virtual_size_bytes: int
    checksum: Checksum | None = None


class Copier:
    """One CopyWork under one hold."""

    def __init__(
        self,
        work: CopyWork,
        hold: Hold,
        *,
        stores: Stores,
        fetch: Fetch,
        bus: Bus,
        clock: Clock,
        tools: Tools,
        progress: Progress,
    ) -> None:
        self._work = work
        self._hold = hold
        self._grant = hold.grant
        self._stores = stores
        self._fetch = fetch
        self._tools = tools
        self._progress = progress
        self._journal = Journal(hold, bus, clock, progress)

    async def run(self) -> Copied:
        async with AsyncExitStack() as stack:
            target = await self._open_target(stack)
            upload = Upload(target, self._grant, self._hold, self._journal, self._progress)
            stack.push_async_callback(upload.close)
            try:
                return await copying.beside(self._journal, self._copy(upload))
            except Fenced:
                raise
            except Exception as err:
                problem = problem_from(err)
                if self._is_for_good(problem):
                    self._hold.check()
                    await upload.discard(problem)
                raise
            finally:
                await self._after_stop(upload)

    async def _copy(self, upload: Upload) -> Copied:
        await upload.keep_given_up()
        source = self._work.source
        if isinstance(source, UrlEnd):
            self._check_format(source.format)
            source = self._stores.whole(source, self._grant.credentials)
            once = OneRead(
                source, upload, fetch=self._fetch, tools=self._tools, progress=self._progress
            )
            return await once.run(self._grant.checkpoint)
        async with self._open_source(source) as opened:
            return await self._copy_known(opened, upload)

    def _is_for_good(self, problem: Problem) -> bool:
        return self._grant.attempt >= self._grant.ask.attempts_max or not problem.retryable

    async def _after_stop(self, upload: Upload) -> None:
        """What the reason of a stop asks for, while the stores are still open."""
        if self._hold.end is End.CANCELLED:
            await upload.discard(CANCELLED)
        elif self._hold.end is End.DRAINED:
            await self._journal.last_words()

    # --- ends ---------------------------------------------------------------------------------

    async def _open_target(self, stack: AsyncExitStack) -> Target:
        end = self._work.target
        credentials = self._grant.credentials
        if isinstance(end, ObjectEnd):
            traits = self._stores.plugin(end.store).traits
            objects = await stack.enter_async_context(self._stores.objects(end.store, credentials))
            return ObjectTarget(objects, end.prefix, parts_equal=traits.parts_equal)
        volumes = await stack.enter_async_context(self._stores.volumes(end.store, credentials))
        return VolumeTarget(volumes, VolumeRef(volume_id=end.volume_id, format=end.format))

    @asynccontextmanager
    async def _open_source(self, end: ObjectEnd | VolumeEnd) -> AsyncIterator[OpenSource]:
        hops = Hops(self._tools.run_blocking)
        if isinstance(end, ObjectEnd):
            async with self._open_object(end, hops) as opened:
                yield opened
            return
        volume = VolumeRef(volume_id=end.volume_id, format=end.format)
        async with (
            self._stores.volumes(end.store, self._grant.credentials) as store,
            store.open_read(volume, end.snapshot_id) as reader,
        ):
            try:
                extents = widen(await reader.extents(ALIGN_BYTES), reader.size_bytes)
                head = await hops.start(reader.pread, 0, min(HEAD_BYTES, reader.size_bytes))
                yield OpenSource(
                    leaves=VolumeSource(reader, extents, hops),
                    format=end.format,
                    virtual_size_bytes=own_virtual_size(end.format, head, reader.size_bytes),
                )
            finally:
                await hops.settle()

    @asynccontextmanager
    async def _open_object(self, end: ObjectEnd, hops: Hops) -> AsyncIterator[OpenSource]:
        stored = end.stored
        if stored is None:
            raise Refused(
                Code.INVALID,
                "a source object needs `stored`",
                field="stored",
                hint="name what the catalogue points at",
            )
        async with self._stores.objects(end.store, self._grant.credentials) as store:
            manifest = await load(store, stored)
            extents = manifest.extent_map()
            source = ObjectSource(
                store,
                stored.key,
                extents,
                dense=bool(manifest.extents) or not manifest.stored_bytes,
                hops=hops,
                expect=manifest.leaf_table(),
            )
            yield OpenSource(
                leaves=source,
                format=stored.format,
                virtual_size_bytes=stored.virtual_size_bytes,
                checksum=stored.checksum,
            )

    # --- sources that can be read anywhere ----------------------------------------------------

    async def _copy_known(self, source: OpenSource, upload: Upload) -> Copied:
        target, extents = upload.target, source.leaves.extents
        self._check_format(source.format)
        dense = target.may_be_dense and not extents.is_full
        target_bytes = extents.stored_bytes if dense else extents.size_bytes
        part_bytes = part_bytes_for(target_bytes)
        parts = plan(extents, dense=dense, part_bytes=part_bytes)
        table = LeafTable(extents)
        name = plan_digest(extents, dense=dense, part_bytes=part_bytes)
        await upload.begin(name, target_bytes, {})
        done = self._take_over(parts, upload, table)
        self._progress.enter("copying", total=target_bytes, done=done)
        todo = [part for part in parts if part.number not in upload.records]

        async def on_sent(part: Part, receipt: PartReceipt) -> None:
            await upload.sent(part, receipt, table.joined(part.first_leaf, part.end_leaf))

        if todo and not upload.committed:
            await send_parts(
                todo,
                lambda part: LeafBody(
                    source.leaves, part, dense=dense, table=table, progress=self._progress
                ),
                upload.writer,
                on_sent,
                in_flight=self._tools.parts_in_flight,
            )
        await upload.commit(target_bytes)
        written = Written(
            key=upload.key,
            extents=extents,
            table=table,
            dense=dense,
            target_bytes=target_bytes,
            format=source.format,
            virtual_size_bytes=source.virtual_size_bytes,
            checksum=source.checksum,
        )
        return await settle(upload, written, tools=self._tools, flat_wanted=None)

    def _take_over(self, parts: Sequence[Part], upload: Upload, table: LeafTable) -> int:
        """Fill the leaves of parts on record; bytes they hold. Records that do not fit the plan
        are dropped, so their parts are sent again.
        """
        done = 0
        fitting = {}
        for part in parts:
            record = upload.records.get(part.number)
            if record is None or (record.offset, record.length) != (part.offset, part.length):
                continue
            try:
                table.fill(part.first_leaf, part.end_leaf, record.leaves)
            except ValueError:
                continue
            fitting[part.number] = record
            done += part.length
        upload.records = fitting
        return done

    def _check_format(self, found: ImageFormat) -> None:
        end = self._work.target
        if isinstance(end, VolumeEnd) and end.format is not found:
            raise Refused(
                Code.FORMAT_MISMATCH,
                f"a {found.value} image cannot become a {end.format.value} volume",
                field="format",
                hint="the pool keeps the format of the image",
                facts={"declared": end.format.value, "found": found.value},
            )
