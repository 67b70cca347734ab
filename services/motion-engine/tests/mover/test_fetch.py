"""The guarded fetcher before servers with every bad habit, and addresses it must never reach."""

import asyncio
import gzip

import pytest
from aiohttp import web
from mover_rig import MIB, ImageServer, noise

from entrepot_chassis.clock import SystemClock
from entrepot_contracts.errors import Code, Refused
from motion_engine.mover.addresses import parse_cidrs, why_denied
from motion_engine.mover.fetch import (
    FetchLimits,
    GuardedFetch,
    parse_url,
    scrubbed,
    system_resolve,
)

LOOPBACK = parse_cidrs(["127.0.0.0/8"])


def fetcher(*, allowed=LOOPBACK, stall_s=0.4, resolve=None):
    return GuardedFetch(FetchLimits(allowed=allowed, stall_s=stall_s), SystemClock(), resolve)


async def read(url, *, size_max=1 << 30, fetch=None, **options):
    async with (fetch or fetcher())(url, size_bytes_max=size_max, **options) as fetched:
        data = b"".join([bytes(chunk) async for chunk in fetched.chunks])
    return fetched, data


async def refusal(url, **options):
    with pytest.raises(Refused) as caught:
        await read(url, **options)
    problem = caught.value.problem
    assert problem.field == "url"
    assert problem.hint
    return problem


@pytest.fixture
async def server():
    async with ImageServer().serving() as running:
        yield running


