"""Sees the bytes of an HTTP connection before aiohttp does: a body longer than promised.

aiohttp takes what follows a body for the next response and reports nonsense, or nothing. Here the
surplus is cut off and counted instead. What arrives after the connection was closed is not seen.
"""

import re
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

HEAD_BYTES_MAX = 256 << 10

_END = b"\r\n\r\n"
_INTERIM = re.compile(rb"HTTP/1\.[01] 1\d\d")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)


class Wire(ResponseHandler):
    """One connection, one response."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.surplus_bytes = 0
        self._head: bytes | None = b""
        self._missing: int | None = None  # of a body with a promised length

    def data_received(self, data: bytes) -> None:
        arrived = len(data)
        if self._head is not None:
            self._head += data
            arrived = self._read_head()
        elif self._missing is not None:
            self._missing -= arrived
        if self._missing is not None and self._missing < 0:
            surplus = min(-self._missing, arrived)
            self.surplus_bytes += surplus
            self._missing = 0
            data = data[: len(data) - surplus]
        if data:
            super().data_received(data)

    def _read_head(self) -> int:
        """Bytes of the body that have come with the head; 0 while the head is not whole."""
        head = self._head or b""
        while (end := head.find(_END)) >= 0 and _INTERIM.match(head):
            head = head[end + len(_END) :]
        if end < 0:
            self._head = head if len(head) <= HEAD_BYTES_MAX else None
            return 0
        self._head = None
        top = head[: end + len(_END)]
        body = len(head) - len(top)
        length = _LENGTH.search(top)
        if length is not None and not _CHUNKED.search(top):
            self._missing = int(length[1]) - body
        return body


class WireConnector(aiohttp.TCPConnector):
    """Makes Wires; `wire` is the newest."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._wires: list[Wire] = []
        self._factory: Any = self._make

    @property
    def wire(self) -> Wire:
        return self._wires[-1]

    def _make(self) -> Wire:
        made = Wire(loop=self._loop)
        self._wires.append(made)
        return made
