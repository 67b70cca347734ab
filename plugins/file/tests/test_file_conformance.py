"""The file provider keeps the promises of both ports."""

import asyncio
import os
from contextlib import asynccontextmanager

import pytest

from entrepot_file import PLUGIN
from entrepot_plugin.conformance import ObjectStoreConformance, VolumeStoreConformance


def config(path, **more):
    return PLUGIN.parse({"path": str(path), **more}, {})


class TestFileObjects(ObjectStoreConformance):
    traits = PLUGIN.traits

    @pytest.fixture
    async def store(self, tmp_path):
        async with PLUGIN.open_objects(config(tmp_path)) as store:
            yield store

    @pytest.fixture
    def store_fresh(self, tmp_path):
        return lambda: PLUGIN.open_objects(config(tmp_path))

    @pytest.fixture
    async def store_broken(self, tmp_path):
        async with PLUGIN.open_objects(config(tmp_path / "absent")) as store:
            yield store


class TestFileVolumes(VolumeStoreConformance):
    traits = PLUGIN.traits

    @pytest.fixture
    async def volumes(self, tmp_path):
        async with PLUGIN.open_volumes(config(tmp_path)) as volumes:
            yield volumes

    @pytest.fixture
    def volumes_fresh(self, tmp_path):
        return lambda: PLUGIN.open_volumes(config(tmp_path))

    @pytest.fixture
    async def volumes_broken(self, tmp_path):
        async with PLUGIN.open_volumes(config(tmp_path / "absent")) as volumes:
            yield volumes

    @pytest.fixture
    def scribble(self):
        async def write(stat, offset, data):
            descriptor = os.open(stat.path, os.O_WRONLY)
            os.pwrite(descriptor, data, offset)
            os.close(descriptor)

        return write

    @pytest.fixture
    def open_elsewhere(self):
        return qemu_holding


@asynccontextmanager
async def qemu_holding(stat):
    """qemu itself, with the image open for writing."""
    process = await asyncio.create_subprocess_exec(
        "qemu-io",
        "-f",
        stat.format,
        stat.path,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        process.stdin.write(b"write 0 0\n")
        assert await process.stdout.readline()
        yield
    finally:
        process.stdin.write(b"quit\n")
        await process.communicate()
