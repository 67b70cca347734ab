"""The S3 plugin is tested against a real Swift."""

from entrepot_testkit.swift_fixture import swift

__all__ = ["swift"]
