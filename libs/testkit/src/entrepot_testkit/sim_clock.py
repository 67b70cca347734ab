"""Time and identity of a simulation: both follow from the seed and the loop, nothing else."""

import asyncio
import random
from datetime import UTC, datetime, timedelta

from entrepot_chassis.clock import uuid7

EPOCH = datetime(2031, 1, 1, tzinfo=UTC)


class SimClock:
    """ports.Clock over the virtual time of the running loop; `skew_s` is this process' error."""

    def __init__(self, *, skew_s: float = 0.0) -> None:
        self.skew_s = skew_s

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.monotonic() + self.skew_s)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class SeededIds:
    """ports.Ids: UUIDv7 of the virtual time, the rest from the seed and the owner's name."""

    def __init__(self, seed: int, owner: str = "") -> None:
        self._entropy = random.Random(f"{seed}:ids:{owner}")  # noqa: S311

    def new(self) -> str:
        milliseconds = int(EPOCH.timestamp() * 1000 + asyncio.get_running_loop().time() * 1000)
        return uuid7(milliseconds, self._entropy.randbytes(10))
