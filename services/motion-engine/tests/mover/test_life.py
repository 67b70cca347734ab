"""Leases, fences, cancels, drains, stalls, corrupting stores: what a mover does and does not do."""

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager

import pytest
from mover_rig import IDS, MIB, ImageServer, ScriptedLedger, noise, until, url_end

from entrepot_chassis import bus as nats_bus
from entrepot_chassis.ports import Unanswered
from entrepot_contracts import motion
from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.values import ImageFormat, StoreRole
from entrepot_plugin.bodies import BytesBody
from entrepot_plugin.ports import ObjectStat
from motion_engine.mover.lease import LOST_AFTER_S, End, Hold
from motion_engine.mover.problems import Fenced


class ManualClock:
    """Time passes when somebody sleeps."""

    def __init__(self):
        self.at = 0.0

    def monotonic(self):
        return self.at

    async def sleep(self, seconds):
        self.at += seconds
        await asyncio.sleep(0)


class Deaf:
    """A bus on which renewals are answered by a script."""

    def __init__(self, answers):
        self.answers = list(answers)
        self.asked = 0

    async def request(self, subject, message, *, reply, timeout_s):
        self.asked += 1
        answer = self.answers.pop(0) if self.answers else Unanswered(subject, "silence")
        if isinstance(answer, Exception):
            raise answer
        return answer


def grant(work=None):
    ask = motion.TransferAsk(
        transfer_id=IDS.new(), account_id=IDS.new(), job_id=IDS.new(), work=work
    )
    return motion.Grant(
        ask=ask,
        epoch=1,
        attempt=1,
        strategy="direct",
        credentials={},
        checkpoint=motion.Checkpointed(),
    )


async def held(answers):
    clock = ManualClock()
    hold = Hold(grant(), Deaf(answers), clock)
    work = asyncio.ensure_future(asyncio.sleep(3600))
    hold.guard(work)
    await hold.keep(10.0)
    await asyncio.wait([work])
    return hold, clock, work


async def test_a_lease_nobody_renews_stops_the_work_within_twenty_seconds():
    hold, clock, work = await held([])
    assert hold.end is End.FENCED
    assert work.cancelled()
    assert LOST_AFTER_S < clock.at < 30, "the lease of 30 s had run out before the work stopped"
    with pytest.raises(Fenced):
        hold.check()


async def test_a_refused_renewal_stops_the_work_at_once():
    hold, clock, _ = await held([motion.Renewed(), Refused(Code.FENCED, "no")])
    assert (hold.end, clock.at) == (End.FENCED, 20.0)


async def test_a_process_that_was_frozen_notices_before_it_does_anything_irrevocable():
    """SIGSTOP: no timer fired, yet the first check sees that too much time has passed."""
    clock = ManualClock()
    hold = Hold(grant(), Deaf([]), clock)
    hold.check()
    clock.at += LOST_AFTER_S + 1
    with pytest.raises(Fenced):
        hold.check()


async def test_a_lost_lease_overrules_a_cancel():
    hold = Hold(grant(), Deaf([]), ManualClock())
    hold.stop(End.CANCELLED)
    hold.stop(End.FENCED)
    hold.stop(End.DRAINED)
    assert hold.end is End.FENCED


def slow_store(rig, *, gate, log=None, begin_only=False):
    """Objects whose parts wait at a gate."""
    plain = rig.plugins["file"].open_objects

    class Writer:
        def __init__(self, writer):
            self._writer = writer

        def __getattr__(self, name):
            return getattr(self._writer, name)

        async def write(self, number, offset, body):
            await gate(number)
            return await self._writer.write(number, offset, body)

    class Store:
        def __init__(self, store):
            self._store = store

        def __getattr__(self, name):
            if log is not None and name in {"delete", "put"}:
                log.append(name)
            return getattr(self._store, name)

        async def begin(self, key, size_bytes, resume):
            return Writer(await self._store.begin(key, size_bytes, resume))

    @asynccontextmanager
    async def opened(config):
        async with plain(config) as store:
            yield Store(store)

    rig.wrap("file", open_objects=opened)


def backup(rig, data):
    volume_id = IDS.new()
    rig.put_volume(volume_id, lambda path: path.write_bytes(data))
    return motion.CopyWork(
        source=motion.VolumeEnd(store=rig.pool, volume_id=volume_id, format=ImageFormat.RAW),
        target=motion.ObjectEnd(store=rig.image, prefix="t/"),
    )


