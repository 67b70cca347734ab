"""Scale strategies that are arithmetic; each one file, found by entry point like a stranger's."""
