"""Talks to `/v1`: one request, its answer, or the Failure it ended in. Repeats what may repeat."""

import threading
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from entrepot_chassis.clock import SystemIds
from entrepot_cli.exits import Exit, Failure
from entrepot_cli.session import Session

TRIES = 4
PAUSE_S = 0.5
TIMEOUT_S = 30.0  # above the longest wait_s the gateway grants
PAGE = 500
ID_CHARS = 36
Json = dict[str, Any]


class Api:
    """A context manager around one HTTP client."""

    def __init__(self, session: Session, *, transport: httpx.BaseTransport | None = None) -> None:
        self._client = httpx.Client(
            base_url=session.address(),
            headers={"Authorization": f"Bearer {session.key()}"},
            timeout=TIMEOUT_S,
            transport=transport or TRANSPORT,
        )
        self._ids = SystemIds()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def get(self, path: str, params: Mapping[str, Any] | None = None) -> Json:
        return self._send("GET", path, params=params)

    def post(self, path: str, body: Json | None = None) -> Json:
        return self._send("POST", path, body=body)

    def put(self, path: str, body: Json) -> Json:
        return self._send("PUT", path, body=body)

    def delete(self, path: str) -> Json:
        return self._send("DELETE", path)

    def items(self, path: str, params: Mapping[str, Any] | None = None) -> Iterator[Json]:
        """All items of a list, page after page."""
        asked = dict(params or {})
        while True:
            page = self.get(path, asked)
            yield from page["items"]
            if page.get("next") is None:
                return
            asked = {**asked, "limit": PAGE, "after": page["next"]}

    def find(self, path: str, text: str) -> Json:
        """The item of a list with this id or, if only one has it, this name."""
        items = [one for one in self.items(path) if text in (one.get("id"), one.get("name"))]
        exact = [one for one in items if one.get("id") == text] or items
        noun = path.rsplit("/", 1)[-1]
        if not exact:
            raise Failure(
                Exit.NOT_FOUND, "not_found", f"nothing in {noun} has the id or name {text!r}"
            )
        if len(exact) > 1:
            raise Failure(
                Exit.CONFLICT,
                "ambiguous",
                f"{len(exact)} of {noun} have the name {text!r}",
                hint="use an id: " + ", ".join(str(one["id"]) for one in exact),
            )
        return exact[0]

    def id_of(self, path: str, text: str) -> str:
        """An id as it is; a name looked up."""
        if len(text) == ID_CHARS and text.count("-") == 4:  # noqa: PLR2004 - a UUID's shape
            return text.lower()
        return str(self.find(path, text)["id"])

    def stream(self, path: str, *, last_id: str, params: Mapping[str, Any]) -> Iterator[str]:
        """Lines of a server-sent event stream, until the server ends it."""
        headers = {"Last-Event-ID": last_id} if last_id else {}
        try:
            with self._client.stream("GET", path, params=params, headers=headers) as answer:
                if answer.is_error:
                    answer.read()
                    raise _failure(answer)
                yield from answer.iter_lines()
        except httpx.TransportError:
            return

    def _send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Json | None = None,
    ) -> Json:
        headers = {} if method == "GET" else {"Idempotency-Key": self._ids.new()}
        for tries_left in range(TRIES - 1, -1, -1):
            try:
                answer = self._client.request(
                    method, path, params=params, json=body, headers=headers
                )
            except httpx.TransportError as error:
                if not tries_left:
                    raise _unreachable(self._client, error) from error
            else:
                again = answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
                if not (again and tries_left):
                    return _content(answer)
            threading.Event().wait(PAUSE_S)
        raise AssertionError("the last try returns or raises")


TRANSPORT: httpx.BaseTransport | None = None  # None: the network


def segment(text: str) -> str:
    """Text as one segment of a path, whatever it contains."""
    return quote(text, safe="")


def _content(answer: httpx.Response) -> Json:
    if answer.is_error:
        raise _failure(answer)
    if not answer.content:
        return {}
    said = answer.json()
    assert isinstance(said, dict)
    return said


def _failure(answer: httpx.Response) -> Failure:
    try:
        problem = answer.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or "code" not in problem:
        return Failure(
            Exit.OTHER,
            "unexpected_answer",
            f"status {answer.status_code} without a problem document",
            hint="is ENTREPOT_URL the address of an Entrepot gateway?",
        )
    return Failure.of_problem(problem)


def _unreachable(client: httpx.Client, error: httpx.TransportError) -> Failure:
    return Failure(
        Exit.RETRYABLE,
        "unreachable",
        f"no answer from {client.base_url}: {type(error).__name__}",
        hint="is the stack up? `entrepot status` tells",
    )
