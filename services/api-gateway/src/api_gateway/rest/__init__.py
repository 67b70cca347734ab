"""The `/v1` face: plain REST resources over the operations."""
