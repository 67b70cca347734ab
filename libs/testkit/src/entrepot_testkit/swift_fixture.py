"""The session fixture `swift`: import it into a conftest.py. (swift.py itself needs no pytest.)"""

from collections.abc import Iterator

import pytest

from entrepot_testkit.swift import SwiftServer, swift_server


@pytest.fixture(scope="session")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SwiftServer]:
    """One real Swift for the whole run; each test makes its own bucket in it."""
    with swift_server(tmp_path_factory.mktemp("swift")) as server:
        yield server
