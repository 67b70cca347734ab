"""A fast body is taken in large blocks, and its connection is handed back as it was."""

import asyncio
import os
import socket
from contextlib import asynccontextmanager, suppress

import aiohttp
from aiohttp import web

from entrepot_s3.gathering import GATHER_BYTES, TAIL_BYTES, Gathering

PIECE = os.urandom(64 << 10)
PIECES = 96  # 6 MiB


class Content:
    """A body that comes as told: (bytes, seconds to wait for them)."""

    def __init__(self, blocks):
        self.blocks = list(blocks)
        self.total_bytes = 0
        self.now = 0.0

    async def readany(self):
        size, wait_s = self.blocks.pop(0)
        self.now += wait_s
        self.total_bytes += size
        return bytes(size)


class Response:
    """Its own connection, transport and socket; remembers each limit that was set."""

    def __init__(self, blocks, content_length):
        self.content = Content(blocks)
        self.content_length = content_length
        self.connection = self.transport = self
        self.limits = []

    def get_extra_info(self, _):
        return self

    def setsockopt(self, *option):
        assert option[:2] == (socket.SOL_SOCKET, socket.SO_RCVLOWAT)
        self.limits.append(option[2])


async def taken(response, length):
    body = Gathering(response, length, monotonic=lambda: response.content.now)
    return [len(await body.take()) for _ in list(response.content.blocks)]


async def test_a_fast_body_is_gathered_until_its_tail():
    length = TAIL_BYTES + 4 * len(PIECE)
    response = Response([(len(PIECE), 0)] * (length // len(PIECE)), length)
    await taken(response, length)
    assert response.limits == [GATHER_BYTES, 1]


async def test_a_trickle_is_never_gathered():
    response = Response([(100, 0.01)] * 5, 1 << 30)
    await taken(response, 1 << 30)
    assert response.limits == []


async def test_a_body_that_turns_slow_is_taken_as_it_comes_again():
    response = Response([(len(PIECE), 0), (100, 0.01)], 1 << 30)
    await taken(response, 1 << 30)
    assert response.limits == [GATHER_BYTES, 1]


async def test_a_body_shorter_than_asked_for_or_of_unknown_length_is_not_waited_for():
    for told in (TAIL_BYTES, None):
        response = Response([(len(PIECE), 0)] * 3, told)
        await taken(response, 1 << 30)
        assert response.limits == []


async def test_a_missing_or_unwilling_socket_does_no_harm():
    class Unwilling(Response):
        def setsockopt(self, *_):
            raise OSError(92, "not here")

    length = 2 * TAIL_BYTES
    for response in (Response([(10, 0)], length), Unwilling([(10, 0)], length)):
        if type(response) is Response:
            response.connection = None
        assert await taken(response, length) == [10]
        assert response.limits == []


@asynccontextmanager
async def server(cut_after=None):
    """Sends 6 MiB, a piece per turn of the loop; broken off after `cut_after` pieces."""

    async def body(request):
        response = web.StreamResponse(headers={"Content-Length": str(PIECES * len(PIECE))})
        await response.prepare(request)
        for _ in range(PIECES if cut_after is None else cut_after):
            await response.write(PIECE)
            await asyncio.sleep(0.0005)
        if cut_after is not None:
            request.transport.close()
        return response

    async def small(_):
        return web.Response(body=b"small")

    app = web.Application()
    app.add_routes([web.get("/body", body), web.get("/small", small)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def low_water(sock):
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)


async def test_the_connection_serves_small_answers_after_a_gathered_body():
    async with server() as url, aiohttp.ClientSession() as client, asyncio.timeout(20):
        async with client.get(f"{url}/body") as response:
            sock = response.connection.transport.get_extra_info("socket")
            body, got, seen = Gathering(response, PIECES * len(PIECE)), b"", set()
            while block := await body.take():
                got += block
                seen.add(low_water(sock))
        assert got == PIECE * PIECES
        assert GATHER_BYTES in seen
        assert low_water(sock) == 1
        async with client.get(f"{url}/small") as response:
            assert response.connection is None or (
                response.connection.transport.get_extra_info("socket").fileno() == sock.fileno()
            )
            assert await response.read() == b"small"


async def test_a_body_that_breaks_off_while_it_is_gathered_ends_at_once():
    async with (
        server(cut_after=33) as url,
        aiohttp.ClientSession() as client,
        asyncio.timeout(20),
        client.get(f"{url}/body") as response,
    ):
        body, got = Gathering(response, PIECES * len(PIECE)), 0
        with suppress(aiohttp.ClientError):
            while block := await body.take():
                got += len(block)
        assert got < PIECES * len(PIECE)
