"""Assertions of the conformance suites are shown like our own, whoever imports them first."""

import pytest

pytest.register_assert_rewrite("entrepot_plugin.conformance")
