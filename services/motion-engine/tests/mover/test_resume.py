"""A mover that dies anywhere: the next one finishes, sends little again, and never lies."""

import asyncio
from contextlib import asynccontextmanager

import msgspec
import pytest
from mover_rig import IDS, MIB, ImageServer, noise, sha256, until, url_end

from entrepot_contracts import motion
from entrepot_contracts.errors import Code
from entrepot_contracts.values import ImageFormat
from entrepot_plugin.errors import Unreachable

PARTS = 11
SIZE = PARTS * 16 * MIB + 12345 * 512
CHECKPOINTS = 4  # begun, after 8 parts, the rest, written (time may add some)


def disk(seed=1):
    block = noise(8 * MIB, seed)
    return b"".join(
        number.to_bytes(8, "little") + block[8:] for number in range(-(-SIZE // len(block)))
    )[:SIZE]


class Watched:
    """Passes an object store through, writing down which parts were sent and what was committed."""

    def __init__(self, store, log):
        self._store = store
        self._log = log

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def begin(self, key, size_bytes, resume):
        self._log.append(("begin", key, resume))
        return WatchedWriter(await self._store.begin(key, size_bytes, resume), self._log)


class WatchedWriter:
    def __init__(self, writer, log):
        self._writer = writer
        self._log = log

    def __getattr__(self, name):
        return getattr(self._writer, name)

    async def write(self, number, offset, body):
        self._log.append(("part", number, len(body)))
        return await self._writer.write(number, offset, body)

    async def commit(self, parts, size_bytes):
        self._log.append(("commit", len(parts), size_bytes))
        return await self._writer.commit(parts, size_bytes)


def watch(rig, log):
    plain = rig.plugins["file"].open_objects

    @asynccontextmanager
    async def opened(config):
        async with plain(config) as store:
            yield Watched(store, log)

    rig.wrap("file", open_objects=opened)


def sent(log):
    return [entry[1] for entry in log if entry[0] == "part"]


async def die_at(rig, ask_work, nth):
    """Run until the nth checkpoint was recorded, then vanish without a word."""
    ask = rig.ledger.offer(ask_work)
    seen = 0
    dead, gone = asyncio.Event(), asyncio.Event()

    async def on_checkpoint(message):
        nonlocal seen
        seen += 1
        if seen == nth:
            dead.set()
            await gone.wait()

    rig.ledger.on_checkpoint = on_checkpoint
    async with rig.mover() as (_, task, _stop):
        async with asyncio.timeout(60):
            waiting = asyncio.ensure_future(dead.wait())
            outcome = asyncio.ensure_future(rig.ledger.outcome(ask.transfer_id))
            await asyncio.wait([waiting, outcome], return_when=asyncio.FIRST_COMPLETED)
            finished = outcome.done()
            waiting.cancel()
            outcome.cancel()
        task.cancel()
        await asyncio.wait([task])
        gone.set()
    rig.ledger.on_checkpoint = None
    return ask, finished


async def take_over(rig, ask):
    rig.ledger.queue.append(ask)
    async with rig.mover(), asyncio.timeout(60):
        return await rig.ledger.outcome(ask.transfer_id)


def backup(rig, data):
    volume_id = IDS.new()
    rig.put_volume(volume_id, lambda path: path.write_bytes(data))
    return motion.CopyWork(
        source=motion.VolumeEnd(store=rig.pool, volume_id=volume_id, format=ImageFormat.RAW),
        target=motion.ObjectEnd(store=rig.image, prefix="t/a/snapshot/1/"),
    )


@pytest.mark.parametrize("nth", range(1, CHECKPOINTS + 1))
async def test_a_volume_backup_resumes_after_death_at_any_checkpoint(rig, nth):
    data, log = disk(), []
    watch(rig, log)
    ask, finished = await die_at(rig, backup(rig, data), nth)
    if finished:
        return
    first = len(sent(log))
    recorded = {one.number for one in rig.ledger.checkpoints[ask.transfer_id].parts}
    log.clear()
    result = await take_over(rig, ask)
    assert isinstance(result, motion.Copied), result
    stored = rig.image_path / "objects" / result.stored.key
    assert stored.read_bytes() == data
    assert f"{ask.transfer_id}.1/" in result.stored.key, "a resume begins no second upload"
    again = sent(log)
    assert not set(again) & recorded, "a part on record was sent again"
    assert first + len(again) - (PARTS + 1) <= 8 + rig.parts_in_flight
    assert result.bytes_sent == result.bytes_read == sum(e[2] for e in log if e[0] == "part")
    assert rig.objects() == [result.stored.key, result.stored.key + ".manifest"]


@pytest.mark.parametrize("etags", [True, False])
@pytest.mark.parametrize("nth", range(1, CHECKPOINTS + 1))
async def test_a_fetch_resumes_after_death_at_any_checkpoint(rig, nth, etags):
    data, log = disk(), []
    watch(rig, log)
    server = ImageServer()
    server.etags = etags
    async with server.serving():
        server.files["disk.raw"] = data
        end = url_end(server.url("disk.raw"), checksum=sha256(data))
        work = motion.CopyWork(
            source=end, target=motion.ObjectEnd(store=rig.image, prefix="t/a/template/1/")
        )
        ask, finished = await die_at(rig, work, nth)
        if finished:
            return
        past = rig.ledger.checkpoints[ask.transfer_id]
        recorded = {one.number for one in past.parts}
        first = len(sent(log))
        log.clear()
        server.requests.clear()
        result = await take_over(rig, ask)
    assert isinstance(result, motion.Copied), result
    assert (rig.image_path / "objects" / result.stored.key).read_bytes() == data
    assert not set(sent(log)) & recorded
    assert first + len(sent(log)) - (PARTS + 1) <= 8 + rig.parts_in_flight
    if past.facts["stage"] == "written" and len(recorded) == PARTS + 1:
        return
    assert len(server.requests) == 1
    ranged = server.requests[0][1]
    assert (ranged is not None) == (etags and bool(recorded))
    if ranged:
        assert result.bytes_read == len(data) - int(ranged.removeprefix("bytes=")[:-1])


async def test_a_resumed_fetch_still_finds_a_wrong_checksum_and_cleans_up(rig):
    """The flat hash of the first bytes died with the first mover: the stored bytes are hashed."""
    data = disk()
    server = ImageServer()
    async with server.serving():
        server.files["disk.raw"] = data
        end = url_end(server.url("disk.raw"), checksum=sha256(data + b"x"))
        work = motion.CopyWork(source=end, target=motion.ObjectEnd(store=rig.image, prefix="t/"))
        ask, _ = await die_at(rig, work, 2)
        assert rig.ledger.checkpoints[ask.transfer_id].parts
        problem = await take_over(rig, ask)
    assert server.requests[-1][1] is not None, "it was to resume by range"
    assert problem.code is Code.CHECKSUM_MISMATCH
    assert problem.facts["actual"] == sha256(data).value
    assert rig.objects() == []


@pytest.mark.parametrize("change", ["bytes", "shorter"])
async def test_a_source_that_changed_between_attempts_is_refused(rig, change):
    data = disk()
    server = ImageServer()
    async with server.serving():
        server.files["disk.raw"] = data
        work = motion.CopyWork(
            source=url_end(server.url("disk.raw")),
            target=motion.ObjectEnd(store=rig.image, prefix="t/"),
        )
        ask, _ = await die_at(rig, work, 2)
        server.files["disk.raw"] = (
            b"\x01" * MIB + data[MIB:] if change == "bytes" else data[: 32 * MIB]
        )
        problem = await take_over(rig, ask)
    assert problem.code is Code.SOURCE_CHANGED
    assert rig.objects() == []


async def test_an_upload_the_store_lost_is_begun_again_under_a_fresh_key(rig):
    data = disk()
    ask, _ = await die_at(rig, backup(rig, data), 2)
    for path in (rig.image_path / "objects").rglob("*.part"):
        path.unlink()
    result = await take_over(rig, ask)
    assert isinstance(result, motion.Copied), result
    assert f"{ask.transfer_id}.2/" in result.stored.key
    assert (rig.image_path / "objects" / result.stored.key).read_bytes() == data


async def test_death_after_the_commit_costs_only_a_verification(rig):
    data, log = disk(), []
    work = backup(rig, data)
    ask = rig.ledger.offer(work)
    watch(rig, log)
    async with rig.mover() as (_, task, _stop):
        async with asyncio.timeout(60):
            await until(lambda: list((rig.image_path / "objects").rglob("data")))
        task.cancel()
    assert ask.transfer_id not in rig.ledger.finished
    log.clear()
    result = await take_over(rig, ask)
    assert isinstance(result, motion.Copied), result
    assert (sent(log), result.bytes_sent) == ([], 0)
    assert (rig.image_path / "objects" / result.stored.key).read_bytes() == data


@pytest.mark.parametrize("nth", [1, 2, 3])
async def test_a_restore_resumes_and_its_volume_is_whole(rig, nth):
    data = bytearray(disk())
    data[40 * MIB : 120 * MIB] = bytes(80 * MIB)
    made = await rig.run(backup(rig, bytes(data)))
    volume_id = IDS.new()
    work = motion.CopyWork(
        source=motion.ObjectEnd(store=rig.image, prefix="", stored=made.stored),
        target=motion.VolumeEnd(store=rig.pool, volume_id=volume_id, format=ImageFormat.RAW),
    )
    ask, finished = await die_at(rig, work, nth)
    if finished:
        return
    assert not rig.volume_file(volume_id).exists(), "visible before it was whole"
    result = await take_over(rig, ask)
    assert isinstance(result, motion.Copied), result
    assert rig.volume_file(volume_id).read_bytes() == bytes(data)
    assert result.path == str(rig.volume_file(volume_id))
    leftovers = [p.name for p in (rig.pool_path / "volumes").iterdir() if p.name.startswith(".")]
    assert leftovers == []


async def test_a_store_that_fails_now_and_then_is_resumed_by_the_next_attempt(rig):
    data, failures = disk(), [3]
    plain = rig.plugins["file"].open_objects

    class Moody(WatchedWriter):
        async def write(self, number, offset, body):
            if number == 9 and failures[0]:
                failures[0] -= 1
                raise Unreachable("moody")
            return await self._writer.write(number, offset, body)

    class MoodyStore(Watched):
        async def begin(self, key, size_bytes, resume):
            return Moody(await self._store.begin(key, size_bytes, resume), [])

    @asynccontextmanager
    async def opened(config):
        async with plain(config) as store:
            yield MoodyStore(store, [])

    rig.wrap("file", open_objects=opened)
    ask = rig.ledger.offer(backup(rig, data), attempts_max=5)
    outcomes = []
    for _ in range(4):
        async with rig.mover(), asyncio.timeout(60):
            outcomes.append(await rig.ledger.outcome(ask.transfer_id))
        rig.ledger.finished.clear()
        rig.ledger.queue.append(ask)
    assert [one.code for one in outcomes[:3]] == [Code.STORE_ERROR] * 3
    assert all(one.retryable for one in outcomes[:3])
    assert (rig.image_path / "objects" / outcomes[3].stored.key).read_bytes() == data


async def test_the_last_attempt_cleans_up_what_it_leaves(rig):
    plain = rig.plugins["file"].open_objects

    class Broken(WatchedWriter):
        async def commit(self, parts, size_bytes):
            raise Unreachable("never")

    class BrokenStore(Watched):
        async def begin(self, key, size_bytes, resume):
            return Broken(await self._store.begin(key, size_bytes, resume), [])

    @asynccontextmanager
    async def opened(config):
        async with plain(config) as store:
            yield BrokenStore(store, [])

    rig.wrap("file", open_objects=opened)
    problem = await rig.run(backup(rig, noise(3 * MIB)), attempts_max=1)
    assert problem.code is Code.STORE_ERROR
    assert rig.objects() == []


async def test_a_takeover_asks_for_the_parts_its_grant_had_no_room_for(rig):
    data, log = disk(), []
    watch(rig, log)
    ask, finished = await die_at(rig, backup(rig, data), 2)
    assert not finished
    recorded = {one.number for one in rig.ledger.checkpoints[ask.transfer_id].parts}
    assert len(recorded) > 3
    log.clear()
    rig.ledger.page = 3
    result = await take_over(rig, ask)
    assert isinstance(result, motion.Copied), result
    assert (rig.image_path / "objects" / result.stored.key).read_bytes() == data
    assert not set(sent(log)) & recorded, "a part on record was sent again"
    assert len(rig.sent(motion.ReadParts)) == -(-len(recorded) // 3) - 1


def test_a_checkpoint_of_many_parts_is_cut_into_messages_a_bus_carries():
    from motion_engine.part_pages import MESSAGE_BYTES_MAX, first_page

    records = [
        motion.PartRecord(number=n, offset=0, length=1, receipt="e" * 34, leaves=bytes(32 * 256))
        for n in range(1, 500)
    ]
    rest, messages = records, 0
    while rest:
        taken = first_page(rest)
        assert len(msgspec.json.encode(taken)) <= MESSAGE_BYTES_MAX
        rest, messages = rest[len(taken) :], messages + 1
    assert messages > 1
