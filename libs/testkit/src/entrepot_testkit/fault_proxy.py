"""A TCP proxy before a real server that misbehaves when a test says so.

async with fault_proxy(target_port) as proxy:
    proxy.endpoint                                  # use this instead of the server's
    proxy.stall()                                   # accept, read nothing, answer nothing
    proxy.cut_down_after(1000)                      # reset each connection after so many bytes
    proxy.answer(500, when=b"POST", times=1)        # instead of asking the server
    proxy.answer(500, when=b"POST", after_server=True)   # after the server has done it
"""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

BLOCK_BYTES = 1 << 18
HEAD_BYTES_MAX = 1 << 16
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass
class Answer:
    """A scripted answer to requests whose first line contains all of `when`."""

    status: int
    when: tuple[bytes, ...]
    times: int
    after_server: bool
    headers: tuple[tuple[str, str], ...] = ()


@dataclass
class FaultProxy:
    """The script may be changed at any time; it holds for what comes next."""

    target_port: int
    port: int = 0
    requests: list[bytes] = field(default_factory=list)  # first lines, in order
    _stalled: bool = False
    _cut_up: list[int] = field(default_factory=list)
    _cut_down: list[int] = field(default_factory=list)
    _answers: list[Answer] = field(default_factory=list)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _moved: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stall(self, *, on: bool = True) -> None:
        """New and open connections: nothing is read or passed on any more."""
        self._stalled = on
        self._moved.set()

    def cut_up_after(self, *limits: int) -> None:
        """The next connections are reset when so many bytes came from the client, one each."""
        self._cut_up += limits

    def cut_down_after(self, *limits: int) -> None:
        """The next answers are cut when so many bytes went to the client, one each."""
        self._cut_down += limits

    def answer(
        self,
        status: int,
        *,
        when: tuple[bytes, ...],
        times: int = 1,
        after_server: bool = False,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self._answers.append(Answer(status, when, times, after_server, headers))

    # --- one connection -------------------------------------------------------------------------

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        up: asyncio.StreamWriter | None = None
        try:
            await self._wait_unstalled()
            down, up = await asyncio.open_connection("127.0.0.1", self.target_port)
            self._writers.add(up)
            await self._talk(reader, writer, down, up)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            _reset(writer)
        finally:
            for one in filter(None, (writer, up)):
                self._writers.discard(one)
                one.close()

    async def _talk(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        down: asyncio.StreamReader,
        up: asyncio.StreamWriter,
    ) -> None:
        """Requests one after another, as HTTP/1.1 without pipelining has them."""
        cut_up = self._cut_up.pop(0) if self._cut_up else None
        cut_down = self._cut_down.pop(0) if self._cut_down else None
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                return
            await self._wait_unstalled()
            self.requests.append(head.split(b"\r\n", 1)[0])
            scripted = self._scripted(self.requests[-1])
            if scripted and not scripted.after_server:
                await self._reply(writer, scripted)
                return  # the body was not read: the connection cannot be used again
            up.write(head)
            async with asyncio.TaskGroup() as group:
                sending = group.create_task(self._send_body(head, reader, up, writer, cut_up))
                await self._pass_answer(head, down, writer, cut_down, scripted)
                sending.cancel()

    async def _send_body(
        self,
        head: bytes,
        reader: asyncio.StreamReader,
        up: asyncio.StreamWriter,
        back: asyncio.StreamWriter,
        cut: int | None,
    ) -> None:
        left, passed = _length(head), 0
        while left:
            await self._wait_unstalled()
            block = await reader.read(min(BLOCK_BYTES, left))
            if not block:
                raise ConnectionResetError
            left, passed = left - len(block), passed + len(block)
            if cut is not None and passed > cut:
                _reset(back)
                _reset(up)
                return
            up.write(block)
            await up.drain()

    async def _pass_answer(
        self,
        head: bytes,
        down: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        cut: int | None,
        scripted: Answer | None,
    ) -> None:
        while True:
            answer = await down.readuntil(b"\r\n\r\n")
            if answer.split(b" ", 2)[1] == b"100":
                writer.write(answer)
                continue
            break
        if scripted is None:
            writer.write(answer)
        passed = 0
        async for block in self._answer_body(answer, down, bodiless=head.startswith(b"HEAD ")):
            await self._wait_unstalled()
            passed += len(block)
            if scripted is not None:
                continue
            if cut is not None and passed > cut:
                writer.write(block[: len(block) - (passed - cut)])
                await writer.drain()
                raise ConnectionResetError
            writer.write(block)
            await writer.drain()
        if scripted is not None:
            await self._reply(writer, scripted)

    async def _answer_body(
        self, answer: bytes, down: asyncio.StreamReader, *, bodiless: bool
    ) -> AsyncIterator[bytes]:
        if bodiless or answer.split(b" ", 2)[1] in {b"204", b"304"}:
            return
        if b"chunked" in answer.lower():
            while True:
                line = await down.readuntil(b"\r\n")
                length = int(line.split(b";")[0], 16)
                yield line + await down.readexactly(length + 2)
                if not length:
                    return
        left = _length(answer)
        while left:
            block = await down.read(min(BLOCK_BYTES, left))
            if not block:
                raise ConnectionResetError
            left -= len(block)
            yield block

    async def _reply(self, writer: asyncio.StreamWriter, scripted: Answer) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in scripted.headers)
        writer.write(
            f"HTTP/1.1 {scripted.status} Scripted\r\n{lines}Content-Length: 0\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        await writer.drain()

    def _scripted(self, line: bytes) -> Answer | None:
        for answer in self._answers:
            if answer.times and all(text in line for text in answer.when):
                answer.times -= 1
                return answer
        return None

    async def _wait_unstalled(self) -> None:
        while self._stalled:
            self._moved.clear()
            await self._moved.wait()

    def drop_all(self) -> None:
        for writer in tuple(self._writers):
            _reset(writer)


@asynccontextmanager
async def fault_proxy(target_port: int) -> AsyncIterator[FaultProxy]:
    proxy = FaultProxy(target_port)
    running: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        running.add(task)
        try:
            await proxy.serve(reader, writer)
        except (asyncio.CancelledError, ExceptionGroup):  # the test ends, or a side broke
            _reset(writer)
        finally:
            running.discard(task)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=HEAD_BYTES_MAX)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.stall(on=False)
        for task in tuple(running):
            task.cancel()
        proxy.drop_all()
        await asyncio.gather(*running, return_exceptions=True)


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    writer.transport.abort()


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.split(b":", 1)[1])
    return 0
