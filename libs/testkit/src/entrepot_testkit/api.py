"""A small client of the public `/v1` API: what a script of a user would do, no shortcuts inside."""

import http.client
import json
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any

JOB_WAIT_S = 1.0
REQUEST_S = 40.0
RETRY_S = 0.2


class ApiProblem(Exception):
    """The API refused; `code`, `status` and the whole problem document."""

    def __init__(self, status: int, document: dict[str, Any]) -> None:
        super().__init__(f"{status} {document.get('code')}: {document.get('detail')}")
        self.status = status
        self.document = document
        self.code = str(document.get("code"))


class JobFailed(Exception):
    """A job that was expected to succeed did not."""

    def __init__(self, job: dict[str, Any]) -> None:
        error = job.get("error") or {}
        super().__init__(f"{job['kind']} failed: {error.get('code')}: {error.get('message')}")
        self.job = job


class Api:
    """One account's view. With `patience_s`, requests are repeated with the same Idempotency-Key
    while the API is away or says that something behind it is.
    """

    def __init__(self, url: str, key: str, *, patience_s: float = 0) -> None:
        parts = urllib.parse.urlsplit(url)
        assert parts.hostname
        self._host, self._port = parts.hostname, parts.port
        self._key = key.strip()
        self._patience_s = patience_s
        self._count = 0

    def get(self, path: str, **query: object) -> dict[str, Any]:
        text = urllib.parse.urlencode(query)
        return self._patiently("GET", f"{path}?{text}" if text else path, None)

    def post(self, path: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        return self._patiently("POST", path, body or {})

    def put(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        return self._patiently("PUT", path, body)

    def delete(self, path: str) -> dict[str, Any]:
        return self._patiently("DELETE", path, None)

    def watch(self, job_id: str, *, timeout_s: float) -> Iterator[dict[str, Any]]:
        """States of a job until it has ended; the last one is the end."""
        deadline = time.monotonic() + timeout_s
        while True:
            job = self.get(f"/v1/jobs/{job_id}", wait_s=JOB_WAIT_S)
            yield job
            if job["state"] != "running":
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"job {job_id} still {job['step']!r} after {timeout_s} s")

    def ended(self, job_id: str, *, timeout_s: float = 120) -> dict[str, Any]:
        """The job when it has ended, well or badly."""
        return list(self.watch(job_id, timeout_s=timeout_s))[-1]

    def succeeded(self, job_id: str, *, timeout_s: float = 120) -> dict[str, Any]:
        job = self.ended(job_id, timeout_s=timeout_s)
        if job["state"] != "succeeded":
            raise JobFailed(job)
        return job

    def transfers(self, job_id: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.get("/v1/transfers", job_id=job_id)["items"]
        return items

    # --- transport ---

    def _patiently(
        self, method: str, path: str, body: Mapping[str, object] | None
    ) -> dict[str, Any]:
        key = self._fresh_key() if method != "GET" else None
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                return self._once(method, path, body, key)
            except (OSError, http.client.HTTPException):
                if time.monotonic() > deadline:
                    raise
            except ApiProblem as problem:
                if not problem.document.get("retryable") or time.monotonic() > deadline:
                    raise
            time.sleep(RETRY_S)

    def _once(
        self, method: str, path: str, body: Mapping[str, object] | None, key: str | None
    ) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self._key}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if key is not None:
            headers["Idempotency-Key"] = key
        said = json.dumps(body) if body is not None else None
        with closing(http.client.HTTPConnection(self._host, self._port, timeout=REQUEST_S)) as line:
            line.request(method, path, said, headers)
            answer = line.getresponse()
            text = answer.read()
        document: dict[str, Any] = json.loads(text) if text else {}
        if answer.status >= http.HTTPStatus.BAD_REQUEST:
            raise ApiProblem(answer.status, document)
        return document

    def _fresh_key(self) -> str:
        self._count += 1
        return f"{id(self):x}-{time.time_ns():x}-{self._count}"


def until(condition: Callable[[], object], *, timeout_s: float, what: str) -> Any:
    """The first true value of `condition`; TimeoutError names what did not happen."""
    deadline = time.monotonic() + timeout_s
    while True:
        if found := condition():
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s} s")
        time.sleep(0.05)
