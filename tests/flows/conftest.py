"""The one real stack that most flow tests share: S3 (Swift), sources, a mover, the five services."""

import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from demo import servers
from demo.image import MIB, build
from entrepot_testkit.embedded import embedded_stack
from tests.flows.house import House
from tests.flows.sources import sources_on

SOURCE_HOST = "127.0.0.2"  # users' URLs may lead here; the rest of loopback stays forbidden
ENV = {
    "ENTREPOT_MOVER_SOURCE_STALL_S": "1",
    "ENTREPOT_MOTION_ENGINE_RETRY_BASE_S": "0.2",
    "ENTREPOT_MOTION_ENGINE_RETRY_CAP_S": "0.5",
}


@pytest.fixture(scope="session")
def image(tmp_path_factory):
    """A real file system of about two parts as qcow2, and as raw."""
    folder = tmp_path_factory.mktemp("image")
    return build(folder, file_bytes=24 * MIB, virtual_bytes=64 * MIB, name="small")


@pytest.fixture(scope="session")
def house(image):
    # Not below pytest's folder: it is closed to the user PostgreSQL runs as.
    folder = Path(tempfile.mkdtemp(prefix="entrepot-flows-", dir="/var/tmp"))
    folder.chmod(0o711)
    try:
        with ExitStack() as stack:
            swift = stack.enter_context(servers.swift(folder / "swift"))
            sources = stack.enter_context(sources_on(SOURCE_HOST, image.qcow2.parent))
            running = stack.enter_context(
                embedded_stack(folder / "data", env=ENV, allow_sources=[f"{SOURCE_HOST}/32"])
            )
            made = House(folder=folder, stack=running, swift=swift, sources=sources)
            made.furnish()
            yield made
    finally:
        if not os.environ.get("ENTREPOT_FLOWS_KEEP"):  # its logs tell the story of a failure
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def unchanged(house):
    """Fails a test that leaves more, or less, than it found."""
    before = house.footprint()
    yield
    assert house.footprint() == before
