"""The outermost layer of HTTP: correlation, methods we speak, metrics, one log line per request."""

from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any

import msgspec
import structlog

from api_gateway import correlation
from api_gateway.problems import PROBLEM_JSON, document_of
from entrepot_chassis import metrics
from entrepot_chassis.ports import Clock, Ids
from entrepot_contracts.errors import Code, Refused

METHODS = ("GET", "POST", "PUT", "DELETE")
UNMATCHED = "unmatched"

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]

log = structlog.get_logger()
REQUESTS = metrics.counter(
    "entrepot_http_requests_total", "HTTP requests answered.", ("method", "route", "status")
)
SECONDS = metrics.histogram(
    "entrepot_http_request_seconds", "Time from request to last byte.", ("method", "route")
)


class Edge:
    """Wraps an ASGI application. Logs the route; never paths, queries, headers or bodies."""

    def __init__(self, app: AsgiApp, *, service: str, clock: Clock, ids: Ids) -> None:
        self._app = app
        self._service = service
        self._clock = clock
        self._ids = ids

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        corr = correlation.chosen(_given(scope), ids=self._ids)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(service=self._service, corr=corr)
        started = self._clock.monotonic()
        answered = _Answered(send, corr)
        try:
            if scope["method"] in METHODS:
                await self._app(scope, receive, answered.send)
            else:
                await _refuse_method(answered.send, corr)
        finally:
            self._account(scope, answered.status, self._clock.monotonic() - started)

    def _account(self, scope: Scope, status: int, took_s: float) -> None:
        method = scope["method"] if scope["method"] in METHODS else "other"
        route = scope.get("path_template") or UNMATCHED
        REQUESTS.labels(method, route, str(status)).inc()
        SECONDS.labels(method, route).observe(took_s)
        log.info(
            "http_request",
            method=method,
            route=route,
            status=status,
            took_ms=round(took_s * 1e3, 1),
        )


class _Answered:
    """Notes the status that goes out and adds the headers every answer has."""

    def __init__(self, send: Send, corr: str) -> None:
        self._send = send
        self._corr = corr.encode()
        self.status = 499  # what stays when the client left before an answer

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [
                *message.get("headers", ()),
                (b"x-request-id", self._corr),
                (b"x-content-type-options", b"nosniff"),
            ]
        await self._send(message)


def _given(scope: Scope) -> list[str]:
    headers = dict(scope["headers"])
    return [
        headers[name.encode()].decode("latin-1")
        for name in correlation.HEADERS
        if name.encode() in headers
    ]


async def _refuse_method(send: Send, corr: str) -> None:
    refused = Refused(
        Code.METHOD_NOT_ALLOWED,
        "no route takes that method",
        hint="the Allow header names the methods routes take",
    )
    document = document_of(refused.problem, correlation_id=corr)
    allow = ", ".join(METHODS).encode()
    headers = [(b"content-type", PROBLEM_JSON.encode()), (b"allow", allow)]
    status = HTTPStatus.METHOD_NOT_ALLOWED.value
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": msgspec.json.encode(document)})
