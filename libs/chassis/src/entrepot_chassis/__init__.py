"""Plumbing every service stands on. No domain word lives here; it may not import contracts."""
