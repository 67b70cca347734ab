"""The stores in memory keep the same promises as the real ones."""

import asyncio
from contextlib import asynccontextmanager
from pathlib import PurePosixPath

import pytest

from entrepot_plugin.bodies import BytesBody
from entrepot_plugin.conformance import ObjectStoreConformance, VolumeStoreConformance
from entrepot_plugin.errors import ResumeLost
from entrepot_testkit.memory_store import TRAITS, MemoryWorld


@pytest.fixture
def world():
    world = MemoryWorld()
    world.make("b")
    return world


def opened(store):
    @asynccontextmanager
    async def opening():
        yield store

    return opening


class TestMemoryObjects(ObjectStoreConformance):
    traits = TRAITS

    @pytest.fixture
    def store(self, world):
        return world.objects("b")

    @pytest.fixture
    def store_fresh(self, world):
        return opened(world.objects("b"))

    @pytest.fixture
    def store_broken(self, world):
        return world.objects("absent")


class TestMemoryVolumes(VolumeStoreConformance):
    traits = TRAITS

    @pytest.fixture
    def volumes(self, world):
        return world.volumes("b")

    @pytest.fixture
    def volumes_fresh(self, world):
        return opened(world.volumes("b"))

    @pytest.fixture
    def volumes_broken(self, world):
        return world.volumes("absent")

    @pytest.fixture
    def scribble(self, world):
        async def write(stat, offset, data):
            key, bucket = stat.path.removeprefix("memory:"), world.bucket("b")
            old = bucket.data[key]
            bucket.store(key, old[:offset] + data + old[offset + len(data) :])

        return write

    @pytest.fixture
    def open_elsewhere(self, world):
        @asynccontextmanager
        async def held(stat):
            volume_id = PurePosixPath(stat.path).name.split(".")[0]
            world.bucket("b").open_elsewhere.add(volume_id)
            yield
            world.bucket("b").open_elsewhere.discard(volume_id)

        return held


async def test_the_same_calls_give_the_same_tokens_and_versions():
    async def run():
        world = MemoryWorld()
        world.make("b")
        store = world.objects("b")
        writers = [await store.begin(f"k{n}", 3, None) for n in range(3)]
        stats = [await store.put(f"p{n}", b"x") for n in range(3)]
        return [writer.resume for writer in writers], stats

    assert await run() == await run()


async def test_the_plugin_of_a_world_opens_like_any_other():
    world = MemoryWorld()
    bucket = world.make("images")
    plugin = world.plugin("memory-a")
    config = plugin.parse({"bucket": "images"}, {})
    async with plugin.open_objects(config) as store:
        await store.put("k", b"bytes")
        assert "k" in await store.link("k", expires_s=5, file_name="f")
    assert bucket.data == {"k": b"bytes"}


async def test_a_part_that_ends_after_the_commit_is_refused(world):
    store = world.objects("b")
    writer, zombie = [await store.begin("k", 5, token) for token in (None, "u1")]
    late = HangingBody(b"other")
    late.release = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        writing = group.create_task(_outcome(zombie.write(1, 0, late)))
        await late.reached.wait()
        await writer.commit([await writer.write(1, 0, BytesBody(b"bytes"))], 5)
        late.release.set()
    assert isinstance(writing.result(), ResumeLost)


class HangingBody(BytesBody):
    """Waits in the middle until the test lets it go on."""

    release: asyncio.Event

    def __init__(self, data):
        super().__init__(data)
        self.reached = asyncio.Event()

    async def __aiter__(self):
        self.reached.set()
        await self.release.wait()
        yield self._data


async def _outcome(call):
    try:
        return await call
    except ResumeLost as err:
        return err
