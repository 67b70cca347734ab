"""A mover on a memory bus before a scripted ledger, with real directories as stores."""

import importlib.util
import sys
from pathlib import Path

import pytest

from entrepot_testkit.swift_fixture import swift  # noqa: F401 - a fixture

_spec = importlib.util.spec_from_file_location("mover_rig", Path(__file__).parent / "rig.py")
rig_module = sys.modules["mover_rig"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(rig_module)


@pytest.fixture
def rig(tmp_path):
    return rig_module.Rig(tmp_path)
