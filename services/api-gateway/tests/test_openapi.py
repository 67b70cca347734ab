"""The OpenAPI document is the truth about what the routes take and answer."""

import jsonschema
import msgspec
import pytest

from api_gateway.operations import OPERATIONS
from api_gateway.rest import openapi
from api_gateway.rest.routes import ROUTES

ID = "01890a5d-ac96-774b-bcce-b302099a8057"


@pytest.fixture(scope="module")
def document():
    return openapi.document()


def references(part):
    if isinstance(part, dict):
        yield from [part["$ref"]] if "$ref" in part else []
        for each in part.values():
            yield from references(each)
    if isinstance(part, list):
        for each in part:
            yield from references(each)


def test_every_operation_has_exactly_one_route():
    assert sorted(route.operation.name for route in ROUTES) == sorted(
        operation.name for operation in OPERATIONS
    )


def test_every_reference_leads_somewhere_and_nothing_is_left_over(document):
    schemas = document["components"]["schemas"]
    used = {ref.removeprefix("#/components/schemas/") for ref in references(document)}
    assert used == set(schemas)
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_every_route_says_that_it_authenticates_and_how_it_refuses(document):
    assert document["security"] == [{"key": []}]
    for route in ROUTES:
        said = document["paths"][route.path][route.method.lower()]
        assert "security" not in said
        assert {"400", "401", "403", "404", "503"} < set(said["responses"])
        assert said["responses"]["401"]["content"].keys() == {"application/problem+json"}


def test_bodies_name_their_fields_and_forbid_others(document):
    body = document["paths"]["/v1/templates"]["post"]["requestBody"]["content"]
    schema = body["application/json"]["schema"]
    assert schema["required"] == ["name", "url", "format"]
    assert schema["additionalProperties"] is False
    assert "actor" not in schema["properties"]
    assert "template_id" not in schema["properties"]
    put = document["paths"]["/v1/settings/{name}"]["put"]
    assert put["parameters"][0]["name"] == "name"
    assert put["requestBody"]["content"]["application/json"]["schema"]["required"] == ["value"]


async def test_it_is_served_without_a_key(gateway, document):
    answer = await gateway.nobody.get("/v1/openapi.json")
    assert answer.json() == msgspec.json.decode(msgspec.json.encode(document))


async def test_live_answers_are_what_it_promises(gateway, document):
    """Every GET, asked for something that exists, against its own schema; and a refusal."""
    gateway.owners.owner_of[ID] = gateway.account_ids["admin"]
    checked = 0
    for route in ROUTES:
        if route.method != "GET":
            continue
        path = route.path.replace("{account_id}", gateway.account_ids["admin"])
        for field in route.path_fields:
            path = path.replace(f"{{{field}}}", ID)
        answer = await gateway.admin.get(path)
        assert answer.status_code == 200, (path, answer.text)
        check(document, route, "200", answer.json())
        checked += 1
    assert checked >= 18
    refused = await gateway.nobody.get("/v1/zones")
    zones = next(route for route in ROUTES if route.operation.name == "zone.list")
    check(document, zones, "401", refused.json())


def check(document, route, status, said):
    responses = document["paths"][route.path][route.method.lower()]["responses"]
    (content,) = responses[status]["content"].values()
    name = content["schema"]["$ref"].removeprefix("#/components/schemas/")
    schema = document["components"]["schemas"][name]
    whole = {**strict(schema), "components": document["components"]}
    jsonschema.Draft202012Validator(whole).validate(said)


def strict(schema):
    """Nothing but what the document names may be in an answer."""
    return {**schema, "additionalProperties": False} if "properties" in schema else schema
