"""The HTTP application: a handler per route, and routing errors as problems like all others."""

from typing import Any

import msgspec
from litestar import Litestar, Request, Response
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.response import Stream
from litestar.status_codes import HTTP_200_OK, HTTP_404_NOT_FOUND, HTTP_405_METHOD_NOT_ALLOWED

from api_gateway.reading import BODY_BYTES_MAX
from api_gateway.rest import openapi
from api_gateway.rest.face import Face, problem_response, refusal
from api_gateway.rest.routes import ROUTES, Route
from api_gateway.rest.watch import Watch
from entrepot_contracts.errors import Code, Refused

OPEN_PATHS = frozenset({"/v1/openapi.json"})  # everything else authenticates
EVENTS_PATH = "/v1/events"


def site(*, face: Face, watch: Watch) -> Litestar:
    return Litestar(
        route_handlers=[
            *(_handler(route, face) for route in ROUTES),
            _watching(watch),
            _describing(),
        ],
        exception_handlers={HTTPException: _routing_error, Exception: _other_error},
        openapi_config=None,
        logging_config=None,
        request_max_body_size=BODY_BYTES_MAX,
    )


def _handler(route: Route, face: Face) -> HTTPRouteHandler:
    async def serve(request: Request[Any, Any, Any]) -> Response[bytes]:
        return await face.serve(route, request)

    path = route.path.replace("}", ":str}")
    handler = HTTPRouteHandler(
        path,
        http_method=[route.method.value],  # type: ignore[list-item]
        status_code=HTTP_200_OK,  # the answer carries its own; Litestar wants one it may check
        name=route.operation.name,
    )
    return handler(serve)


def _watching(watch: Watch) -> HTTPRouteHandler:
    async def serve(request: Request[Any, Any, Any]) -> Response[bytes] | Stream:
        return await watch.serve(request)

    return HTTPRouteHandler(EVENTS_PATH, http_method=["GET"], name="event.watch")(serve)


def _describing() -> HTTPRouteHandler:
    document = msgspec.json.encode(openapi.document())

    async def serve() -> Response[bytes]:
        return Response(document, media_type="application/json")

    return HTTPRouteHandler("/v1/openapi.json", http_method=["GET"], name="openapi.get")(serve)


def _routing_error(_request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    if error.status_code == HTTP_404_NOT_FOUND:
        refused = Refused(
            Code.NOT_FOUND, "there is no such route", hint="GET /v1/openapi.json lists all routes"
        )
        return problem_response(refused.problem)
    if error.status_code == HTTP_405_METHOD_NOT_ALLOWED:
        refused = Refused(
            Code.METHOD_NOT_ALLOWED,
            "this route does not take that method",
            hint="the Allow header names those it takes",
        )
        return problem_response(refused.problem, error.headers)
    return refusal(error)


def _other_error(_request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    return refusal(error)
