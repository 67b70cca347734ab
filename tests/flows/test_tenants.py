"""Two tenants and an administrator: what is one's is nothing to the other, on every route."""

import contextlib
import http.client
import json
import socket
import threading
import urllib.parse
from types import SimpleNamespace

import pytest

from demo.image import MIB
from entrepot_testkit.api import ApiProblem, until
from tests.flows.house import JOB_S, NOBODY
from tests.flows.sources import write_pattern

ADMIN_ONLY = {
    *(("POST", "/v1/accounts"), ("GET", "/v1/accounts"), ("POST", "/v1/zones")),
    *(
        (method, f"/v1/{role}-stores")
        for role in ("image", "primary")
        for method in ("GET", "POST")
    ),
    *(("DELETE", f"/v1/{role}-stores/{{store_id}}") for role in ("image", "primary")),
    *(("GET", "/v1/settings"), ("PUT", "/v1/settings/{name}"), ("GET", "/v1/movers")),
    *((method, "/v1/cache-pools") for method in ("GET", "POST")),
    ("DELETE", "/v1/cache-pools/{pool_id}"),
    *((method, "/v1/scaling-pools") for method in ("GET", "POST")),
    ("PUT", "/v1/scaling-pools/{pool_id}"),
}
# Lists that anybody may ask for: what is another's is absent.
OWN_LISTS = {
    ("GET", f"/v1/{noun}") for noun in ("templates", "volumes", "snapshots", "jobs", "transfers")
}
# Routes that name a thing of somebody's in the path: another's does not exist.
OF_ONE = {
    *((method, "/v1/accounts/{account_id}/keys") for method in ("GET", "POST")),
    ("DELETE", "/v1/accounts/{account_id}/keys/{key_id}"),
    *((method, "/v1/templates/{template_id}") for method in ("GET", "DELETE")),
    ("POST", "/v1/templates/{template_id}/extract"),
    *((method, "/v1/volumes/{volume_id}") for method in ("GET", "DELETE")),
    *((method, "/v1/snapshots/{snapshot_id}") for method in ("GET", "DELETE")),
    *(("GET", "/v1/jobs/{job_id}"), ("GET", "/v1/transfers/{transfer_id}")),
    ("POST", "/v1/transfers/{transfer_id}/cancel"),
}
# Routes that make something, of things named in the body: another's does not exist.
MAKING = {("POST", "/v1/templates"), ("POST", "/v1/volumes"), ("POST", "/v1/snapshots")}
FOR_ALL = {("GET", "/v1/me"), ("GET", "/v1/zones"), ("GET", "/v1/providers"), ("GET", "/v1/events")}
OPEN = {("GET", "/v1/openapi.json")}
BODIES = {("POST", "/v1/accounts/{account_id}/keys"): {"name": "mine"}}


@pytest.fixture(scope="module")
def alice(house):
    """A tenant with one thing of every kind."""
    account_id, key_id, api = house.tenant("alice")
    file = write_pattern(house.sources.folder / "tenant.raw", 2 * MIB)
    template = house.register(house.sources.url(file.name), api=api, format="raw")
    house.done(template, api=api)
    body = {"name": "hers", "zone_id": house.zones["north"], "template_id": template["id"]}
    volume = api.post("/v1/volumes", body)
    house.done(volume, api=api)
    snapshot = api.post("/v1/snapshots", {"name": "hers", "volume_id": volume["id"]})
    house.done(snapshot, api=api)
    extract = api.post(f"/v1/templates/{template['id']}/extract")
    house.done(extract, api=api)
    return SimpleNamespace(
        api=api,
        ids={
            "account_id": account_id,
            "key_id": key_id,
            "template_id": template["id"],
            "volume_id": volume["id"],
            "snapshot_id": snapshot["id"],
            "job_id": extract["job_id"],
            "transfer_id": api.transfers(template["job_id"])[0]["id"],
        },
        all_ids={one[key] for one in (template, volume, snapshot) for key in ("id", "job_id")},
    )


@pytest.fixture(scope="module")
def bob(house):
    account_id, key_id, api = house.tenant("bob")
    return SimpleNamespace(api=api, key=api._key, account_id=account_id, key_id=key_id)


