"""Whatever is wrong with a request, the answer has a stable code, the field and what to do."""

import asyncio
import json

import pytest

from entrepot_contracts import registry

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
GOOD = {"name": "u24", "url": "http://x/u24.qcow2", "format": "qcow2"}


def problem(answer, status, code, field=None):
    document = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, document["code"], document["field"]) == (status, code, field)
    assert document["status"] == status
    assert document["type"].endswith(code)
    assert document["hint"]
    assert document["correlation_id"] == answer.headers["x-request-id"]
    return document


@pytest.mark.parametrize(
    "body", [b"", b"{", b"null", b"[]", b'"x"', b"\xff\xfe", b"name=x&url=y", b"[" * 100_000]
)
async def test_a_body_that_is_no_json_object_is_refused(gateway, body):
    answer = await gateway.alice.post("/v1/templates", content=body)
    problem(answer, 400, "invalid", "body" if body else "name")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": None}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x" * 256}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"name": "a\u2028b"}, "name"),
        ({"name": "a\x9bb"}, "name"),
        ({"name": 7}, "name"),
        ({"url": ""}, "url"),
        ({"url": "x" * 2049}, "url"),
        ({"format": "vmdk"}, "format"),
        ({"scope": "galaxy"}, "scope"),
        ({"zone_ids": ["nope"]}, "zone_ids[0]"),
        ({"zone_ids": ID}, "zone_ids"),
        ({"checksum": {"algorithm": "sha256", "value": "XYZ"}}, "checksum.value"),
        ({"checksum": {"algorithm": "crc", "value": "00"}}, "checksum.algorithm"),
        ({"checksum": {"value": "00"}}, "checksum.algorithm"),
        ({"public": "yes"}, "public"),
        ({"public\x1b[31m": True}, "public?[31m"),
        ({"unknown": 1}, "unknown"),
    ],
)
async def test_a_wrong_field_is_named_and_never_repeated(gateway, change, field):
    answer = await gateway.alice.post("/v1/templates", json=GOOD | change)
    document = problem(answer, 400, "invalid", field)
    assert field in document["detail"]
    (said,) = change.values()
    if isinstance(said, str) and said:
        assert said not in document["detail"]
    assert gateway.owners.asked == []


async def test_a_wrong_choice_is_answered_with_the_right_ones(gateway):
    answer = await gateway.alice.post("/v1/templates", json=GOOD | {"format": "vmdk"})
    assert "qcow2, raw, iso" in answer.json()["detail"]
    checksum = {"algorithm": "crc", "value": "00"}
    answer = await gateway.alice.post("/v1/templates", json=GOOD | {"checksum": checksum})
    assert "sha256, sha512" in answer.json()["detail"]


@pytest.mark.parametrize("missing", ["name", "url", "format"])
async def test_a_missing_field_is_named(gateway, missing):
    body = {name: value for name, value in GOOD.items() if name != missing}
    document = problem(
        await gateway.alice.post("/v1/templates", json=body), 400, "invalid", missing
    )
    assert "required" in document["detail"]


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/templates?limit=0", "limit"),
        ("/v1/templates?limit=501", "limit"),
        ("/v1/templates?limit=ten", "limit"),
        ("/v1/templates?limit=1&limit=2", "limit"),
        ("/v1/templates?after=x", "after"),
        ("/v1/templates?colour=red", "colour"),
        ("/v1/templates/not-an-id", "template_id"),
        (f"/v1/templates/{ID.upper()}", "template_id"),
        (f"/v1/templates/{ID}%0a", "template_id"),
        (f"/v1/templates/{ID}?template_id={ID}", "template_id"),
        (f"/v1/jobs/{ID}?wait_s=26", "wait_s"),
        (f"/v1/jobs/{ID}?wait_s=nan", "wait_s"),
        ("/v1/events?all_accounts=perhaps", "all_accounts"),
    ],
)
async def test_a_wrong_query_or_path_is_named(gateway, path, field):
    problem(await gateway.alice.get(path), 400, "invalid", field)
    assert gateway.owners.asked == []


async def test_a_post_takes_no_query(gateway):
    answer = await gateway.alice.post("/v1/templates?name=x", json=GOOD)
    problem(answer, 400, "invalid", "name")


async def test_a_path_field_is_not_taken_from_the_body(gateway):
    answer = await gateway.admin.put("/v1/settings/a", json={"name": "b", "value": "c"})
    problem(answer, 400, "invalid", "name")


async def test_a_body_above_one_mebibyte_is_refused(gateway):
    body = json.dumps(GOOD | {"url": "x" * (1 << 20)}).encode()
    problem(await gateway.alice.post("/v1/templates", content=body), 413, "too_large", "body")

    async def chunks():
        for _ in range(20):
            yield b"x" * (1 << 16)

    problem(await gateway.alice.post("/v1/templates", content=chunks()), 413, "too_large", "body")


async def test_an_unknown_route_and_a_wrong_method_are_problems_too(gateway):
    problem(await gateway.alice.get("/v1/nothing"), 404, "not_found")
    problem(await gateway.alice.get("/"), 404, "not_found")
    answer = await gateway.alice.put("/v1/zones", json={})
    problem(answer, 405, "method_not_allowed")
    assert "POST" in answer.headers["allow"]
    problem(await gateway.alice.request("PATCH", "/v1/zones"), 405, "method_not_allowed")


async def test_an_owner_that_does_not_answer_is_a_503_that_may_be_repeated(gateway):
    gateway.owners.held[registry.ListZones] = asyncio.Event()
    answer = await gateway.alice.get("/v1/zones")
    document = problem(answer, 503, "unavailable")
    assert document["retryable"]
    assert answer.headers["retry-after"] == "1"


async def test_what_breaks_inside_an_owner_says_nothing_of_its_inside(gateway):
    gateway.owners.refusals[registry.ListZones] = RuntimeError("password=hunter2")
    answer = await gateway.alice.get("/v1/zones")
    problem(answer, 500, "internal")
    assert "hunter2" not in answer.text
