"""The conformance suite of volume stores."""
# ruff: noqa: S106, S107  (a token of this port names a writer; it opens nothing)

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import ClassVar

import pytest

from entrepot_contracts.values import ImageFormat
from entrepot_plugin.bodies import BytesBody
from entrepot_plugin.conformance.material import (
    BrokenBody,
    HangingBody,
    SourceBroke,
    parts_of,
    pattern,
    volume_bytes,
    write_all,
)
from entrepot_plugin.errors import (
    AlreadyThere,
    InUse,
    ObjectMissing,
    PartsRefused,
    ResumeLost,
    StoreError,
)
from entrepot_plugin.ports import ClonesVolumes, VolumeRef, VolumeStat, VolumeStore
from entrepot_plugin.traits import StoreTraits

Fresh = Callable[[], AbstractAsyncContextManager[VolumeStore]]
Scribble = Callable[[VolumeStat, int, bytes], Awaitable[None]]
OpenElsewhere = Callable[[VolumeStat], AbstractAsyncContextManager[object]]
KIB, MIB = 1 << 10, 1 << 20
PART = 1 * MIB


class VolumeStoreConformance:
    """Fixtures of the subclass: `volumes`, `volumes_fresh` (factory), `volumes_broken`, `scribble`
    (write into a volume as a VM would) and `open_elsewhere` (hold it open as a VM would, or None).
    """

    traits: ClassVar[StoreTraits]

    @pytest.fixture
    def volume(self) -> VolumeRef:
        return _raw()

    @pytest.fixture
    def image(self, volume: VolumeRef) -> bytes:
        """Data, a hole of more than a part, data that ends unaligned."""
        data = pattern(MIB + 300 * KIB, volume.volume_id)
        return data + bytes(2 * MIB + 100 * KIB) + data[: 700 * KIB + 1]

    # --- blank volumes --------------------------------------------------------------------------

    async def test_a_blank_volume_reads_as_zeros_and_is_made_once(
        self, volumes: VolumeStore
    ) -> None:
        for kind in self.traits.volume_formats:
            volume = VolumeRef(volume_id=f"v-{secrets.token_hex(6)}", format=ImageFormat(kind))
            first = await volumes.create(volume, size_bytes=64 * MIB)
            assert (first.format, first.size_bytes) == (volume.format, 64 * MIB)
            assert first.path
            assert await volumes.create(volume, size_bytes=64 * MIB) == first
            assert await volumes.stat(volume) == first
        raw = _raw()
        await volumes.create(raw, size_bytes=3 * MIB)
        async with volumes.open_read(raw, None) as reader:
            assert await reader.extents(64 * KIB) == []
            assert await volume_bytes(reader) == bytes(3 * MIB)

    # --- writing --------------------------------------------------------------------------------

    async def test_a_volume_is_invisible_until_its_commit_and_whole_after_it(
        self, volumes: VolumeStore, volume: VolumeRef, image: bytes
    ) -> None:
        writer = await volumes.begin(volume, size_bytes=len(image), token="t1.1", resume=None)
        parts = parts_of(image, PART)
        last = await writer.write(*parts.pop())
        rest = await asyncio.gather(*(writer.write(*part) for part in reversed(parts)))
        with pytest.raises(ObjectMissing):
            await volumes.stat(volume)
        stat = await writer.commit([*rest, last], len(image))
        assert await writer.commit([*rest, last], len(image)) == stat
        await writer.close()
        assert stat.size_bytes == (await volumes.stat(volume)).file_bytes == len(image)
        assert await self._content(volumes, volume) == image

    async def test_what_the_pieces_skip_stays_a_hole(
        self, volumes: VolumeStore, volume: VolumeRef, image: bytes
    ) -> None:
        await self._store(volumes, volume, image)
        async with volumes.open_read(volume, None) as reader:
            extents = list(await reader.extents(64 * KIB))
            held = sum(length for _, length in extents)
            assert held < len(image) - MIB, extents
            rebuilt = bytearray(len(image))
            for offset, length in extents:
                rebuilt[offset : offset + length] = reader.pread(offset, length)
            assert bytes(rebuilt) == image

    async def test_extents_are_aligned_ascending_merged_and_cut(
        self, volumes: VolumeStore, volume: VolumeRef, image: bytes
    ) -> None:
        await self._store(volumes, volume, image)
        async with volumes.open_read(volume, None) as reader:
            for align in (4 * KIB, 64 * KIB, 4 * MIB):
                end = -1
                for offset, length in await reader.extents(align):
                    assert offset > end
                    assert offset % align == 0
                    end = offset + length
                    assert end % align == 0 or end == len(image)
                assert end <= len(image)

    async def test_a_part_sent_again_replaces_the_first_try_with_its_holes_too(
        self, volumes: VolumeStore, volume: VolumeRef, image: bytes
    ) -> None:
        writer = await volumes.begin(volume, size_bytes=len(image), token="t1.1", resume=None)
        parts = parts_of(image, PART)
        for number, offset, body in parts:
            await writer.write(number, offset, BytesBody(pattern(len(body), "x"), offset=offset))
        receipts = await write_all(writer, parts)
        await writer.commit(receipts, len(image))
        await writer.close()
        assert await self._content(volumes, volume) == image

    async def test_another_process_resumes_by_the_token(
        self, volumes: VolumeStore, volumes_fresh: Fresh, volume: VolumeRef, image: bytes
    ) -> None:
        parts = parts_of(image, PART)
        first = await volumes.begin(volume, size_bytes=len(image), token="t1.1", resume=None)
        receipts = await write_all(first, parts[:2])
        async with volumes_fresh() as other:
            second = await other.begin(
                volume, size_bytes=len(image), token="t1.2", resume=first.resume
            )
            receipts += await write_all(second, parts[2:])
            await second.commit(receipts, len(image))
            await second.close()
        await first.close()
        assert await self._content(volumes, volume) == image

    async def test_a_zombie_that_writes_late_changes_nothing_published(
        self, volumes: VolumeStore, volumes_fresh: Fresh, volume: VolumeRef, image: bytes
    ) -> None:
        parts = parts_of(image, PART)
        zombie = await volumes.begin(volume, size_bytes=len(image), token="t1.1", resume=None)
        receipts = await write_all(zombie, parts[:1])
        async with volumes_fresh() as other:
            heir = await other.begin(
                volume, size_bytes=len(image), token="t1.2", resume=zombie.resume
            )
            receipts += await write_all(heir, parts[1:])
            await heir.commit(receipts, len(image))
            await heir.close()
        late = BytesBody(pattern(PART, "late"))
        try:
            receipt = await zombie.write(1, 0, late)
            await zombie.commit([receipt, *receipts[1:]], len(image))
        except StoreError:
            pass
        else:
            pytest.fail("a zombie's commit was accepted")
        await zombie.close()
        assert await self._content(volumes, volume) == image

    async def test_of_rivals_exactly_one_wins(
        self, volumes: VolumeStore, volume: VolumeRef, image: bytes
    ) -> None:
        images = [image, pattern(len(image), "rival")]
        writers = [
            await volumes.begin(volume, size_bytes=len(image), token=f"t{n}.1", resume=None)
            for n in range(2)
        ]
        receipts = [
            await write_all(writer, parts_of(content, PART))
            for writer, content in zip(writers, images, strict=True)
        ]
        outcomes = await asyncio.gather(
            *(w.commit(r, len(image)) for w, r in zip(writers, receipts, strict=True)),
            return_exceptions=True,
        )
        lost = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, AlreadyThere)]
        assert len(lost) == 1, outcomes
        for writer in writers:
            await writer.close()
        assert await self._content(volumes, volume) == images[1 - lost[0]]

    async def test_lost_and_aborted_writes_cannot_be_resumed(
        self, volumes: VolumeStore, volume: VolumeRef, image: bytes
    ) -> None:
        writer = await volumes.begin(volume, size_bytes=len(image), token="t1.1", resume=None)
        await writer.write(*parts_of(image, PART)[0])
        await writer.abort()
        await writer.abort()
        for token in (writer.resume, "unknown", "../../x"):
            with pytest.raises(ResumeLost):
                await volumes.begin(volume, size_bytes=len(image), token="t1.2", resume=token)

    async def test_a_part_beyond_the_size_is_refused(
        self, volumes: VolumeStore, volume: VolumeRef
    ) -> None:
        writer = await volumes.begin(volume, size_bytes=PART, token="t1.1", resume=None)
        body = BytesBody(pattern(PART, "y"), offset=4 * KIB)
        with pytest.raises(PartsRefused):
            await writer.write(1, 4 * KIB, body)
        await writer.abort()

    async def test_a_broken_source_and_a_cancelled_part_leave_the_write_usable(
        self, volumes: VolumeStore, volume: VolumeRef, image: bytes
    ) -> None:
        writer = await volumes.begin(volume, size_bytes=len(image), token="t1.1", resume=None)
        with pytest.raises(SourceBroke):
            await writer.write(1, 0, BrokenBody(image[:PART]))
        body = HangingBody(image[:PART])
        async with asyncio.TaskGroup() as group:
            task = group.create_task(writer.write(1, 0, body))
            await body.reached.wait()
            task.cancel()
        receipts = await write_all(writer, parts_of(image, PART))
        await writer.commit(receipts, len(image))
        await writer.close()
        assert await self._content(volumes, volume) == image

    # --- snapshots, clones, deleting ------------------------------------------------------------

    async def test_a_snapshot_keeps_its_generation_whatever_happens_to_the_volume(
        self, volumes: VolumeStore, volume: VolumeRef, image: bytes, scribble: Scribble
    ) -> None:
        await self._store(volumes, volume, image)
        pinned = await volumes.snapshot(volume, "s1")
        assert pinned.file_bytes == len(image)
        await scribble(await volumes.stat(volume), 5000, b"later")
        await volumes.snapshot(volume, "s1")  # there already: not pinned anew
        await volumes.snapshot(volume, "s2")
        changed = image[:5000] + b"later" + image[5005:]
        assert await self._content(volumes, volume) == changed
        await volumes.delete(volume)
        assert await self._content(volumes, volume, "s1") == image
        assert await self._content(volumes, volume, "s2") == changed
        for snapshot_id in ("s1", "s1", "s2"):
            await volumes.drop_snapshot(volume, snapshot_id)
        with pytest.raises(ObjectMissing):
            await self._content(volumes, volume, "s1")

    async def test_an_open_generation_outlives_its_deletion(
        self, volumes: VolumeStore, volume: VolumeRef, image: bytes
    ) -> None:
        await self._store(volumes, volume, image)
        await volumes.snapshot(volume, "s1")
        async with volumes.open_read(volume, "s1") as reader:
            await volumes.drop_snapshot(volume, "s1")
            await volumes.delete(volume)
            pieces = await asyncio.gather(
                *(asyncio.to_thread(reader.pread, at, 1000) for at in range(0, 50_000, 1000))
            )
            assert b"".join(pieces) == image[:50_000]

    async def test_delete_forgets_the_volume_and_its_unfinished_writes(
        self, volumes: VolumeStore, volume: VolumeRef, image: bytes
    ) -> None:
        writer = await volumes.begin(volume, size_bytes=len(image), token="t1.1", resume=None)
        await writer.write(*parts_of(image, PART)[0])
        await writer.close()
        await self._store(volumes, volume, image, token="t2.1")
        for _ in range(2):
            await volumes.delete(volume)
        with pytest.raises(ObjectMissing):
            await volumes.stat(volume)
        with pytest.raises(ResumeLost):
            await volumes.begin(volume, size_bytes=len(image), token="t1.2", resume=writer.resume)

    async def test_what_is_not_there_is_missing(
        self, volumes: VolumeStore, volume: VolumeRef
    ) -> None:
        with pytest.raises(ObjectMissing):
            await volumes.stat(volume)
        with pytest.raises(ObjectMissing):
            await volumes.snapshot(volume, "s1")
        for snapshot_id in (None, "s1"):
            with pytest.raises(ObjectMissing):
                await self._content(volumes, volume, snapshot_id)
        await volumes.drop_snapshot(volume, "s1")
        await volumes.delete(volume)

    async def test_a_clone_is_a_volume_of_its_own(
        self, volumes: VolumeStore, volume: VolumeRef, image: bytes, scribble: Scribble
    ) -> None:
        if not isinstance(volumes, ClonesVolumes):
            return
        await self._store(volumes, volume, image)
        await volumes.snapshot(volume, "s1")
        clone = _raw()
        stat = await volumes.clone(volume, "s1", clone)
        assert await volumes.clone(volume, "s1", clone) == stat
        await scribble(stat, 0, b"mine")
        assert await self._content(volumes, volume, "s1") == image
        assert await self._content(volumes, volume) == image
        assert await self._content(volumes, clone) == b"mine" + image[4:]

    async def test_a_volume_that_is_open_elsewhere_is_in_use(
        self,
        volumes: VolumeStore,
        volume: VolumeRef,
        image: bytes,
        open_elsewhere: OpenElsewhere | None,
    ) -> None:
        if open_elsewhere is None:
            return
        await self._store(volumes, volume, image)
        async with open_elsewhere(await volumes.stat(volume)):
            with pytest.raises(InUse):
                await volumes.delete(volume)
            with pytest.raises(InUse):
                await self._content(volumes, volume)
        assert await self._content(volumes, volume) == image
        await volumes.delete(volume)

    # --- probe ----------------------------------------------------------------------------------

    async def test_a_probe_of_a_good_store_passes(self, volumes: VolumeStore) -> None:
        report = await volumes.probe()
        assert report.ok, report.first_failure
        assert report.checks

    async def test_a_broken_store_is_told_by_its_probe_and_by_port_errors(
        self, volumes_broken: VolumeStore, volume: VolumeRef
    ) -> None:
        failure = (await volumes_broken.probe()).first_failure
        assert failure is not None
        assert failure.detail
        assert failure.hint
        calls = (
            lambda: volumes_broken.stat(volume),
            lambda: volumes_broken.create(volume, size_bytes=MIB),
            lambda: volumes_broken.begin(volume, size_bytes=MIB, token="t1.1", resume=None),
            lambda: volumes_broken.snapshot(volume, "s1"),
            lambda: self._content(volumes_broken, volume),
        )
        for call in calls:
            with pytest.raises(StoreError):
                await call()

    # --- steps ----------------------------------------------------------------------------------

    async def _store(
        self, volumes: VolumeStore, volume: VolumeRef, image: bytes, *, token: str = "t1.1"
    ) -> None:
        writer = await volumes.begin(volume, size_bytes=len(image), token=token, resume=None)
        receipts = await write_all(writer, parts_of(image, PART))
        await writer.commit(receipts, len(image))
        await writer.close()

    async def _content(
        self, volumes: VolumeStore, volume: VolumeRef, snapshot_id: str | None = None
    ) -> bytes:
        async with volumes.open_read(volume, snapshot_id) as reader:
            return await volume_bytes(reader)


def _raw() -> VolumeRef:
    return VolumeRef(volume_id=f"v-{secrets.token_hex(6)}", format=ImageFormat.RAW)
