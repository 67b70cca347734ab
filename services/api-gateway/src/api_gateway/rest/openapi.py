"""The OpenAPI 3.1 document of `/v1`, generated from the routes and the schemas they validate by."""

from http import HTTPMethod, HTTPStatus
from typing import Any

import msgspec
from msgspec import Struct

from api_gateway.idempotency import KEY_CHARS_MAX
from api_gateway.problems import PROBLEM_JSON, ProblemDocument
from api_gateway.rest.present import NEXT, OWN_ID
from api_gateway.rest.routes import ROUTES, Route
from api_gateway.rest.watch import WatchRequest
from entrepot_contracts.registry import Accepted, Done
from entrepot_contracts.values import Role

REF = "#/components/schemas/{name}"
VERSION = "1.0.0"
_PROBLEMS: dict[str, str] = {
    "400": "A field is missing, unknown, malformed or out of range; `field` names it.",
    "401": "No valid API key was presented.",
    "403": "The key's role does not cover this.",
    "404": "There is no such thing for this account.",
    "409": "It conflicts with what is there, or is in use; `facts` names the blockers.",
    "413": "The body is larger than 1 MiB.",
    "422": "Well-formed, but refused; `code` says why.",
    "503": "A service behind the gateway did not answer; send it again with the same key.",
}


class AcceptedAnswer(Struct, frozen=True, kw_only=True):
    """A job does it: follow `links.job`."""

    id: str
    job_id: str
    links: dict[str, str]


def document() -> dict[str, Any]:
    kinds = _kinds()
    schemas, components = msgspec.json.schema_components(kinds, ref_template=REF)
    named = {
        kind: schema["$ref"].rsplit("/", 1)[1] for kind, schema in zip(kinds, schemas, strict=True)
    }
    for component in components.values():
        _drop_tag(component)
    for kind, own in OWN_ID.items():
        _rename(components[named[kind]], own, "id")
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(
            route, named, components
        )
    paths["/v1/events"] = {"get": _watching(components[named[WatchRequest]])}
    paths["/v1/openapi.json"] = {"get": _itself()}
    for route in ROUTES:  # their fields are spelled out as parameters and bodies
        components.pop(named[route.operation.request], None)
    components.pop(named[WatchRequest], None)
    _drop_unused(components, paths)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Entrepot", "version": VERSION},
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _kinds() -> list[type[Struct]]:
    found: dict[type[Struct], None] = {
        ProblemDocument: None,
        AcceptedAnswer: None,
        WatchRequest: None,
    }
    for route in ROUTES:
        found[route.operation.request] = None
        found[route.operation.reply] = None
    return list(found | dict.fromkeys(OWN_ID))


def _operation(
    route: Route, named: dict[type[Struct], str], components: dict[str, Any]
) -> dict[str, Any]:
    operation = route.operation
    schema = components[named[operation.request]]
    said: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": _parameters(route, schema),
        "responses": {
            str(route.status.value): _success(route, named, components),
            **{status: _problem(text, named) for status, text in _PROBLEMS.items()},
        },
    }
    if operation.role is Role.ADMIN:
        said["description"] = "For administrators."
    body = _body(route, schema)
    if body["properties"]:
        said["requestBody"] = {
            "required": bool(body["required"]),
            "content": {"application/json": {"schema": body}},
        }
    return said


def _parameters(route: Route, schema: dict[str, Any]) -> list[dict[str, Any]]:
    found = [
        _parameter(name, "path", schema["properties"][name], required=True)
        for name in route.path_fields
    ]
    if not route.has_body:
        found += [
            _parameter(name, "query", each, required=name in schema.get("required", ()))
            for name, each in schema["properties"].items()
            if name not in route.path_fields
        ]
    if route.method is not HTTPMethod.GET:
        key = {"type": "string", "minLength": 1, "maxLength": KEY_CHARS_MAX}
        found.append(
            _parameter("Idempotency-Key", "header", key, required=False)
            | {"description": "The same key and request again: carried out once, answered alike."}
        )
    return found


