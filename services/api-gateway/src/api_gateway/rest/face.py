"""Serves one route: who asks, what they say, do it once, answer. All routes take this one path."""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import ClientException
from litestar.status_codes import HTTP_413_REQUEST_ENTITY_TOO_LARGE
from msgspec import Struct

from api_gateway.accounts import Accounts
from api_gateway.callers import Caller
from api_gateway.correlation import correlation_id
from api_gateway.credentials import parse_authorization
from api_gateway.idempotency import Answer, Once, Ticket
from api_gateway.operations.operation import Call, Desk, permit
from api_gateway.problems import PROBLEM_JSON, document_of, headers_for, problem_for
from api_gateway.reading import BODY_BYTES_MAX, request_of
from api_gateway.rest.present import present
from api_gateway.rest.routes import Route
from entrepot_chassis.clock import SeededIds
from entrepot_chassis.ports import Ids
from entrepot_contracts.errors import Code, Problem, Refused, http_status

BODY_ARRIVES_S = 15.0
JSON = "application/json"
REPLAYED = "Idempotency-Replayed"

log = structlog.get_logger()
AnyRequest = Request[object, object, object]  # type: ignore[type-var]


class Asked(Struct, frozen=True, kw_only=True):
    """A request that was understood."""

    route: Route
    caller: Caller
    want: Struct
    key: str | None
    fingerprint: bytes


class Face:
    def __init__(self, desk: Desk, *, once: Once, ids: Ids) -> None:
        self._desk = desk
        self._once = once
        self._ids = ids

    async def serve(self, route: Route, request: AnyRequest) -> Response[bytes]:
        try:
            # The credential comes first: nobody learns from us what a valid body would be.
            caller = await identify(self._desk.accounts, request.headers)
            permit(route.operation, caller)
            asked = await _understood(route, caller, request)
            if asked.key is None:
                return _reply(route, await self._carried_out(asked, self._ids))
            return await self._serve_once(asked, asked.key)
        except Exception as error:  # noqa: BLE001 - the one border where errors become answers
            return refusal(error)

    async def _serve_once(self, asked: Asked, key: str) -> Response[bytes]:
        ticket = await self._once.begin(
            account_id=asked.caller.actor.account_id, key=key, request=asked.fingerprint
        )
        if ticket.answer is not None:
            return _reply_with(ticket.answer, {REPLAYED: "true"})
        try:
            said = await self._carried_out(asked, SeededIds(ticket.seed))
        except BaseException as error:
            # A cancelled request (client gone) is settled too, or its repeat would wait a minute.
            await asyncio.shield(self._settle_failure(ticket, error))
            raise
        answer = Answer(status=asked.route.status, body=_encoded(asked.route, said))
        await self._once.finish(ticket, _storable(asked.route, said, answer))
        return _reply_with(answer, {})

    async def _settle_failure(self, ticket: Ticket, error: BaseException) -> None:
        problem = problem_for(error)
        if problem.retryable or not isinstance(error, Exception):
            await self._once.free(ticket)
            return
        body = msgspec.json.encode(document_of(problem, correlation_id=correlation_id()))
        status = http_status(problem.code).value
        await self._once.finish(ticket, Answer(status=status, body=body))

    async def _carried_out(self, asked: Asked, ids: Ids) -> dict[str, object]:
        call = Call(caller=asked.caller, desk=self._desk, ids=ids)
        answer = await asked.route.operation.run(call, asked.want)
        return present(asked.route, answer, want=asked.want)


async def identify(accounts: Accounts, headers: Mapping[str, str]) -> Caller:
    """Raises Refused(unauthenticated)."""
    caller = await accounts.caller_of(parse_authorization(headers.get("authorization")))
    structlog.contextvars.bind_contextvars(account_id=caller.actor.account_id, key_id=caller.key_id)
    return caller


def refusal(error: Exception) -> Response[bytes]:
    """The problem document of whatever was raised; the unexpected is logged with its trace."""
    problem = problem_for(error)
    if problem.code is Code.INTERNAL and not isinstance(error, Refused):
        log.error("request_failed", exc_info=error)
    return problem_response(problem)


def problem_response(problem: Problem, headers: Mapping[str, str] | None = None) -> Response[bytes]:
    document = document_of(problem, correlation_id=correlation_id())
    return Response(
        msgspec.json.encode(document),
        status_code=document.status,
        media_type=PROBLEM_JSON,
        headers={**headers_for(problem), **(headers or {})},
    )


async def _understood(route: Route, caller: Caller, request: AnyRequest) -> Asked:
    body = await _body(request)
    path = {name: str(request.path_params[name]) for name in route.path_fields}
    query = list(request.query_params.multi_items())
    if route.has_body and query:
        name = query[0][0]
        raise Refused(
            Code.INVALID,
            f"{name}: this route takes no query parameters",
            field=name[:100],
            hint="put it into the body",
        )
    want = request_of(
        route.operation.request,
        path=path,
        query=None if route.has_body else query,
        body=body if route.has_body else None,
    )
    key = (
        None
        if route.status is HTTPStatus.OK and not route.has_body
        else request.headers.get("idempotency-key")
    )
    said = msgspec.json.encode(want, order="sorted")
    where = f"{route.method} {route.path} {caller.actor.account_id}\n".encode()
    return Asked(route=route, caller=caller, want=want, key=key, fingerprint=where + said)


async def _body(request: AnyRequest) -> bytes:
    try:
        async with asyncio.timeout(BODY_ARRIVES_S):
            return await request.body()
    except TimeoutError as error:
        raise Refused(
            Code.INVALID,
            f"body: it did not arrive within {BODY_ARRIVES_S:.0f} s",
            field="body",
            hint="send as many bytes as Content-Length says, without pause",
        ) from error
    except ClientException as error:
        if error.status_code != HTTP_413_REQUEST_ENTITY_TOO_LARGE:
            raise Refused(
                Code.INVALID,
                "body: its length is wrong",
                field="body",
                hint="send as many bytes as Content-Length says",
            ) from error
        raise Refused(
            Code.TOO_LARGE,
            f"body: larger than {BODY_BYTES_MAX} bytes",
            field="body",
            hint="requests carry descriptions; image bytes are fetched from a URL",
        ) from error


def _encoded(route: Route, said: dict[str, object]) -> bytes:
    return b"" if route.status is HTTPStatus.NO_CONTENT else msgspec.json.encode(said)


def _storable(route: Route, said: dict[str, object], answer: Answer) -> Answer:
    """What is shown once is not kept, not even for the replay of the same request."""
    once = route.operation.once
    if not once:
        return answer
    kept = {name: None if name in once else value for name, value in said.items()}
    return Answer(status=answer.status, body=msgspec.json.encode(kept))


def _reply(route: Route, said: dict[str, object]) -> Response[bytes]:
    return _reply_with(Answer(status=route.status, body=_encoded(route, said)), {})


def _reply_with(answer: Answer, headers: dict[str, str]) -> Response[bytes]:
    failed = answer.status >= HTTPStatus.BAD_REQUEST
    return Response(
        answer.body,
        status_code=answer.status,
        media_type=PROBLEM_JSON if failed else JSON,
        headers={"Cache-Control": "no-store", **headers},
    )
