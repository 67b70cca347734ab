"""What aiobotocore is given as Body: sized, seekable to its start, iterated as it is sent.

Bytes bodies cost several times the memory and CPU; an async-iterable of immutable chunks goes to
the socket without a copy. botocore asks only for `len`, `seek`, `tell` (and would `read` to sign or
sum the payload, which the client's settings rule out).
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from entrepot_plugin.ports import Buffer, PartBody


class UploadBody:
    """`stall_s`: the time-out of the request is pushed on by this whenever a chunk has left; it
    stands still while the source is asked, since a slow source is not the store's fault.

    `failure` is the source's own error: aiohttp reports it as a broken connection, and a retry
    must not ask the source again.
    """

    def __init__(self, body: PartBody, *, stall_s: float) -> None:
        self._body = body
        self._stall: asyncio.Timeout | None = None
        self._stall_s = stall_s
        self.failure: BaseException | None = None

    @contextmanager
    def watched_by(self, stall: asyncio.Timeout) -> Iterator[None]:
        """A chunk may still be asked for when the request has its answer: then nobody watches."""
        self._stall = stall
        try:
            yield
        finally:
            self._stall = None

    def __len__(self) -> int:
        return len(self._body)

    def tell(self) -> int:
        return 0

    def seek(self, offset: int, whence: int = 0) -> int:
        """Every walk starts at the beginning; botocore seeks to measure and to rewind."""
        return len(self) + offset if whence == 2 else offset  # noqa: PLR2004

    def read(self, _size: int = -1) -> bytes:
        raise TypeError("a streamed body is never read: check signing and checksum settings")

    async def __aiter__(self) -> AsyncIterator[Buffer]:
        if self.failure is not None:
            raise self.failure
        try:
            self._pause()
            async for chunk in self._body:
                self._resume()
                yield chunk
                self._pause()
            self._resume()
        except Exception as err:
            self.failure = err
            raise

    def _pause(self) -> None:
        if self._stall is not None and not self._stall.expired():
            self._stall.reschedule(None)

    def _resume(self) -> None:
        if self._stall is not None and not self._stall.expired():
            self._stall.reschedule(asyncio.get_running_loop().time() + self._stall_s)
