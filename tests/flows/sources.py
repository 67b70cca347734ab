"""A download server of one address that serves files well, or misbehaves in each of the known ways."""

import functools
import threading
import time
import urllib.parse
from collections import Counter
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CHUNK_BYTES = 256 << 10
LIE_BYTES = 4096
STALL_MAX_S = 60


class Sources:
    """`url(name)` serves the file; `url(name, way="short")` serves it in a bad way.

    Ways: short (ends before the promised length), long (goes on after it), stalled (stops in the
    middle without closing), endless (no length, no end), redirect (to `redirect_to`), missing.
    """

    def __init__(self, server, folder):
        self._address = server.server_address
        self.folder = folder
        self.requests = Counter()
        self.sent_bytes = Counter()
        self.redirect_to = ""
        self.closing = threading.Event()

    def url(self, name, *, way="", **query):
        query = {"way": way, **query} if way else query
        host, port = self._address
        text = urllib.parse.urlencode(query)
        return f"http://{host}:{port}/{name}" + (f"?{text}" if text else "")


@contextmanager
def sources_on(host, folder):
    """A running server; all its threads are asked to end with the block."""
    server = Server((host, 0), BaseHTTPRequestHandler)
    sources = Sources(server, folder)
    server.RequestHandlerClass = functools.partial(Handler, sources=sources)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield sources
    finally:
        sources.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Clients hang up on us on purpose."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *args, sources):
        self._sources = sources
        super().__init__(*args)

    def log_message(self, *_):
        """Quiet."""

    def do_GET(self):
        path = urllib.parse.urlsplit(self.path)
        query = {key: values[0] for key, values in urllib.parse.parse_qs(path.query).items()}
        self._name = path.path.lstrip("/")
        self._sources.requests[self._name] += 1
        self.close_connection = True
        way = query.get("way", "whole")
        if way == "redirect":
            self._head(HTTPStatus.FOUND, {"Location": self._sources.redirect_to})
            return
        file = self._sources.folder / self._name
        if way == "missing" or not file.is_file():
            self._head(HTTPStatus.NOT_FOUND, {"Content-Length": 0})
            return
        getattr(self, f"_{way}")(file.read_bytes(), query)

    def _whole(self, data, query):
        start, more = self._span(len(data))
        self._head(
            HTTPStatus.PARTIAL_CONTENT if more else HTTPStatus.OK,
            {"Content-Length": len(data) - start, "ETag": '"as-it-is"', **more},
        )
        self._body(data[start:], bps=int(query.get("bps", 0)))

    def _span(self, size):
        """Where an answer begins, for `Range: bytes=N-`."""
        wanted = self.headers.get("Range", "").removeprefix("bytes=").partition("-")[0]
        start = int(wanted or 0)
        return start, {"Content-Range": f"bytes {start}-{size - 1}/{size}"} if start else {}

    def _short(self, data, _query):
        self._head(HTTPStatus.OK, {"Content-Length": len(data) + LIE_BYTES})
        self._body(data)

    def _long(self, data, _query):
        self._head(HTTPStatus.OK, {"Content-Length": len(data) - LIE_BYTES})
        self._body(data)

    def _stalled(self, data, _query):
        self._head(HTTPStatus.OK, {"Content-Length": len(data)})
        self._body(data[: len(data) - LIE_BYTES])
        self._sources.closing.wait(STALL_MAX_S)

    def _endless(self, data, _query):
        self._head(HTTPStatus.OK, {})
        while not self._sources.closing.is_set():
            self._body(data)

    def _head(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.send_header("Connection", "close")
        self.end_headers()

    def _body(self, data, *, bps=0):
        for at in range(0, len(data), CHUNK_BYTES):
            chunk = data[at : at + CHUNK_BYTES]
            self.wfile.write(chunk)
            self._sources.sent_bytes[self._name] += len(chunk)
            if bps:
                time.sleep(CHUNK_BYTES / bps)


def write_pattern(path, size_bytes):
    """A raw image nobody can take for another format; no zeros that could be left out."""
    path.write_bytes(bytes(range(1, 256)) * (size_bytes // 255) + b"\x01" * (size_bytes % 255))
    return path


__all__ = ["LIE_BYTES", "Sources", "sources_on", "write_pattern"]
