"""What the routes do: each asks its owner the right thing and answers in the `/v1` shape."""

import json

import msgspec

from entrepot_contracts import registry
from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.values import Role

TEMPLATE = {"name": "u24", "url": "http://x/u24.qcow2", "format": "qcow2"}
ID = "01890a5d-ac96-774b-bcce-b302099a8057"


async def test_registering_a_template_is_one_command_and_answers_with_its_job(gateway):
    answer = await gateway.alice.post("/v1/templates", json=TEMPLATE)
    assert answer.status_code == 202, answer.text
    (command,) = gateway.owners.asked_of(registry.RegisterTemplate)
    assert answer.json() == {
        "id": command.template_id,
        "job_id": command.job_id,
        "links": {
            "self": f"/v1/templates/{command.template_id}",
            "job": f"/v1/jobs/{command.job_id}",
        },
    }
    assert command.actor.account_id == gateway.account_ids["alice"]
    assert command.actor.role is Role.USER


async def test_a_view_has_its_own_id_and_no_wire_tag_at_any_depth(gateway):
    made = (await gateway.alice.post("/v1/templates", json=TEMPLATE)).json()
    template = (await gateway.alice.get(made["links"]["self"])).json()
    assert template["id"] == made["id"]
    assert "template_id" not in template
    assert "type" not in template
    assert template["copies"][0]["error"]["code"] == "store_full"
    assert "type" not in template["copies"][0]["error"]


async def test_what_is_done_at_once_is_answered_201_with_a_link(gateway):
    answer = await gateway.admin.post("/v1/zones", json={"name": "z1"})
    assert answer.status_code == 201
    assert answer.json()["name"] == "z1"
    (command,) = gateway.owners.asked_of(registry.CreateZone)
    assert answer.json()["links"]["self"] == f"/v1/zones/{command.zone_id}"


async def test_a_full_page_gives_a_cursor_and_a_short_one_none(gateway):
    for _ in range(2):
        await gateway.alice.post("/v1/templates", json=TEMPLATE)
    page = (await gateway.alice.get("/v1/templates?limit=2")).json()
    assert page["next"] == page["items"][-1]["id"]
    assert (await gateway.alice.get("/v1/templates?limit=100")).json()["next"] is None
    await gateway.alice.get(f"/v1/templates?limit=7&after={page['next']}")
    asked = gateway.owners.asked_of(registry.ListTemplates)[-1]
    assert (asked.page.limit, asked.page.after) == (7, page["next"])


async def test_store_settings_travel_sealed_to_the_registry(gateway):
    config = {"path": "/x", "secret": "canary-7f3a"}
    answer = await gateway.admin.post(
        "/v1/image-stores", json={"name": "main", "provider": "dir", "config": config}
    )
    assert answer.status_code == 202
    (command,) = gateway.owners.asked_of(registry.AddStore)
    assert b"canary" not in msgspec.json.encode(command)
    assert json.loads(gateway.owners.pair.open(command.details.box)) == config
    assert answer.json()["links"]["self"] == f"/v1/image-stores/{command.store_id}"


async def test_a_wrong_store_setting_is_named_as_the_caller_wrote_it(gateway):
    gateway.owners.refusals[registry.AddStore] = Refused(Code.INVALID, "no", field="details.path")
    body = {"name": "main", "provider": "dir", "config": {}}
    answer = await gateway.admin.post("/v1/image-stores", json=body)
    assert (answer.status_code, answer.json()["field"]) == (400, "config.path")


async def test_the_query_of_a_source_travels_sealed_to_the_registry(gateway):
    signed = {**TEMPLATE, "url": "http://x/u24.qcow2?sig=canary-51d0%2B&a=1#canary-frag"}
    answer = await gateway.alice.post("/v1/templates", json=signed)
    assert answer.status_code == 202, answer.text
    (command,) = gateway.owners.asked_of(registry.RegisterTemplate)
    assert command.url == "http://x/u24.qcow2"
    assert b"canary" not in msgspec.json.encode(gateway.owners.asked)
    assert command.query.recipient == gateway.owners.pair.public_key
    assert gateway.owners.pair.open(command.query.box) == b"sig=canary-51d0%2B&a=1"


async def test_an_url_without_a_query_needs_no_sealing_and_loses_nothing(gateway):
    assert (await gateway.alice.post("/v1/templates", json=TEMPLATE)).status_code == 202
    (command,) = gateway.owners.asked_of(registry.RegisterTemplate)
    assert (command.url, command.query) == (TEMPLATE["url"], None)
    assert gateway.owners.asked_of(registry.GetSealingKey) == []