async def raw_server(stack_reply):
    """A TCP server that sends exactly these bytes; for lies aiohttp would not tell."""

    async def client(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        try:
            await stack_reply(writer)
            writer.close()
            await writer.wait_closed()
        except ConnectionError:
            pass

    server = await asyncio.start_server(client, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"


async def test_bytes_length_and_strong_etag_arrive(server):
    server.files["a"] = noise(3 * MIB)
    fetched, data = await read(server.url("a"))
    assert data == server.files["a"]
    assert fetched.size_bytes == len(data)
    assert fetched.etag.startswith('"')
    assert fetched.start == 0


async def test_a_range_is_used_only_while_the_source_is_the_same(server):
    server.files["a"] = noise(MIB)
    etag = (await read(server.url("a")))[0].etag
    fetched, data = await read(server.url("a"), start=1000, etag=etag)
    assert (fetched.start, fetched.size_bytes, data) == (1000, MIB, server.files["a"][1000:])
    fetched, data = await read(server.url("a"), start=1000, etag='"other"')
    assert (fetched.start, data) == (0, server.files["a"])


async def test_a_weak_etag_is_not_trusted(server):
    async def weak(request):
        return web.Response(body=b"x" * 512, headers={"ETag": 'W/"1"'})

    server.handlers["a"] = weak
    assert (await read(server.url("a")))[0].etag is None


@pytest.mark.parametrize(
    ("status", "retryable"), [(404, False), (403, False), (204, False), (500, True), (429, True)]
)
async def test_a_status_that_is_not_the_bytes_is_told(server, status, retryable):
    async def answer(request):
        return web.Response(status=status)

    server.handlers["a"] = answer
    problem = await refusal(server.url("a"))
    assert (problem.code, problem.facts["status"]) == (Code.SOURCE_STATUS, str(status))
    assert problem.retryable is retryable


async def test_a_length_beyond_the_limit_is_refused_before_the_body(server):
    asked = []

    async def big(request):
        response = web.StreamResponse(headers={"Content-Length": str(1 << 40)})
        await response.prepare(request)
        asked.append(1)
        return response

    server.handlers["a"] = big
    problem = await refusal(server.url("a"), size_max=MIB)
    assert problem.code is Code.SOURCE_TOO_LARGE
    assert problem.facts["size_bytes_max"] == str(MIB)


async def test_an_endless_body_is_cut_off_at_the_limit(server):
    sent = 0

    async def endless(request):
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(MIB))
            sent += MIB

    server.handlers["a"] = endless
    problem = await refusal(server.url("a"), size_max=8 * MIB)
    assert problem.code is Code.SOURCE_TOO_LARGE
    assert sent < 64 * MIB


async def test_a_body_shorter_than_promised_is_a_lie():
    async def short(writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b"x" * 100)
        await writer.drain()

    server, url = await raw_server(short)
    async with server:
        assert (await refusal(url)).code is Code.SOURCE_LENGTH


@pytest.mark.parametrize("size", [100, 5 * MIB])
async def test_a_body_longer_than_promised_is_a_lie(size):
    async def long(writer):
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n"
        writer.write(head.encode() + b"x" * (size + 900))
        await writer.drain()

    server, url = await raw_server(long)
    async with server:
        assert (await refusal(url)).code is Code.SOURCE_LENGTH


async def test_a_chunked_body_that_breaks_off_is_a_lie():
    async def broken(writer):
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n")
        await writer.drain()

    server, url = await raw_server(broken)
    async with server:
        assert (await refusal(url)).code is Code.SOURCE_LENGTH


async def test_no_http_at_all_is_unreachable():
    async def nonsense(writer):
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        await writer.drain()

    server, url = await raw_server(nonsense)
    async with server:
        assert (await refusal(url)).code is Code.SOURCE_UNREACHABLE


async def test_silence_after_some_bytes_is_a_stall(server):
    async def silent(request):
        response = web.StreamResponse(headers={"Content-Length": "5000"})
        await response.prepare(request)
        await response.write(b"x" * 10)
        await asyncio.sleep(30)
        return response

    server.handlers["a"] = silent
    problem = await refusal(server.url("a"))
    assert problem.code is Code.SOURCE_STALLED
    assert problem.retryable


async def test_a_drip_that_never_quite_stops_is_a_stall_too(server):
    async def drip(request):
        response = web.StreamResponse(headers={"Content-Length": "5000"})
        await response.prepare(request)
        for _ in range(500):
            await response.write(b"x")
            await asyncio.sleep(0.05)
        return response

    server.handlers["a"] = drip
    assert (await refusal(server.url("a"))).code is Code.SOURCE_STALLED


async def test_a_compressed_body_is_refused_and_never_inflated(server):
    async def bomb(request):
        assert request.headers["Accept-Encoding"] == "identity"
        return web.Response(body=gzip.compress(bytes(MIB)), headers={"Content-Encoding": "gzip"})

    server.handlers["a"] = bomb
    assert (await refusal(server.url("a"))).code is Code.SOURCE_STATUS


async def test_redirects_are_followed_three_times_and_no_more(server):
    server.files["end"] = b"x" * 512

    def hop(to):
        async def answer(request):
            raise web.HTTPFound(to)

        return answer

    for number in range(1, 5):
        server.handlers[f"r{number}"] = hop(f"r{number - 1}" if number > 1 else "end")
    assert (await read(server.url("r3")))[1] == b"x" * 512
    assert (await refusal(server.url("r4"))).code is Code.SOURCE_STATUS


async def test_each_hop_is_checked_again_and_the_canary_hears_nothing(server):
    """The first host is allowed; the second one, by another loopback address, is not."""
    canary, heard = None, []

    async def listen(reader, writer):
        heard.append(1)
        writer.close()

    canary = await asyncio.start_server(listen, "127.0.0.2", 0)
    port = canary.sockets[0].getsockname()[1]
    fetch = fetcher(allowed=parse_cidrs(["127.0.0.1/32"]))
    targets = [
        f"http://127.0.0.2:{port}/",
        f"http://[::ffff:127.0.0.2]:{port}/",
        f"http://2130706434:{port}/",
        f"http://0x7f000002:{port}/",
        f"http://0177.0.0.2:{port}/",
        f"http://127.2:{port}/",
        "http://169.254.169.254/latest/meta-data/",
    ]
    async with canary:
        for target in targets:

            async def answer(request, to=target):
                return web.Response(status=302, headers={"Location": to})

            server.handlers["a"] = answer
            problem = await refusal(server.url("a"), fetch=fetch)
            assert problem.code in {Code.ADDRESS_REFUSED, Code.SOURCE_UNREACHABLE, Code.INVALID}
        problem = await refusal(f"http://127.0.0.2:{port}/", fetch=fetch)
        assert problem.code is Code.ADDRESS_REFUSED
    assert heard == []


async def test_https_never_becomes_http_on_the_way():
    from yarl import URL

    from motion_engine.mover.fetch import _next_hop

    with pytest.raises(Refused) as caught:
        _next_hop(URL("https://example.org/a"), "http://example.org/b")
    assert caught.value.problem.code is Code.ADDRESS_REFUSED
    for hostile in ("file:///etc/passwd", "ftp://x/", "gopher://x/", "//u:p@x/", ""):
        with pytest.raises(Refused):
            _next_hop(URL("https://example.org/a"), hostile)


async def test_the_connection_goes_to_the_checked_address_not_to_a_second_answer(server):
    """A name server that answers differently the second time (DNS rebinding) is asked once."""
    server.files["a"] = b"x" * 512
    answers = [["127.0.0.1"], ["127.0.0.9"]]
    asked = []

    async def rebinding(host, port):
        asked.append(host)
        return answers[min(len(asked) - 1, 1)]

    fetch = fetcher(allowed=parse_cidrs(["127.0.0.1/32"]), resolve=rebinding)
    url = f"http://rebind.example:{server.port}/a"
    assert (await read(url, fetch=fetch))[1] == b"x" * 512
    assert asked == ["rebind.example"]
    assert (await refusal(url, fetch=fetch)).code is Code.ADDRESS_REFUSED


async def test_one_denied_address_among_good_ones_is_enough():
    async def mixed(host, port):
        return ["93.184.216.34", "10.0.0.1"]

    problem = await refusal("http://mixed.example/", fetch=fetcher(allowed=(), resolve=mixed))
    assert problem.code is Code.ADDRESS_REFUSED


async def test_a_name_that_does_not_resolve_may_be_tried_again():
    problem = await refusal("http://no-such-host.invalid/", fetch=fetcher(resolve=system_resolve))
    assert problem.code is Code.SOURCE_UNREACHABLE
    assert problem.retryable


BAD_URLS = [
    "",
    "x",
    "/etc/passwd",
    "file:///etc/passwd",
    "ftp://example.org/a",
    "javascript:alert(1)",
    "http://",
    "http:///path",
    "http://user@example.org/",
    "http://user:pass@example.org/",
    "http://:pass@example.org/",
    "http://exa mple.org/",
    "http://example.org/\n",
    "http://a\x00b/",
    "http://example.org:99999/",
    "http://example.org:x/",
    "http://[::1/",
    "nfs://host/path",
    "http://example.org/" + "a" * 3000,
    "http://\u2028example.org/",
    "metalink:http://x/",
]


@pytest.mark.parametrize("url", BAD_URLS)
def test_a_url_that_is_no_plain_http_url_is_invalid(url):
    with pytest.raises(Refused) as caught:
        parse_url(url)
    assert caught.value.problem.code is Code.INVALID
    assert "pass" not in str(caught.value).replace("password", "")


DENIED = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "169.254.1.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.168.1.1",
    "198.18.0.1",
    "203.0.113.5",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "2001:0:53aa:64c::1",
    "2001:db8::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "::ffff:0:127.0.0.1",
]


@pytest.mark.parametrize("address", DENIED)
def test_addresses_inside_are_denied(address):
    assert why_denied(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822"])
def test_public_addresses_are_not(address):
    assert why_denied(address) is None


def test_an_operator_may_allow_a_network_and_only_that():
    allowed = parse_cidrs(["10.1.0.0/16"])
    assert why_denied("10.1.2.3", allowed) is None
    assert why_denied("::ffff:10.1.2.3", allowed) is None
    assert why_denied("10.2.0.1", allowed)


def test_urls_in_logs_carry_no_secrets():
    text = scrubbed("https://user:pass@example.org/a/b?X-Amz-Signature=secret#frag")
    assert text == "https://example.org/a/b"
