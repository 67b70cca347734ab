"""The guarded fetcher: the only door through which a user's URL is opened.

Every hop is checked before it is connected to: scheme, no userinfo, and each address its name
resolves to. The connection goes to a checked address (a second answer of the name server is never
asked for), with Host and SNI kept. Bodies come as sent (no content coding), counted, bounded in
size and by progress. Errors are refusals of the field `url`.
"""

import asyncio
import re
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from http import HTTPStatus
from typing import NoReturn, Protocol

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from msgspec import Struct
from yarl import URL

from entrepot_chassis.ports import Clock
from entrepot_contracts.errors import Code, Problem, Refused
from motion_engine.mover.addresses import Network, why_denied
from motion_engine.mover.wire import Wire, WireConnector

REDIRECTS_MAX = 3
URL_CHARS_MAX = 2048
CONNECT_S = 10.0
READ_BYTES = 1 << 20

_PLAIN = re.compile(r"[^\x00-\x20\x7f-\xa0\u2028\u2029]+")
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAY_PASS = frozenset({408, 425, 429, 500, 502, 503, 504})

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class FetchLimits(Struct, frozen=True, kw_only=True):
    allowed: tuple[Network, ...] = ()
    stall_s: float = 30.0  # no byte, or fewer than rate_bps_min on average, for that long
    rate_bps_min: float = 1024.0


class Fetched(Struct, frozen=True, kw_only=True):
    """An open body. `start`: where its first byte lies (0 when a range was not honoured)."""

    size_bytes: int | None  # of the whole source, None when the server did not say
    etag: str | None  # strong ones only
    start: int
    chunks: AsyncGenerator[bytes, None]


class Fetch(Protocol):
    def __call__(
        self, url: str, *, size_bytes_max: int, start: int = 0, etag: str | None = None
    ) -> AbstractAsyncContextManager[Fetched]:
        """Open a URL. With `start` and `etag`, from there on if the source is still the same.
        All failures are Refused, while opening and while the chunks are read.
        """
        ...


class GuardedFetch:
    """Fetch over aiohttp."""

    def __init__(self, limits: FetchLimits, clock: Clock, resolve: Resolve | None = None) -> None:
        self._limits = limits
        self._clock = clock
        self._resolve = resolve or system_resolve

    @asynccontextmanager
    async def __call__(
        self, url: str, *, size_bytes_max: int, start: int = 0, etag: str | None = None
    ) -> AsyncIterator[Fetched]:
        headers = {"Accept-Encoding": "identity", "User-Agent": "entrepot-mover"}
        if start and etag:
            headers |= {"Range": f"bytes={start}-", "If-Range": etag}
        resolver = _PinnedResolver()
        connector = WireConnector(resolver=resolver, use_dns_cache=False, force_close=True, limit=1)
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_S, sock_read=self._limits.stall_s
        )
        async with aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            auto_decompress=False,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        ) as session:
            response = await self._follow(session, resolver, url, headers)
            async with response:
                fetched = self._opened(response, size_bytes_max, start, connector.wire)
                async with aclosing(fetched.chunks):
                    yield fetched

    async def _follow(
        self,
        session: aiohttp.ClientSession,
        resolver: "_PinnedResolver",
        text: str,
        headers: dict[str, str],
    ) -> aiohttp.ClientResponse:
        url = parse_url(text)
        for _ in range(REDIRECTS_MAX + 1):
            await self._check_addresses(url, resolver)
            try:
                response = await session.get(url, headers=headers, allow_redirects=False)
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as err:
                _unreachable(url, err)
            if response.status not in _REDIRECTS:
                return response
            target = response.headers.get("Location", "")
            response.close()
            url = _next_hop(url, target)
        raise Refused(
            Code.SOURCE_STATUS,
            f"more than {REDIRECTS_MAX} redirects",
            field="url",
            hint="give the URL that the redirects end at",
        )

    async def _check_addresses(self, url: URL, resolver: "_PinnedResolver") -> None:
        host, port = url.host or "", url.port or 0
        try:
            addresses = await self._resolve(host, port)
        except OSError as err:
            _unreachable(url, err)
        for address in addresses:
            why = why_denied(address, self._limits.allowed)
            if why is not None:
                raise Refused(
                    Code.ADDRESS_REFUSED,
                    f"the URL leads to an address that users may not reach ({why})",
                    field="url",
                    hint="use a public address, or ask the operator to allow this one "
                    "(source_allow_cidrs)",
                    facts={"host": host},
                )
        resolver.pin(host, addresses)

    def _opened(
        self, response: aiohttp.ClientResponse, size_bytes_max: int, wanted: int, wire: Wire
    ) -> Fetched:
        start = _check_status(response, wanted)
        if response.headers.get("Content-Encoding", "identity").lower() not in {"", "identity"}:
            raise Refused(
                Code.SOURCE_STATUS,
                "the server sent a compressed body though none was asked for",
                field="url",
                hint="serve the file without Content-Encoding",
                facts={"content_encoding": response.headers["Content-Encoding"][:64]},
            )
        length = response.content_length
        size = None if length is None else start + length
        if size is not None and size > size_bytes_max:
            raise _too_large(size_bytes_max)
        etag = response.headers.get("ETag", "")
        return Fetched(
            size_bytes=size,
            etag=etag if etag.startswith('"') else None,
            start=start,
            chunks=self._chunks(response, start, size, size_bytes_max, wire),
        )

    async def _chunks(
        self,
        response: aiohttp.ClientResponse,
        start: int,
        size: int | None,
        size_bytes_max: int,
        wire: Wire,
    ) -> AsyncGenerator[bytes, None]:
        position = start
        window_at, window_from = self._clock.monotonic(), start
        while True:
            try:
                chunk = await response.content.readany()
            except (aiohttp.ClientError, TimeoutError, OSError) as err:
                _broken_body(response.url, err, position)
            if not chunk:
                break
            position += len(chunk)
            if position > size_bytes_max:
                raise _too_large(size_bytes_max)
            for cut in range(0, len(chunk), READ_BYTES):
                yield chunk[cut : cut + READ_BYTES] if len(chunk) > READ_BYTES else chunk
            now = self._clock.monotonic()
            if now - window_at > self._limits.stall_s:
                if position - window_from < self._limits.rate_bps_min * (now - window_at):
                    raise _stalled(position)
                window_at, window_from = now, position
        if size is not None and position != size:
            raise _wrong_length(position, size)
        if wire.surplus_bytes:
            raise _wrong_length(position + wire.surplus_bytes, position)


