"""How many received bytes the kernel gathers before it wakes us, while a body comes in fast.

Waking up, receiving and parsing cost about 60 us of Python whether 64 KiB are there or 256. Most
servers send 64 KiB at a time, so a GiB is 11,000 wake-ups as it comes and 4,000 gathered.
"""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

GATHER_BYTES = 256 << 10  # what asyncio takes from a socket at once
FAST_BPS = 4 << 20  # slower bodies are taken as they come, so that a trickle keeps the watch alive
# Below this much to come nothing is gathered: bytes that never come would be waited for, and the
# connection goes back to its pool with the last byte. More than aiohttp and TLS hold together.
TAIL_BYTES = 2 << 20


class Gathering:
    """Reads one response's body, all of it with `take`."""

    def __init__(
        self, response: Any, length: int, *, monotonic: Callable[[], float] | None = None
    ) -> None:
        self._content = response.content
        self._monotonic = monotonic or asyncio.get_running_loop().time
        self._length = min(length, response.content_length or 0)
        connection = response.connection  # None: everything has arrived
        transport = connection.transport if connection is not None else None
        self._socket = transport.get_extra_info("socket") if transport is not None else None
        self._gathers = False

    async def take(self) -> bytes:
        """The next bytes; none at the end."""
        if self._gathers and self._to_come() < TAIL_BYTES:
            self._gather(False)
        asked_at = self._monotonic()
        block: bytes = await self._content.readany()
        waited_s = self._monotonic() - asked_at
        fast = len(block) >= FAST_BPS * waited_s and self._to_come() >= TAIL_BYTES
        if fast != self._gathers:
            self._gather(fast)
        return block

    def _to_come(self) -> int:
        return self._length - int(self._content.total_bytes)

    def _gather(self, gathers: bool) -> None:  # noqa: FBT001 - a switch
        self._gathers = gathers
        if self._socket is not None:
            with suppress(OSError):  # it only saves work
                self._socket.setsockopt(
                    socket.SOL_SOCKET, socket.SO_RCVLOWAT, GATHER_BYTES if gathers else 1
                )