async def test_a_fenced_mover_says_and_touches_nothing_more(rig):
    reached, log = asyncio.Event(), []

    async def gate(number):
        if number > 8:
            reached.set()
            await asyncio.sleep(3600)

    slow_store(rig, gate=gate, log=log)
    ask = rig.ledger.offer(backup(rig, noise(MIB) * 160))
    async with rig.mover() as (runner, _task, _stop), asyncio.timeout(60):
        await reached.wait()
        rig.ledger.holders[ask.transfer_id] = 99  # somebody else has it now
        for job in list(runner._jobs.values()):
            job.hold.stop(End.FENCED)
        await until(lambda: not runner.running)
    assert rig.sent(motion.FinishWork) == []
    assert rig.sent(motion.ReleaseWork) == []
    assert log == []
    assert [name for name in rig.objects() if name.endswith(".part")], "the upload was thrown away"


async def test_a_checkpoint_that_is_refused_ends_the_work(rig):
    async def gate(number):
        if number == 1:
            rig.ledger.holders.clear()

    slow_store(rig, gate=gate)
    rig.ledger.offer(backup(rig, noise(MIB) * 160))
    async with rig.mover() as (runner, _task, _stop), asyncio.timeout(60):
        await until(lambda: runner.running)
        await until(lambda: not runner.running)
    assert rig.sent(motion.FinishWork) == []


async def test_a_cancelled_transfer_cleans_up_and_says_so(rig):
    reached = asyncio.Event()

    async def gate(number):
        if number > 2:
            reached.set()
            await asyncio.sleep(3600)

    slow_store(rig, gate=gate)
    ask = rig.ledger.offer(backup(rig, noise(MIB) * 96))
    async with rig.mover() as (runner, _task, _stop), asyncio.timeout(60):
        await reached.wait()
        rig.ledger.cancel.add(ask.transfer_id)
        for job in list(runner._jobs.values()):
            await job.hold._renew()
        problem = await rig.ledger.outcome(ask.transfer_id)
    assert problem.code is Code.CANCELLED
    assert rig.objects() == []


async def test_a_drain_flushes_what_is_done_and_hands_the_work_back(rig):
    reached = asyncio.Event()

    async def gate(number):
        if number > 5:
            reached.set()
            await asyncio.sleep(3600)

    slow_store(rig, gate=gate)
    rig.drain_s = 0.0
    rig.parts_in_flight = 1
    ask = rig.ledger.offer(backup(rig, noise(MIB) * 160))
    async with rig.mover() as (runner, task, stop), asyncio.timeout(60):
        await reached.wait()
        for job in runner._jobs.values():
            job.progress.bytes_total = 1 << 50  # so much that nobody would wait for its end
        stop.set()
        await task
    assert rig.ledger.released == [ask.transfer_id]
    assert {one.number for one in rig.ledger.checkpoints[ask.transfer_id].parts} >= {1, 2, 3, 4, 5}
    assert rig.sent(motion.FinishWork) == []


async def test_a_transfer_in_which_nothing_moves_fails_so_that_another_attempt_may_help(rig):
    async def gate(number):
        await asyncio.sleep(3600)

    rig.stall_s = 0.4
    slow_store(rig, gate=gate)
    problem = await rig.run(backup(rig, noise(MIB) * 20))
    assert problem.code is Code.STORE_ERROR
    assert problem.retryable
    assert "no byte moved" in problem.message


async def test_a_store_that_keeps_other_bytes_is_found_by_verification(rig):
    plain = rig.plugins["file"].open_objects

    class Flipping:
        def __init__(self, body):
            self._body = body

        def __len__(self):
            return len(self._body)

        async def __aiter__(self):
            first = True
            async for chunk in self._body:
                data = bytearray(chunk)
                if first:
                    data[100] ^= 1
                    first = False
                yield bytes(data)

    class Writer:
        def __init__(self, writer):
            self._writer = writer

        def __getattr__(self, name):
            return getattr(self._writer, name)

        async def write(self, number, offset, body):
            return await self._writer.write(number, offset, Flipping(body) if number == 2 else body)

    class Store:
        def __init__(self, store):
            self._store = store

        def __getattr__(self, name):
            return getattr(self._store, name)

        async def begin(self, key, size_bytes, resume):
            return Writer(await self._store.begin(key, size_bytes, resume))

    @asynccontextmanager
    async def opened(config):
        async with plain(config) as store:
            yield Store(store)

    rig.wrap("file", open_objects=opened)
    problem = await rig.run(backup(rig, noise(MIB) * 40))
    assert problem.code is Code.DIGEST_MISMATCH
    assert problem.facts["range"] == f"{16 * MIB}-{20 * MIB}"
    assert rig.objects() == []


