"""Assertions of the conformance suite are shown like our own."""

import pytest

pytest.register_assert_rewrite("entrepot_plugin.conformance")
