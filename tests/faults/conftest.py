"""One real stack for all fault tests: Swift, downloads, two movers, short leases."""

import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from demo import servers
from demo.image import MIB, build
from entrepot_testkit.embedded import embedded_stack
from tests.faults.scenery import LEASE_S, Scenery

ENV = {
    "ENTREPOT_MOTION_ENGINE_LEASE_S": str(LEASE_S),
    "ENTREPOT_MOTION_ENGINE_RENEW_S": "1",
    "ENTREPOT_MOTION_ENGINE_RETRY_BASE_S": "0.5",
    "ENTREPOT_MOTION_ENGINE_MOVER_SILENT_S": "6",
}


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.faults)
            item.add_marker(pytest.mark.timeout(600))  # the first one builds the installation too


@pytest.fixture(scope="session")
def scenery():
    # Not below pytest's folder: it is closed to the user PostgreSQL runs as.
    folder = Path(tempfile.mkdtemp(prefix="entrepot-faults-", dir="/var/tmp"))
    folder.chmod(0o711)
    try:
        with ExitStack() as stack:
            downloads = folder / "downloads"
            downloads.mkdir()
            small = build(downloads, file_bytes=40 * MIB, virtual_bytes=96 * MIB, name="small")
            large = build(downloads, file_bytes=150 * MIB, virtual_bytes=512 * MIB, name="large")
            swift = stack.enter_context(servers.swift(folder / "swift"))
            url = stack.enter_context(servers.download_server(downloads))
            running = stack.enter_context(embedded_stack(folder / "data", movers=2, env=ENV))
            made = Scenery(
                folder=folder,
                stack=running,
                swift=swift,
                downloads=url,
                small=small,
                large=large,
                env=ENV,
            )
            made.furnish()
            yield made
    finally:
        if not os.environ.get("ENTREPOT_FAULTS_KEEP"):  # its logs tell the story of a failure
            shutil.rmtree(folder, ignore_errors=True)