async def test_a_pool_that_keeps_other_bytes_is_found_by_verification(rig):
    made = await rig.run(backup(rig, noise(MIB) * 40))
    plain = rig.plugins["file"].open_volumes

    class Writer:
        def __init__(self, writer, path):
            self._writer = writer
            self._path = path

        def __getattr__(self, name):
            return getattr(self._writer, name)

        async def commit(self, parts, size_bytes):
            stat = await self._writer.commit(parts, size_bytes)
            with self._path.open("r+b") as file:
                file.seek(21 * MIB)
                file.write(b"bit rot")
            return stat

    class Store:
        def __init__(self, store):
            self._store = store

        def __getattr__(self, name):
            return getattr(self._store, name)

        async def begin(self, volume, **options):
            path = rig.volume_file(volume.volume_id)
            return Writer(await self._store.begin(volume, **options), path)

    @asynccontextmanager
    async def opened(config):
        async with plain(config) as store:
            yield Store(store)

    rig.wrap("file", open_volumes=opened)
    volume_id = IDS.new()
    problem = await rig.run(
        motion.CopyWork(
            source=motion.ObjectEnd(store=rig.image, prefix="", stored=made.stored),
            target=motion.VolumeEnd(store=rig.pool, volume_id=volume_id, format=ImageFormat.RAW),
        )
    )
    assert problem.code is Code.DIGEST_MISMATCH
    assert problem.facts["range"] == f"{20 * MIB}-{24 * MIB}"
    assert not rig.volume_file(volume_id).exists()


async def test_progress_is_told_while_bytes_move(rig):
    told = []

    async def gate(number):
        await asyncio.sleep(0.4)

    slow_store(rig, gate=gate)
    rig.parts_in_flight = 1
    ask = rig.ledger.offer(backup(rig, noise(MIB) * 64))
    async with rig.mover() as (runner, _task, _stop), asyncio.timeout(60):
        original = runner._world.bus.publish

        async def publish(subject, message):
            told.append(message)
            await original(subject, message)

        runner._world.bus.publish = publish
        await rig.ledger.outcome(ask.transfer_id)
    assert told
    assert {one.transfer_id for one in told} == {ask.transfer_id}
    assert all(0 <= one.bytes_done <= one.bytes_total for one in told if one.bytes_total)


async def test_small_works_are_done_and_repeatable(rig):
    volume_id, snapshot_id = IDS.new(), IDS.new()
    make = motion.CreateVolumeWork(
        store=rig.pool, volume_id=volume_id, format=ImageFormat.RAW, size_bytes=8 * MIB
    )
    for _ in range(2):
        made = await rig.run(make)
        assert (made.size_bytes, made.path) == (8 * MIB, str(rig.volume_file(volume_id)))
    pin = motion.SnapshotWork(
        store=rig.pool, volume_id=volume_id, format=ImageFormat.RAW, snapshot_id=snapshot_id
    )
    assert (await rig.run(pin)).size_bytes == 8 * MIB
    with rig.volume_file(volume_id).open("r+b") as file:
        file.write(b"later")
    backed = await rig.run(
        motion.CopyWork(
            source=motion.VolumeEnd(
                store=rig.pool,
                volume_id=volume_id,
                format=ImageFormat.RAW,
                snapshot_id=snapshot_id,
            ),
            target=motion.ObjectEnd(store=rig.image, prefix="t/a/snapshot/1/"),
        )
    )
    assert backed.stored.stored_bytes == 0, "the write after the snapshot is in the backup"
    for count in (2, 0):
        gone = await rig.run(
            motion.DeleteObjectsWork(store=rig.image, prefixes=("t/a/snapshot/1/",))
        )
        assert gone.count == count
    drop = motion.DropSnapshotWork(
        store=rig.pool, volume_id=volume_id, format=ImageFormat.RAW, snapshot_id=snapshot_id
    )
    delete = motion.DeleteVolumeWork(store=rig.pool, volume_id=volume_id, format=ImageFormat.RAW)
    for work in (drop, drop, delete, delete):
        assert isinstance(await rig.run(work), motion.Deleted)
    assert not rig.volume_file(volume_id).exists()