@pytest.fixture(scope="module")
def routes(house):
    """Every route the API says it has."""
    paths = house.raw("GET", "/v1/openapi.json", key="").document["paths"]
    return {(method.upper(), path) for path, ways in paths.items() for method in ways}


def test_every_route_is_in_one_of_the_tables_of_this_file(routes):
    tables = [ADMIN_ONLY, OWN_LISTS, OF_ONE, MAKING, FOR_ALL, OPEN]
    assert routes == set().union(*tables)
    assert len(routes) == sum(map(len, tables))


def test_without_a_valid_key_no_route_answers(house, routes, bob):
    revoked = house.api.post(f"/v1/accounts/{bob.account_id}/keys", {"name": "short"})
    house.api.delete(f"/v1/accounts/{bob.account_id}/keys/{revoked['id']}")
    altered = bob.key[:-2] + ("AA" if bob.key[-2:] != "AA" else "BB")
    for method, path in routes - OPEN:
        for key in ("", "nonsense", altered, revoked["key"]):
            answer = house.raw(method, path.replace("{", "").replace("}", ""), key=key)
            assert (answer.status, answer.document["code"]) == (401, "unauthenticated"), path
            assert answer.document["hint"]


def test_a_tenant_is_refused_where_administrators_work(house, bob):
    for method, path in ADMIN_ONLY:
        for body in (None, "{no json"):  # who may not ask learns nothing about the body
            answer = house.raw(method, path.format(**_anything(path)), body, key=bob.key)
            assert (answer.status, answer.document["code"]) == (403, "forbidden"), path
            assert answer.document["hint"]


def _anything(path):
    return {part.strip("{}"): NOBODY for part in path.split("/") if part.startswith("{")}


def test_what_is_anothers_does_not_exist_on_any_route_that_names_it(house, alice, bob):
    for method, path in OF_ONE:
        body = json.dumps(BODIES.get((method, path), {})) if method == "POST" else None
        answer = house.raw(method, path.format(**alice.ids), body, key=bob.key)
        assert (answer.status, answer.document["code"]) == (404, "not_found"), (method, path)
        assert answer.document["hint"], (method, path)
        nobodys = house.raw(method, path.format(**_anything(path)), body, key=bob.key)
        told = answer.document["detail"].translate(str.maketrans("", "", "0123456789abcdef"))
        same = nobodys.document["detail"].translate(str.maketrans("", "", "0123456789abcdef"))
        assert told == same, "the answer tells another's thing from one that is not there"


def test_the_same_routes_answer_their_owner(house, alice):
    """So that the test above fails for the owner, not for the route."""
    for path in sorted(path for method, path in OF_ONE if method == "GET"):
        answer = house.raw("GET", path.format(**alice.ids), key=alice.api._key)
        assert answer.status == 200, (path, answer)
    job = alice.api.get(f"/v1/jobs/{alice.ids['job_id']}")
    assert urllib.parse.urlsplit(job["url"]).query
    assert house.api.get(f"/v1/jobs/{alice.ids['job_id']}")["url"] is None, "not even for an admin"


def test_lists_do_not_hold_what_is_anothers(alice, bob):
    for _, path in OWN_LISTS:
        hers, his = (json.dumps(api.get(path, limit=500)["items"]) for api in (alice.api, bob.api))
        assert alice.ids["account_id"] in hers, path
        for found in (*alice.ids.values(), *alice.all_ids):
            assert found not in his, path
    assert bob.api.get("/v1/transfers", job_id=alice.ids["job_id"])["items"] == []


def test_nothing_can_be_made_of_what_is_anothers(house, alice, bob):
    zone = {"name": "his", "zone_id": house.zones["north"]}
    for path, body in (
        ("/v1/volumes", zone | {"template_id": alice.ids["template_id"]}),
        ("/v1/volumes", zone | {"snapshot_id": alice.ids["snapshot_id"]}),
        ("/v1/snapshots", {"name": "his", "volume_id": alice.ids["volume_id"]}),
    ):
        with pytest.raises(ApiProblem) as refused:
            bob.api.post(path, body)
        assert (refused.value.status, refused.value.code) == (404, "not_found"), body
        assert refused.value.document["field"] == next(key for key in body if key in alice.ids)
    assert bob.api.get("/v1/volumes")["items"] == []