class _PinnedResolver(AbstractResolver):
    """Answers only what was checked for this very hop."""

    def __init__(self) -> None:
        self._pinned: dict[str, Sequence[str]] = {}

    def pin(self, host: str, addresses: Sequence[str]) -> None:
        self._pinned = {host: addresses}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        del family  # both kinds were checked
        if host not in self._pinned:
            msg = "a name that was not checked"
            raise OSError(msg)
        return [_resolved(host, port, address) for address in self._pinned[host]]

    async def close(self) -> None:
        return None


def parse_url(text: str) -> URL:
    """The one parser: what is checked is what is connected to."""
    if len(text) > URL_CHARS_MAX or not _PLAIN.fullmatch(text):
        raise _bad_url("it is too long, or has spaces or control characters in it")
    try:
        url = URL(text)
        host, port = url.host, url.port
    except ValueError as err:
        raise _bad_url("it cannot be parsed") from err
    if url.scheme not in {"http", "https"}:
        raise _bad_url("its scheme is not http or https")
    if url.user is not None or url.password is not None:
        raise _bad_url("it carries a user name or password")
    if not host or not port:
        raise _bad_url("it names no host")
    return url.with_fragment(None)


async def system_resolve(host: str, port: int) -> Sequence[str]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))


def scrubbed(text: str) -> str:
    """A URL for logs and people: no userinfo, no query."""
    try:
        url = URL(text)
        return str(url.with_user(None).with_query(None).with_fragment(None))
    except ValueError:
        return "(no URL)"


def _resolved(host: str, port: int, address: str) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return ResolveResult(
        hostname=host,
        host=address,
        port=port,
        family=family,
        proto=0,
        flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    )


def _next_hop(url: URL, location: str) -> URL:
    if not location:
        raise Refused(
            Code.SOURCE_STATUS,
            "a redirect leads nowhere",
            field="url",
            hint="give the URL that the redirect should lead to",
        )
    try:
        target = parse_url(str(url.join(URL(location))))
    except ValueError as err:
        raise _bad_url("a redirect cannot be parsed") from err
    if url.scheme == "https" and target.scheme != "https":
        raise Refused(
            Code.ADDRESS_REFUSED,
            "a redirect leads from https to http",
            field="url",
            hint="give the final URL",
        )
    return target


def _check_status(response: aiohttp.ClientResponse, wanted: int) -> int:
    """Where the body begins. Raises Refused unless the answer is the bytes."""
    status = response.status
    if status == HTTPStatus.OK:
        return 0
    if status == HTTPStatus.PARTIAL_CONTENT:
        given = response.headers.get("Content-Range", "")
        unit, _, rest = given.partition(" ")
        first, _, _ = rest.partition("-")
        if unit == "bytes" and first == str(wanted):
            return wanted
    raise Refused.of(
        Problem(
            code=Code.SOURCE_STATUS,
            message=f"the URL answered with status {status}",
            field="url",
            hint="check that the URL can be fetched without a login",
            retryable=status in _MAY_PASS,
            facts={"status": str(status)},
        )
    )


def _bad_url(why: str) -> Refused:
    return Refused(
        Code.INVALID, f"the URL cannot be used: {why}", field="url", hint="give an http(s) URL"
    )


def _unreachable(url: URL, err: Exception) -> NoReturn:
    raise Refused(
        Code.SOURCE_UNREACHABLE,
        f"the source could not be reached ({type(err).__name__})",
        field="url",
        hint="check the host name, the port and the certificate",
        facts={"host": url.host or ""},
    ) from err


def _broken_body(url: URL, err: Exception, position: int) -> NoReturn:
    if isinstance(err, TimeoutError):
        raise _stalled(position) from err
    if isinstance(err, aiohttp.ClientPayloadError):
        raise Refused(
            Code.SOURCE_LENGTH,
            "the body ended before the length that the server had promised",
            field="url",
            hint="the server lies about the length or cut the transfer: fetch it by hand once",
            facts={"received_bytes": str(position)},
        ) from err
    _unreachable(url, err)


def _stalled(position: int) -> Refused:
    return Refused(
        Code.SOURCE_STALLED,
        "the source stopped sending",
        field="url",
        hint="try again, or use a faster source",
        facts={"received_bytes": str(position)},
    )


def _too_large(size_bytes_max: int) -> Refused:
    return Refused(
        Code.SOURCE_TOO_LARGE,
        f"the source holds more than the {size_bytes_max} bytes allowed",
        field="url",
        hint="ask for a larger quota or use a smaller image",
        facts={"size_bytes_max": str(size_bytes_max)},
    )


def _wrong_length(received: int, promised: int) -> Refused:
    return Refused(
        Code.SOURCE_LENGTH,
        "the body has another length than the server had promised",
        field="url",
        hint="the server lies about the length: fetch it by hand once",
        facts={"received_bytes": str(received), "promised_bytes": str(promised)},
    )
