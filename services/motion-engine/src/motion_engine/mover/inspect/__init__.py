"""The streaming inspector: decides from first and last bytes whether an image is safe to keep."""

from motion_engine.mover.inspect.streaming import HEAD_BYTES, Inspector, Verdict

__all__ = ["HEAD_BYTES", "Inspector", "Verdict"]