def _parameter(name: str, place: str, schema: Any, *, required: bool) -> dict[str, Any]:
    return {"name": name, "in": place, "required": required, "schema": schema}


def _body(route: Route, schema: dict[str, Any]) -> dict[str, Any]:
    properties = schema["properties"] if route.has_body else {}
    return {
        "type": "object",
        "properties": {
            name: each for name, each in properties.items() if name not in route.path_fields
        },
        "required": [name for name in schema.get("required", ()) if name not in route.path_fields],
        "additionalProperties": False,
    }


def _success(
    route: Route, named: dict[type[Struct], str], components: dict[str, Any]
) -> dict[str, Any]:
    reply = route.operation.reply
    if reply is Done or route.status is HTTPStatus.NO_CONTENT:
        return {"description": "Done, or was done already."}
    shown = AcceptedAnswer if reply is Accepted else reply
    if "items" in reply.__struct_fields__:
        _add_cursor(components[named[reply]])
    return {
        "description": "Accepted." if reply is Accepted else "Done.",
        "content": {"application/json": {"schema": {"$ref": REF.format(name=named[shown])}}},
    }


def _problem(text: str, named: dict[type[Struct], str]) -> dict[str, Any]:
    ref = {"$ref": REF.format(name=named[ProblemDocument])}
    return {"description": text, "content": {PROBLEM_JSON: {"schema": ref}}}


def _watching(schema: dict[str, Any]) -> dict[str, Any]:
    parameters = [
        _parameter(name, "query", each, required=False)
        for name, each in schema["properties"].items()
    ]
    parameters.append(_parameter("Last-Event-ID", "header", {"type": "string"}, required=False))
    return {
        "operationId": "event.watch",
        "summary": "Changes of the own resources and progress of transfers, as they happen.",
        "parameters": parameters,
        "responses": {
            "200": {
                "description": "Server-sent events.",
                "content": {"text/event-stream": {"schema": {"type": "string"}}},
            }
        },
    }


def _itself() -> dict[str, Any]:
    return {
        "operationId": "openapi.get",
        "summary": "This document.",
        "security": [],
        "responses": {
            "200": {
                "description": "OpenAPI 3.1.",
                "content": {"application/json": {"schema": {"type": "object"}}},
            }
        },
    }


def _drop_tag(component: dict[str, Any]) -> None:
    """Tags tell messages apart on the bus; answers of a route are of one kind."""
    tag = component.get("properties", {}).get("type", {})
    if "enum" in tag and len(tag["enum"]) == 1 and set(tag) == {"enum"}:
        del component["properties"]["type"]
        component["required"] = [name for name in component["required"] if name != "type"]


def _rename(component: dict[str, Any], old: str, new: str) -> None:
    properties = component["properties"]
    component["properties"] = {new: properties.pop(old), **properties}
    component["required"] = [new if name == old else name for name in component["required"]]


def _drop_unused(components: dict[str, Any], paths: dict[str, Any]) -> None:
    """Only what an answer can contain is published: no internal message by its side."""
    used: set[str] = set()
    waiting = _references(paths)
    while waiting:
        name = waiting.pop()
        if name not in used:
            used.add(name)
            waiting |= _references(components[name])
    for name in set(components) - used:
        del components[name]


def _references(part: Any) -> set[str]:
    if isinstance(part, dict):
        own = {part["$ref"].rsplit("/", 1)[1]} if isinstance(part.get("$ref"), str) else set()
        return own.union(*map(_references, part.values()))
    if isinstance(part, list):
        return set().union(*map(_references, part))
    return set()


def _add_cursor(component: dict[str, Any]) -> None:
    component["properties"][NEXT] = {
        "anyOf": [{"type": "string"}, {"type": "null"}],
        "description": "Cursor of the next page: give it as `after`. null: this is the last.",
    }