async def test_deleting_a_prefix_leaves_nothing_of_movers_that_died_there(rig):
    """Their parts have no name that a listing shows; nobody else would ever remove them."""
    config = rig.plugins["file"].parse(rig.image.config, {})
    async with rig.plugins["file"].open_objects(config) as store:
        for key in (
            "t/a/template/1/x.1/data",
            "t/a/template/1/x.2/data",
            "t/a/template/12/y.1/data",
        ):
            writer = await store.begin(key, None, None)
            await writer.write(1, 0, BytesBody(noise(MIB)))
            await writer.close()
    delete = motion.DeleteObjectsWork(store=rig.image, prefixes=("t/a/template/1/",))
    assert isinstance(await rig.run(delete), motion.Deleted)
    assert [path.split("/.data")[0] for path in rig.objects()] == ["t/a/template/12/y.1"]


async def test_a_listing_that_lags_behind_ends_the_attempt_and_not_the_store(rig):
    """It shows what was deleted for a while: another attempt looks again later."""
    plain = rig.plugins["file"].open_objects
    deleted = []

    class Lagging:
        def __init__(self, store):
            self._store = store

        def __getattr__(self, name):
            return getattr(self._store, name)

        async def list(self, prefix):
            yield ObjectStat(key=f"{prefix}x.1/data", size_bytes=1, version="1")

        async def delete(self, key):
            deleted.append(key)
            await self._store.delete(key)

    @asynccontextmanager
    async def opened(config):
        async with plain(config) as store:
            yield Lagging(store)

    rig.wrap("file", open_objects=opened)
    async with asyncio.timeout(20):
        problem = await rig.run(motion.DeleteObjectsWork(store=rig.image, prefixes=("t/a/",)))
    assert (problem.code, problem.retryable) == (Code.STORE_ERROR, True)
    assert deleted == ["t/a/x.1/data"]


async def test_a_probe_reports_good_and_bad_stores(rig):
    assert (await rig.run(motion.ProbeWork(store=rig.image))).report.ok
    assert (await rig.run(motion.ProbeWork(store=rig.pool))).report.ok
    missing = rig.spec(StoreRole.IMAGE, rig.folder / "absent")
    report = (await rig.run(motion.ProbeWork(store=missing))).report
    assert not report.ok
    assert report.first_failure.hint


async def test_an_empty_prefix_deletes_nothing(rig):
    problem = await rig.run(motion.DeleteObjectsWork(store=rig.image, prefixes=("/",)))
    assert problem.code is Code.INVALID


async def test_a_provider_that_is_not_here_is_named(rig):
    import msgspec

    other = msgspec.structs.replace(rig.image, provider="tape")
    problem = await rig.run(motion.DeleteObjectsWork(store=other, prefixes=("t/",)))
    assert (problem.code, problem.field) == (Code.UNKNOWN_PROVIDER, "provider")


async def test_the_real_process_works_and_drains_over_real_nats(rig, nats_url):
    """`python -m motion_engine.mover` on a nats-server: claims, copies, obeys SIGTERM."""
    ledger = ScriptedLedger()
    data = noise(24 * MIB)
    environ = {k: v for k, v in os.environ.items() if not k.startswith("ENTREPOT_")} | {
        "ENTREPOT_MOVER_NATS_URL": nats_url,
        "ENTREPOT_MOVER_PLUGINS": "file",
        "ENTREPOT_MOVER_DATA_DIR": str(rig.folder / "mover"),
        "ENTREPOT_MOVER_SOURCE_ALLOW_CIDRS": "127.0.0.0/8",
    }
    server = ImageServer()
    async with (
        nats_bus.connect(nats_url, name="rig") as bus,
        ledger.answering(bus),
        server.serving(),
        asyncio.timeout(60),
    ):
        server.files["disk.raw"] = data
        log = (rig.folder / "log").open("wb")
        process = subprocess.Popen(  # noqa: ASYNC220 - starting one does not block for long
            [sys.executable, "-m", "motion_engine.mover"], env=environ, stderr=log
        )
        try:
            ask = ledger.offer(
                motion.CopyWork(
                    source=url_end(server.url("disk.raw")),
                    target=motion.ObjectEnd(store=rig.image, prefix="t/"),
                )
            )
            result = await ledger.outcome(ask.transfer_id)
            assert isinstance(result, motion.Copied), result
            assert (rig.image_path / "objects" / result.stored.key).read_bytes() == data
            registered = next(m for m in ledger.said if isinstance(m, motion.RegisterMover))
            assert [one.name for one in registered.providers] == ["file"]
            assert registered.mover_id == (rig.folder / "mover" / "mover_id").read_text().strip()
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 20) == 0
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            log.close()
