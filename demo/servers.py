"""The outside world of the demo, as real processes: an S3 server (Swift) and a download server."""

import json
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

REQUEST_S = 30
END_S = 20


class Swift(Struct, frozen=True, kw_only=True):
    """A running Swift. Entrepot speaks S3 with it; we look into it through its own API."""

    endpoint: str
    auth_url: str
    access_key: str
    secret_key: str
    region: str
    pids: dict[str, int]

    def make_bucket(self, name: str) -> None:
        self._ask("PUT", name)

    def keys(self, bucket: str) -> list[str]:
        """Names of all objects, unfinished uploads' segments not among them."""
        return self._ask("GET", f"{bucket}?limit=10000").decode().split()

    def read(self, bucket: str, key: str) -> bytes:
        """All bytes of one object."""
        return self._ask("GET", f"{bucket}/{urllib.parse.quote(key)}")

    def _ask(self, method: str, path: str) -> bytes:
        login = urllib.request.Request(self.auth_url)  # noqa: S310 - our own loopback server
        login.add_header("X-Auth-User", self.access_key)
        login.add_header("X-Auth-Key", self.secret_key)
        with urllib.request.urlopen(login, timeout=REQUEST_S) as answer:  # noqa: S310
            base, token = answer.headers["X-Storage-Url"], answer.headers["X-Auth-Token"]
        request = urllib.request.Request(f"{base}/{path}", method=method)  # noqa: S310
        request.add_header("X-Auth-Token", token)
        with urllib.request.urlopen(request, timeout=REQUEST_S) as answer:  # noqa: S310
            body: bytes = answer.read()
            return body


@contextmanager
def swift(folder: Path) -> Iterator[Swift]:
    argv = [sys.executable, "-m", "entrepot_testkit.swift", "--dir", str(folder), "--leash"]
    with _process(argv, leash=True) as first_line:
        facts = json.loads(first_line)
        yield Swift(**{name: facts[name] for name in Swift.__struct_fields__})


@contextmanager
def download_server(folder: Path) -> Iterator[str]:
    """URL of a server of the files in `folder`."""
    with _process([sys.executable, "-m", "demo.file_server", str(folder)]) as first_line:
        yield f"http://127.0.0.1:{int(first_line)}"


@contextmanager
def _process(argv: list[str], *, leash: bool = False) -> Iterator[str]:
    """A process by its first line of output; ended with the block."""
    stdin = subprocess.PIPE if leash else subprocess.DEVNULL
    with subprocess.Popen(argv, stdin=stdin, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            if not line:
                raise SystemExit(f"{' '.join(argv[1:3])} did not start")
            yield line
        finally:
            process.terminate()
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
