"""Serves one folder over HTTP on loopback, as its own process: `python -m demo.file_server DIR`.

Prints its port as the first line. Answers ranges, lengths and validators the way the download
servers of distributions do. `/served` tells how many bytes of each file it has given out;
`/name?bps=N` gives a file out slowly.
"""

import functools
import json
import os
import re
import sys
import threading
import time
import urllib.parse
from collections import Counter
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO

CHUNK_BYTES = 1 << 20
COUNTING = threading.Lock()


class FolderHandler(BaseHTTPRequestHandler):
    """GET and HEAD of plain files, whole or one range."""

    protocol_version = "HTTP/1.1"

    def __init__(
        self, *args: object, folder: Path, served: "Counter[str]", **options: object
    ) -> None:
        self._folder, self._served = folder, served
        super().__init__(*args, **options)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, *_: object) -> None:
        """Quiet: the demo prints what matters."""

    def _answer(self, *, with_body: bool) -> None:
        path = self._folder / Path(self.path.split("?")[0]).name
        if self.path == "/served":
            self._tell_served()
            return
        if not path.is_file():
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            span = _span(self.headers.get("Range"), size)
            if span is None:
                self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
                self.send_header("Content-Range", f"bytes */{size}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self._head(span, size, etag=f'"{os.fstat(file.fileno()).st_mtime_ns:x}-{size:x}"')
            if with_body:
                self._body(file, *span, name=path.name)

    def _tell_served(self) -> None:
        with COUNTING:
            body = json.dumps(self._served).encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _head(self, span: tuple[int, int], size: int, *, etag: str) -> None:
        start, end = span
        partial = self.headers.get("Range") is not None
        self.send_response(HTTPStatus.PARTIAL_CONTENT if partial else HTTPStatus.OK)
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.send_header("Content-Length", str(end - start))
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", etag)
        self.end_headers()

    def _body(self, file: BinaryIO, start: int, end: int, *, name: str) -> None:
        self.wfile.flush()
        offset, pause_s = start, self._pause_s()
        try:
            while offset < end:
                offset += os.sendfile(
                    self.connection.fileno(), file.fileno(), offset, min(CHUNK_BYTES, end - offset)
                )
                time.sleep(pause_s)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with COUNTING:
                self._served[name] += offset - start

    def _pause_s(self) -> float:
        """Between two chunks, for the rate that was asked for."""
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        return CHUNK_BYTES / float(query["bps"][0]) if "bps" in query else 0.0


def _span(header: str | None, size: int) -> tuple[int, int] | None:
    """Half-open byte range; None if it lies outside."""
    if header is None:
        return 0, size
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", header.strip())
    if found is None or int(found[1]) >= size:
        return None
    return int(found[1]), min(int(found[2]) + 1, size) if found[2] else size


def main() -> None:
    handler = functools.partial(FolderHandler, folder=Path(sys.argv[1]), served=Counter())
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
