"""Wakes whoever waits for work: in this process by a condition, in others by a bell on the bus."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from entrepot_chassis.ports import Bus
from entrepot_contracts.catalog import telemetry_of
from entrepot_contracts.motion import Bell


class Doorbell:
    """A ring is a hint: a lost one costs waiters no more than their re-check interval."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._rung = asyncio.Condition()
        self._subject = telemetry_of(Bell).subject
        self.count = 0  # of rings heard; compare before and after looking, and none is missed
        self.closed = False

    @asynccontextmanager
    async def hearing(self) -> AsyncIterator[None]:
        """Hear the rings of other engines."""

        async def heard(_: Bell) -> None:
            await self._wake()

        async with self._bus.listen(self._subject, Bell, heard):
            yield

    async def ring(self) -> None:
        await self._wake()
        await self._bus.publish(self._subject, Bell())

    async def close(self) -> None:
        """Nobody waits any more: the first line of a drain."""
        self.closed = True
        await self._wake()

    async def wait(self, heard: int, *, at_most_s: float) -> None:
        """Until a ring after `heard`, or the time is up."""
        try:
            async with asyncio.timeout(at_most_s), self._rung:
                await self._rung.wait_for(lambda: self.count != heard or self.closed)
        except TimeoutError:
            return

    async def _wake(self) -> None:
        async with self._rung:
            self.count += 1
            self._rung.notify_all()
