"""Keep freed blocks inside the process: touching fresh pages costs more than compressing them."""

import ctypes

_TUNING = (  # glibc's malloc.h
    (-4, 0),  # M_MMAP_MAX: big blocks come from the heap, where they are found again
    (-1, 256 << 20),  # M_TRIM_THRESHOLD: memory kept rather than given back
    (-2, 16 << 20),  # M_TOP_PAD: the heap grows in steps
    (-8, 1),  # M_ARENA_MAX: one heap, not one per thread
)


def tune() -> bool:
    """True if the allocator took it; other C libraries are left as they are."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version") or not hasattr(library, "mallopt"):
        return False
    return all(library.mallopt(key, value) == 1 for key, value in _TUNING)
