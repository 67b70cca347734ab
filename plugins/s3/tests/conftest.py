"""Assertions of the conformance suite are shown like our own."""

import pytest

pytest.register_assert_rewrite("entrepot_plugin.conformance")

from entrepot_testkit.swift_fixture import swift  # noqa: E402

__all__ = ["swift"]
