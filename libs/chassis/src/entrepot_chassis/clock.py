"""The only place that reads a clock or makes an id. Services take these as arguments."""

import asyncio
import hashlib
import os
import time
from datetime import UTC, datetime


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class SystemIds:
    """UUIDv7 (RFC 9562): 48 bits of milliseconds, then randomness."""

    def new(self) -> str:
        return uuid7(time.time_ns() // 1_000_000, os.urandom(10))


def uuid7(unix_ms: int, entropy: bytes) -> str:
    """Text of the UUIDv7 of a time in milliseconds and 10 random bytes."""
    tail = bytearray(entropy)
    tail[0] = 0x70 | (tail[0] & 0x0F)
    tail[2] = 0x80 | (tail[2] & 0x3F)
    text = unix_ms.to_bytes(6, "big").hex() + tail.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


class SeededIds:
    """The same seed (a UUIDv7) gives the same ids in the same order, in every process."""

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._made = 0

    def new(self) -> str:
        self._made += 1
        unix_ms = int(self._seed.replace("-", "")[:12], 16)
        digest = hashlib.sha256(f"{self._seed}/{self._made}".encode()).digest()
        return uuid7(unix_ms, digest[:10])