async def test_a_wrong_query_is_named_as_the_caller_wrote_it(gateway):
    gateway.owners.refusals[registry.RegisterTemplate] = Refused(Code.INVALID, "no", field="query")
    answer = await gateway.alice.post("/v1/templates", json=TEMPLATE)
    assert (answer.status_code, answer.json()["field"]) == (400, "url")
    answer = await gateway.alice.post("/v1/templates", json={**TEMPLATE, "url": "?sig=1"})
    assert (answer.status_code, answer.json()["field"]) == (400, "url")


async def test_an_url_with_a_password_is_refused_before_anybody_is_asked(gateway):
    url = "http://me:canary-pw@x/u24.qcow2"
    answer = await gateway.alice.post("/v1/templates", json={**TEMPLATE, "url": url})
    assert (answer.status_code, answer.json()["field"]) == (400, "url")
    assert "canary" not in answer.text
    assert gateway.owners.asked_of(registry.RegisterTemplate) == []


async def test_a_link_is_shown_to_the_owner_of_its_job_only(gateway):
    made = (await gateway.alice.post("/v1/templates", json=TEMPLATE)).json()
    extract = await gateway.alice.post(f"/v1/templates/{made['id']}/extract", json={})
    assert extract.status_code == 202
    job = f"/v1/jobs/{extract.json()['job_id']}"
    assert "link-canary" in (await gateway.alice.get(job)).json()["url"]
    assert (await gateway.bob.get(job)).status_code == 404
    seen_by_admin = await gateway.admin.get(job)
    assert seen_by_admin.status_code == 200
    assert seen_by_admin.json()["url"] is None
    assert "link" not in seen_by_admin.json()
    listed = await gateway.alice.get("/v1/jobs")
    assert "link-canary" not in listed.text


async def test_waiting_for_a_job_is_passed_on(gateway):
    made = (await gateway.alice.post("/v1/templates", json=TEMPLATE)).json()
    await gateway.alice.get(f"/v1/jobs/{made['job_id']}?wait_s=1.5")
    assert gateway.owners.asked_of(registry.GetJob)[-1].wait_s == 1.5


async def test_a_refusal_keeps_its_code_field_hint_and_facts(gateway):
    gateway.owners.refusals[registry.DeleteStore] = Refused(
        Code.IN_USE, "two templates live here", hint="move them", facts={"templates": "a,b"}
    )
    answer = await gateway.admin.delete(f"/v1/image-stores/{ID}", headers={"x-request-id": "r-1"})
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "urn:entrepot:problem:in_use",
        "title": "In use",
        "status": 409,
        "code": "in_use",
        "detail": "two templates live here",
        "field": None,
        "hint": "move them",
        "retryable": False,
        "facts": {"templates": "a,b"},
        "correlation_id": "r-1",
    }


async def test_settings_are_changed_by_name(gateway):
    answer = await gateway.admin.put("/v1/settings/image-store.mixing", json={"value": "any"})
    assert answer.status_code == 200
    assert answer.json()["items"][0]["value"] == "any"


async def test_cache_and_scaling_pools_reach_their_owners(gateway):
    pool = await gateway.admin.post(
        "/v1/cache-pools",
        json={
            "name": "c",
            "scope": "zone",
            "zone_id": ID,
            "provider": "dir",
            "config": {"path": "/c"},
            "capacity_bytes": 1,
        },
    )
    assert pool.status_code == 201, pool.text
    assert pool.json()["store"]["config"] == {"path": "/c"}
    scaling = await gateway.admin.post("/v1/scaling-pools", json={"zone_id": ID, "vms_max": 3})
    assert scaling.status_code == 201, scaling.text
    changed = await gateway.admin.put(
        f"/v1/scaling-pools/{scaling.json()['id']}", json={"zone_id": ID, "vms_max": 5}
    )
    assert changed.json()["vms_max"] == 5


async def test_the_correlation_id_reaches_the_owner_and_comes_back(gateway):
    answer = await gateway.alice.get("/v1/zones", headers={"x-corr": "corr-42"})
    assert answer.headers["x-request-id"] == "corr-42"
    assert gateway.owners.corrs[-1] == "corr-42"
    strange = await gateway.alice.get("/v1/zones", headers={"x-request-id": "bad id {}"})
    assert strange.headers["x-request-id"] == gateway.owners.corrs[-1] != "bad id {}"
