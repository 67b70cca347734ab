"""Requests that take effect late: what an attempt began before it lost the work must not reach
the bytes of the attempt after it.
"""

import asyncio
from contextlib import asynccontextmanager

from mover_rig import IDS, MIB, noise

from entrepot_contracts import motion
from entrepot_contracts.errors import Code
from entrepot_contracts.values import ImageFormat
from entrepot_plugin.errors import Denied, ResumeLost

SIZE = 20 * MIB


class Haunted:
    """A store that is in trouble for the one who opens it first, and in which the
    deletions of that one hang on their way until they are let go.
    """

    def __init__(self, store, ghost):
        self._store = store
        self._ghost = ghost

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def begin(self, *what, **how):
        if how.get("resume", what[-1]) is not None:
            self._ghost.strike("begin", self)
        return await self._store.begin(*what, **how)

    async def read(self, key, start, end):
        self._ghost.strike("read", self)
        async for chunk in self._store.read(key, start, end):
            yield chunk

    def open_read(self, volume, snapshot_id):
        self._ghost.strike("open_read", self)
        return self._store.open_read(volume, snapshot_id)

    async def delete(self, key):
        if self._ghost.haunts(self):
            self._ghost.hanging.set()
            await self._ghost.let_go.wait()
        await self._store.delete(key)
        self._ghost.deleted.append(key)


class Ghost:
    def __init__(self, at, trouble):
        self._at, self._trouble = at, trouble
        self._first = None
        self.hanging, self.let_go = asyncio.Event(), asyncio.Event()
        self.deleted = []

    def strike(self, at, store):
        if at == self._at and self.haunts(store):
            raise self._trouble

    def haunts(self, store):
        self._first = self._first or store
        return store is self._first

    def into(self, rig, door):
        plain = getattr(rig.plugins["file"], door)

        @asynccontextmanager
        async def opened(config):
            async with plain(config) as store:
                yield Haunted(store, self)

        rig.wrap("file", **{door: opened})


def backup(rig, data):
    volume_id = IDS.new()
    rig.put_volume(volume_id, lambda path: path.write_bytes(data))
    return motion.CopyWork(
        source=motion.VolumeEnd(store=rig.pool, volume_id=volume_id, format=ImageFormat.RAW),
        target=motion.ObjectEnd(store=rig.image, prefix="t/a/snapshot/1/"),
    )


async def taken_over_while_deleting(rig, ghost, ask):
    """The result of the epoch that takes the work over while the one before hangs in a deletion,
    once that deletion has taken effect after all.
    """
    async with rig.mover(slots=1), asyncio.timeout(60):
        await ghost.hanging.wait()
        rig.ledger.queue.append(ask)
        async with rig.mover():
            result = await rig.ledger.outcome(ask.transfer_id)
        ghost.let_go.set()
        while not ghost.deleted:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return result


async def test_a_cleanup_that_takes_effect_late_misses_what_the_next_attempt_published(rig):
    """The first attempt fails for good after its commit and cleans up; meanwhile its work is taken
    over by somebody who could read what was committed.
    """
    ghost = Ghost("read", Denied("not now"))
    ghost.into(rig, "open_objects")
    ask = rig.ledger.offer(backup(rig, noise(SIZE)))
    problem = await taken_over_while_deleting(rig, ghost, ask)
    assert problem.code is Code.STORE_DENIED, "what is being removed was called good"
    assert rig.objects() == []


async def test_a_volume_that_is_removed_late_was_never_called_good(rig):
    """A volume has one name for all attempts: what the first removes is what the second finds."""
    image = (await rig.run(backup(rig, noise(SIZE)))).stored
    source = motion.ObjectEnd(store=rig.image, prefix="t/a/snapshot/1/", stored=image)
    volume_id = IDS.new()
    target = motion.VolumeEnd(store=rig.pool, volume_id=volume_id, format=ImageFormat.RAW)
    ghost = Ghost("open_read", Denied("not now"))
    ghost.into(rig, "open_volumes")
    ask = rig.ledger.offer(motion.CopyWork(source=source, target=target))
    problem = await taken_over_while_deleting(rig, ghost, ask)
    assert problem.code is Code.STORE_DENIED, "what is being removed was called good"
    assert not rig.volume_file(volume_id).exists()


async def test_dropping_a_lost_upload_late_misses_what_the_next_attempt_published(rig):
    """The second attempt finds the upload lost and drops it; the third finds it after all."""
    data = noise(SIZE)
    work = backup(rig, data)
    ask = rig.ledger.offer(work)
    recorded, gone = asyncio.Event(), asyncio.Event()

    async def on_checkpoint(message):
        if message.parts:
            recorded.set()
            await gone.wait()

    rig.ledger.on_checkpoint = on_checkpoint
    async with rig.mover() as (_, task, _stop), asyncio.timeout(60):
        await recorded.wait()
        task.cancel()
        await asyncio.wait([task])
        gone.set()
    rig.ledger.on_checkpoint = None
    ghost = Ghost("begin", ResumeLost("the store says so"))
    ghost.into(rig, "open_objects")
    rig.ledger.queue.append(ask)
    result = await taken_over_while_deleting(rig, ghost, ask)
    assert isinstance(result, motion.Copied), result
    assert (rig.image_path / "objects" / result.stored.key).read_bytes() == data


async def test_a_rival_that_committed_the_same_upload_first_is_no_failure(rig):
    """A drained or fenced attempt may still be inside its commit: the object appears by itself."""
    data = noise(SIZE)
    plain = rig.plugins["file"].open_objects

    class Overtaken:
        def __init__(self, store):
            self._store = store

        def __getattr__(self, name):
            return getattr(self._store, name)

        async def begin(self, key, size_bytes, resume):
            writer = await self._store.begin(key, size_bytes, resume)
            commit = writer.commit

            async def after_a_rival(parts, size_bytes):
                await self._store.put(key, data)
                return await commit(parts, size_bytes)

            writer.commit = after_a_rival
            return writer

    @asynccontextmanager
    async def opened(config):
        async with plain(config) as store:
            yield Overtaken(store)

    rig.wrap("file", open_objects=opened)
    result = await rig.run(backup(rig, data))
    assert isinstance(result, motion.Copied), result
    assert (rig.image_path / "objects" / result.stored.key).read_bytes() == data


async def test_a_rival_that_committed_other_bytes_is_found_out(rig):
    """The name was taken by something that is not what was read: never called good."""
    data = noise(SIZE)
    plain = rig.plugins["file"].open_objects

    class Overtaken:
        def __init__(self, store):
            self._store = store

        def __getattr__(self, name):
            return getattr(self._store, name)

        async def begin(self, key, size_bytes, resume):
            await self._store.put(key, noise(SIZE, 2))
            return await self._store.begin(key, size_bytes, resume)

    @asynccontextmanager
    async def opened(config):
        async with plain(config) as store:
            yield Overtaken(store)

    rig.wrap("file", open_objects=opened)
    problem = await rig.run(backup(rig, data))
    assert problem.code is Code.DIGEST_MISMATCH
    assert rig.objects() == []
