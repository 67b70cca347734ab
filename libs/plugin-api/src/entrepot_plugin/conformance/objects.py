"""The conformance suite of object stores."""

import asyncio
import secrets
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from email.message import Message
from typing import ClassVar

import pytest

from entrepot_plugin.bodies import CHUNK_BYTES, BytesBody
from entrepot_plugin.conformance.material import (
    BrokenBody,
    HangingBody,
    SourceBroke,
    keys,
    parts_of,
    pattern,
    read_all,
    store_object,
    write_all,
)
from entrepot_plugin.errors import ObjectMissing, PartsRefused, ResumeLost, StoreError, Unreachable
from entrepot_plugin.ports import (
    CopiesInside,
    ForgetsUploads,
    ObjectStore,
    ReportsCapacity,
    SharesLinks,
)
from entrepot_plugin.traits import StoreTraits

Fresh = Callable[[], AbstractAsyncContextManager[ObjectStore]]
FILE_NAME = 'Grün "1".qcow2'


class ObjectStoreConformance:
    traits: ClassVar[StoreTraits]
    listed_n: ClassVar[int] = 25  # more than one page, if the store's pages can be made small

    @property
    def part_bytes(self) -> int:
        return max(self.traits.part_bytes_min, 1 << 20) + 4096

    @pytest.fixture
    def folder(self) -> str:
        """A prefix of this test alone."""
        return f"c/{secrets.token_hex(6)}"

    @pytest.fixture
    def data(self, folder: str) -> bytes:
        """Three parts, the last one short."""
        return pattern(2 * self.part_bytes + 4097, folder)

    # --- uploads --------------------------------------------------------------------------------

    async def test_an_object_is_invisible_until_its_commit_and_whole_after_it(
        self, store: ObjectStore, folder: str, data: bytes
    ) -> None:
        key = f"{folder}/data"
        writer = await store.begin(key, len(data), None)
        receipts = await write_all(writer, parts_of(data, self.part_bytes))
        with pytest.raises(ObjectMissing):
            await store.stat(key)
        with pytest.raises(ObjectMissing):
            await read_all(store, key, 0, 1)
        assert await keys(store, folder) == []
        stat = await writer.commit(receipts, len(data))
        await writer.close()
        assert (stat.key, stat.size_bytes) == (key, len(data))
        assert (await store.stat(key)).version == stat.version != ""
        assert await keys(store, folder) == [key]
        assert await read_all(store, key, 0, len(data)) == data

    async def test_parts_may_come_backwards_and_all_at_once(
        self, store: ObjectStore, folder: str, data: bytes
    ) -> None:
        key = f"{folder}/data"
        writer = await store.begin(key, None, None)
        parts = parts_of(data, self.part_bytes)
        last = await writer.write(*parts.pop())
        rest = await asyncio.gather(*(writer.write(*part) for part in reversed(parts)))
        await writer.commit([last, *rest], len(data))
        await writer.close()
        assert await read_all(store, key, 0, len(data)) == data

    async def test_a_part_sent_again_replaces_the_first_try(
        self, store: ObjectStore, folder: str, data: bytes
    ) -> None:
        key = f"{folder}/data"
        writer = await store.begin(key, len(data), None)
        parts = parts_of(data, self.part_bytes)
        wrong = BytesBody(pattern(self.part_bytes, "another"), offset=parts[1][1])
        await writer.write(2, parts[1][1], wrong)
        receipts = await write_all(writer, parts)
        await writer.commit(receipts, len(data))
        await writer.close()
        assert await read_all(store, key, 0, len(data)) == data

    async def test_another_process_resumes_by_the_token(
        self, store: ObjectStore, store_fresh: Fresh, folder: str, data: bytes
    ) -> None:
        key = f"{folder}/data"
        parts = parts_of(data, self.part_bytes)
        first = await store.begin(key, len(data), None)
        receipts = await write_all(first, parts[:2])
        async with store_fresh() as other:
            second = await other.begin(key, len(data), first.resume)
            listed = await second.parts()
            if self.traits.lists_parts:
                assert [(p.number, p.length, p.tag) for p in listed] == [
                    (r.number, r.length, r.tag) for r in receipts
                ]
            else:
                assert tuple(listed) == ()
            receipts += await write_all(second, parts[2:])
            await second.commit(receipts, len(data))
            await second.close()
        await first.close()
        assert await read_all(store, key, 0, len(data)) == data

    async def test_an_unknown_or_foreign_token_is_lost(
        self, store: ObjectStore, folder: str
    ) -> None:
        for token in ("unknown", "../../etc/passwd", ".data.0123456789abcdef.part"):
            with pytest.raises(ResumeLost):
                await store.begin(f"{folder}/data", 10, token)

    async def test_an_aborted_upload_is_lost_and_may_be_aborted_again(
        self, store: ObjectStore, folder: str, data: bytes
    ) -> None:
        key = f"{folder}/data"
        writer = await store.begin(key, len(data), None)
        await writer.write(*parts_of(data, self.part_bytes)[0])
        await writer.abort()
        await writer.abort()
        with pytest.raises(ResumeLost):
            await store.begin(key, len(data), writer.resume)
        with pytest.raises(ObjectMissing):
            await store.stat(key)

    async def test_a_commit_may_be_repeated_by_whoever_holds_the_token(
        self, store: ObjectStore, folder: str, data: bytes
    ) -> None:
        key = f"{folder}/data"
        writer = await store.begin(key, len(data), None)
        receipts = await write_all(writer, parts_of(data, self.part_bytes))
        first = await writer.commit(receipts, len(data))
        assert await writer.commit(receipts, len(data)) == first
        await writer.close()
        with suppress(ResumeLost):  # spent, and stat() tells why; or else good for the same again
            late = await store.begin(key, len(data), writer.resume)
            assert await late.commit(receipts, len(data)) == first
        assert await store.stat(key) == first

    async def test_a_commit_that_lacks_a_part_is_refused_and_shows_nothing(
        self, store: ObjectStore, folder: str, data: bytes
    ) -> None:
        key = f"{folder}/data"
        writer = await store.begin(key, len(data), None)
        receipts = await write_all(writer, parts_of(data, self.part_bytes))
        for wrong in (receipts[:2], receipts[1:], [receipts[0], receipts[2]]):
            with pytest.raises(PartsRefused):
                await writer.commit(wrong, len(data))
        with pytest.raises(PartsRefused):
            await writer.commit(receipts, len(data) + 1)
        with pytest.raises(ObjectMissing):
            await store.stat(key)
        await writer.abort()

    async def test_an_empty_object_is_an_object(self, store: ObjectStore, folder: str) -> None:
        writer = await store.begin(f"{folder}/empty", 0, None)
        stat = await writer.commit((), 0)
        await writer.close()
        assert stat.size_bytes == (await store.stat(f"{folder}/empty")).size_bytes == 0

    async def test_the_error_of_a_source_comes_out_as_it_is_and_the_part_may_be_sent_again(
        self, store: ObjectStore, folder: str, data: bytes
    ) -> None:
        key = f"{folder}/data"
        writer = await store.begin(key, len(data), None)
        parts = parts_of(data, self.part_bytes)
        with pytest.raises(SourceBroke):
            await writer.write(1, 0, BrokenBody(data[: self.part_bytes]))
        receipts = await write_all(writer, parts)
        await writer.commit(receipts, len(data))
        await writer.close()
        assert await read_all(store, key, 0, len(data)) == data

    async def test_a_cancelled_part_leaves_the_upload_usable(
        self, store: ObjectStore, folder: str, data: bytes
    ) -> None:
        key = f"{folder}/data"
        writer = await store.begin(key, len(data), None)
        body = HangingBody(data[: self.part_bytes])
        async with asyncio.TaskGroup() as group:
            task = group.create_task(writer.write(1, 0, body))
            await body.reached.wait()
            task.cancel()
        receipts = await write_all(writer, parts_of(data, self.part_bytes))
        await writer.commit(receipts, len(data))
        await writer.close()
        assert await read_all(store, key, 0, len(data)) == data

    # --- reading --------------------------------------------------------------------------------

    async def test_ranges_are_exact_at_every_edge(
        self, store: ObjectStore, folder: str, data: bytes
    ) -> None:
        key = f"{folder}/data"
        await store_object(store, key, data, self.part_bytes)
        size, edge = len(data), self.part_bytes
        ranges = [(0, 1), (size - 1, size), (edge - 1, edge + 1), (edge, 2 * edge), (0, size)]
        for start, end in [*ranges, (5, 5), (0, 0)]:
            assert await read_all(store, key, start, end) == data[start:end], (start, end)

    async def test_chunks_are_at_most_one_mebibyte(
        self, store: ObjectStore, folder: str, data: bytes
    ) -> None:
        key = f"{folder}/data"
        await store_object(store, key, data, self.part_bytes)
        lengths = [len(chunk) async for chunk in store.read(key, 1, len(data))]
        assert sum(lengths) == len(data) - 1
        assert 0 < min(lengths) <= max(lengths) <= CHUNK_BYTES

    async def test_a_range_beyond_the_end_is_an_error_and_not_a_short_success(
        self, store: ObjectStore, folder: str
    ) -> None:
        await store.put(f"{folder}/data", b"0123456789")
        for start, end in ((0, 11), (9, 11), (10, 12), (100, 200)):
            with pytest.raises(Unreachable):
                await read_all(store, f"{folder}/data", start, end)

    async def test_a_reader_may_leave_early(
        self, store: ObjectStore, folder: str, data: bytes
    ) -> None:
        key = f"{folder}/data"
        await store_object(store, key, data, self.part_bytes)
        for _ in range(12):  # more often than a pool has connections
            stream = store.read(key, 0, len(data))
            async for _chunk in stream:
                break
            await stream.aclose()  # type: ignore[attr-defined]
        assert await read_all(store, key, 0, 10) == data[:10]

    async def test_what_is_not_there_is_missing(self, store: ObjectStore, folder: str) -> None:
        for key in (f"{folder}/none", f"{folder}/none/below"):
            with pytest.raises(ObjectMissing):
                await store.stat(key)
            for start, end in ((0, 1), (0, 0)):
                with pytest.raises(ObjectMissing):
                    await read_all(store, key, start, end)
            await store.delete(key)
        assert await keys(store, f"{folder}/none") == []

    # --- small objects, listing, deleting -------------------------------------------------------

    async def test_put_may_be_repeated(self, store: ObjectStore, folder: str) -> None:
        for data in (b"", b"small", pattern(2_500_000, "put")):
            key = f"{folder}/{len(data)}"
            first = await store.put(key, data)
            second = await store.put(key, data)
            assert first.size_bytes == second.size_bytes == len(data)
            assert (await store.stat(key)).version == second.version
            assert await read_all(store, key, 0, len(data)) == data

    async def test_a_reader_sees_the_old_or_the_new_bytes_of_a_put(
        self, store: ObjectStore, folder: str
    ) -> None:
        key = f"{folder}/data"
        versions = [pattern(200_000, "old"), pattern(200_000, "new")]
        await store.put(key, versions[0])

        async def change() -> None:
            for turn in range(10):
                await store.put(key, versions[turn % 2])

        async with asyncio.TaskGroup() as group:
            writing = group.create_task(change())
            while not writing.done():
                assert await read_all(store, key, 0, 200_000) in versions

    async def test_a_listing_is_complete_and_in_order(
        self, store: ObjectStore, folder: str
    ) -> None:
        names = [f"{folder}/{n % 3}/{n:03}" for n in range(self.listed_n)]
        names += [f"{folder}/1-a", f"{folder}/1.b", f"{folder}/10/x"]  # around the slash in order
        for name in names:
            await store.put(name, name.encode())
        assert await keys(store, f"{folder}/") == sorted(names)
        stats = [stat async for stat in store.list(f"{folder}/1/")]
        assert all(stat.size_bytes == len(stat.key) for stat in stats)
        assert await keys(store, f"{folder}/1/00") == [f"{folder}/1/00{n}" for n in (1, 4, 7)]
        assert await keys(store, f"{folder}/1") == [
            n for n in sorted(names) if n[len(folder) + 1] == "1"
        ]
        assert await keys(store, f"{folder}/none/") == []

    async def test_delete_forgets_the_object_and_its_unfinished_uploads_only(
        self, store: ObjectStore, folder: str
    ) -> None:
        data = pattern(self.part_bytes, folder)
        names = [f"{folder}/data", f"{folder}/data.manifest"]
        writers = [await store.begin(name, len(data), None) for name in names]
        receipts = [await writer.write(1, 0, BytesBody(data)) for writer in writers]
        for name in names:
            await store.put(f"{name}2", b"neighbour")
        await store.put(names[0], b"finished")
        for _ in range(2):
            await store.delete(names[0])
        with pytest.raises(ObjectMissing):
            await store.stat(names[0])
        with pytest.raises(ResumeLost):
            await store.begin(names[0], len(data), writers[0].resume)
        assert await keys(store, folder) == sorted(f"{name}2" for name in names)
        await writers[1].commit([receipts[1]], len(data))
        for writer in writers:
            await writer.close()
        assert await read_all(store, names[1], 0, len(data)) == data

    async def test_unfinished_uploads_under_a_prefix_can_all_be_forgotten_and_no_others(
        self, store: ObjectStore, folder: str, data: bytes
    ) -> None:
        """Movers die: what they began has no name that a listing would show."""
        assert isinstance(store, ForgetsUploads), "without it a dead mover's parts stay for ever"
        await store_object(store, f"{folder}/a/done/data", data, self.part_bytes)
        resume = {}
        for key in ("a/1/data", "a/2/data", "a/2/other", "ab/data"):
            writer = await store.begin(f"{folder}/{key}", len(data), None)
            await writer.write(*parts_of(data, self.part_bytes)[0])
            await writer.close()
            resume[key] = writer.resume
        assert await store.forget_uploads(f"{folder}/a/") == len(resume) - 1
        assert await store.forget_uploads(f"{folder}/a/") == 0
        kept = await store.begin(f"{folder}/ab/data", len(data), resume.pop("ab/data"))
        await kept.abort()
        await kept.close()
        for key, token in resume.items():
            with pytest.raises(ResumeLost):
                await store.begin(f"{folder}/{key}", len(data), token)
        assert await keys(store, folder) == [f"{folder}/a/done/data"]
        assert await store.forget_uploads(f"{folder}/nothing/here/") == 0

    async def test_another_client_sees_what_was_stored(
        self, store: ObjectStore, store_fresh: Fresh, folder: str
    ) -> None:
        stat = await store.put(f"{folder}/data", b"shared")
        async with store_fresh() as other:
            assert (await other.stat(f"{folder}/data")).version == stat.version
            assert await keys(other, folder) == [f"{folder}/data"]
            await other.delete(f"{folder}/data")
        with pytest.raises(ObjectMissing):
            await store.stat(f"{folder}/data")

    # --- probe and powers -----------------------------------------------------------------------

    async def test_a_probe_of_a_good_store_passes_and_leaves_nothing(
        self, store: ObjectStore, folder: str
    ) -> None:
        await store.put(f"{folder}/data", b"mine")
        before = await keys(store, "")
        report = await store.probe()
        assert report.ok, report.first_failure
        names = {check.name for check in report.checks}
        assert {"put", "get", "range", "list", "multipart", "delete"} <= names
        assert await keys(store, "") == before

    async def test_a_probe_of_a_broken_store_names_the_step_and_the_remedy(
        self, store_broken: ObjectStore
    ) -> None:
        failure = (await store_broken.probe()).first_failure
        assert failure is not None
        assert failure.name
        assert failure.detail
        assert failure.hint

    async def test_only_port_errors_come_out_of_a_broken_store(
        self, store_broken: ObjectStore
    ) -> None:
        calls = (
            lambda: store_broken.stat("k/data"),
            lambda: read_all(store_broken, "k/data", 0, 1),
            lambda: store_broken.begin("k/data", 10, None),
            lambda: store_broken.put("k/data", b"x"),
        )
        for call in calls:
            with pytest.raises(StoreError):
                await call()
        with suppress(StoreError):  # nothing there may be an empty listing or an error
            assert await keys(store_broken, "k/") == []

    async def test_the_traits_say_which_powers_it_has(self, store: ObjectStore) -> None:
        assert isinstance(store, SharesLinks) == self.traits.shares_links
        assert isinstance(store, CopiesInside) == self.traits.copies_inside
        assert isinstance(store, ReportsCapacity) == self.traits.reports_capacity

    async def test_a_link_gives_the_bytes_under_the_file_name_until_it_expires(
        self, store: ObjectStore, folder: str
    ) -> None:
        if not isinstance(store, SharesLinks):
            return
        data = pattern(100_000, folder)
        await store.put(f"{folder}/data", data)
        url = await store.link(f"{folder}/data", expires_s=60, file_name=FILE_NAME)
        status, headers, body = await asyncio.to_thread(_fetch, url)
        assert (status, body) == (200, data)
        assert headers.get_filename() is not None
        assert "filename*=UTF-8''Gr%C3%BCn%20%221%22.qcow2" in headers["Content-Disposition"]
        short = await store.link(f"{folder}/data", expires_s=1, file_name="x")
        await asyncio.sleep(2.5)
        assert (await asyncio.to_thread(_fetch, short))[0] in {401, 403}
        with pytest.raises(ObjectMissing):
            await store.link(f"{folder}/none", expires_s=60, file_name="x")

    async def test_a_copy_inside_is_equal_and_its_own(
        self, store: ObjectStore, folder: str, data: bytes
    ) -> None:
        if not isinstance(store, CopiesInside):
            return
        await store_object(store, f"{folder}/data", data, self.part_bytes)
        stat = await store.copy(f"{folder}/data", f"{folder}/copy")
        await store.delete(f"{folder}/data")
        assert stat.size_bytes == len(data)
        assert await read_all(store, f"{folder}/copy", 0, len(data)) == data
        with pytest.raises(ObjectMissing):
            await store.copy(f"{folder}/none", f"{folder}/copy2")
        assert await keys(store, folder) == [f"{folder}/copy"]

    async def test_capacity_is_told_in_bytes(self, store: ObjectStore) -> None:
        if not isinstance(store, ReportsCapacity):
            return
        total, free = await store.capacity()
        assert 0 <= free <= total


def _fetch(url: str) -> tuple[int, Message, bytes]:
    """A plain client without credentials."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as err:
        with err:
            return err.code, err.headers, b""
