"""Files that run in the environment of Swift, not in ours: standard library and swift only."""