def test_an_idempotency_key_of_another_brings_nothing_of_hers(house, alice, bob):
    headers = {"Idempotency-Key": "the-same-for-both"}
    body = json.dumps({"name": "first", "zone_id": house.zones["north"], "size_bytes": 4096})
    made = [
        house.raw("POST", "/v1/volumes", body, key=who._key, headers=headers)
        for who in (alice.api, bob.api)
    ]
    assert [one.status for one in made] == [202, 202]
    assert made[0].document["id"] != made[1].document["id"]
    for api, one in zip((alice.api, bob.api), made, strict=True):
        house.done(one.document, api=api)
        house.done(api.delete(f"/v1/volumes/{one.document['id']}"), api=api)


def test_a_public_template_is_for_everybody_and_changed_by_nobody_else(house, alice, bob):
    url = house.sources.url("tenant.raw")
    accepted = house.register(url, api=alice.api, format="raw", public=True)
    template_id = house.done(accepted, api=alice.api)
    assert bob.api.get(f"/v1/templates/{template_id}")["public"] is True
    assert template_id in {one["id"] for one in bob.api.get("/v1/templates")["items"]}
    with pytest.raises(ApiProblem) as refused:
        bob.api.delete(f"/v1/templates/{template_id}")
    assert (refused.value.status, refused.value.code) == (403, "forbidden")
    assert refused.value.document["hint"]
    body = {"name": "his", "zone_id": house.zones["south"], "template_id": template_id}
    volume_id = house.done(bob.api.post("/v1/volumes", body), api=bob.api)
    for api in (alice.api, bob.api):
        with contextlib.suppress(ApiProblem):
            assert api.get(f"/v1/volumes/{volume_id}").get("path") is None, "for admins only"
    with pytest.raises(ApiProblem):
        alice.api.get(f"/v1/volumes/{volume_id}")
    assert house.api.get(f"/v1/volumes/{volume_id}")["path"]


# --- events ------------------------------------------------------------------------------------


class Events:
    """An open event stream, read by a thread as it comes."""

    def __init__(self, url, key):
        at = urllib.parse.urlsplit(url)
        self._line = http.client.HTTPConnection(at.hostname, at.port, timeout=JOB_S)
        self._line.request("GET", "/v1/events", headers={"Authorization": f"Bearer {key}"})
        self._socket = self._line.sock
        self._answer = self._line.getresponse()
        assert self._answer.status == 200
        self.text = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        until(lambda: self.text, timeout_s=JOB_S, what="the stream is open")

    def _read(self):
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
            while piece := self._answer.read1(65536):
                self.text += piece.decode()

    def close(self):
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._reader.join()
        self._answer.close()
        self._line.close()


def test_the_event_stream_of_a_tenant_carries_nothing_of_another(house, alice, bob):
    streams = [Events(house.stack.url, api._key) for api in (alice.api, bob.api)]
    hers, his = streams
    try:
        url = house.sources.url("tenant.raw")
        made = house.register(url, api=alice.api, format="raw")
        house.done(made, api=alice.api)
        house.done(alice.api.delete(f"/v1/templates/{made['id']}"), api=alice.api)
        own = house.register(house.sources.url("tenant.raw", way="missing"), api=bob.api)
        bob.api.ended(own["job_id"])
        ended = f'"job_id":"{own["job_id"]}"'
        until(
            lambda: his.text.count(ended) >= 2 and '"failed"' in his.text,
            timeout_s=JOB_S,
            what="his own events, which come after all of hers",
        )
        until(
            lambda: '"deleted"' in hers.text and made["job_id"] in hers.text,
            timeout_s=JOB_S,
            what="her own events",
        )
    finally:
        for stream in streams:
            stream.close()
    for secret in (alice.ids["account_id"], made["id"], made["job_id"]):
        assert secret in hers.text
        assert secret not in his.text
    assert bob.account_id not in hers.text


def test_a_tenant_cannot_watch_every_account(house, bob):
    answer = house.raw("GET", "/v1/events?all_accounts=true", key=bob.key)
    assert (answer.status, answer.document["code"]) == (403, "forbidden")
    assert answer.document["field"] == "all_accounts"
