"""Who may do what: a matrix over all routes the application really has, and the life of keys."""

import pytest
from litestar.routes import HTTPRoute

from api_gateway.credentials import matches, mint, parse_authorization
from api_gateway.rest.routes import ROUTES
from api_gateway.rest.site import OPEN_PATHS, site
from entrepot_chassis.clock import SystemIds
from entrepot_contracts.values import Role

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
ALICES = "01890a5d-ac96-774b-bcce-000000000a11"  # alice owns a thing of every noun with this id

BODIES = {
    "account.create": {"name": "carol"},
    "key.create": {"name": "laptop"},
    "zone.create": {"name": "z1"},
    "image_store.add": {"name": "s", "provider": "dir", "config": {}},
    "primary_store.add": {"name": "s", "provider": "dir", "config": {}, "zone_id": ID},
    "setting.put": {"value": "any"},
    "template.register": {"name": "t", "url": "http://x/t", "format": "raw"},
    "template.extract": {},
    "volume.create": {"name": "v", "zone_id": ID, "size_bytes": 1 << 20},
    "snapshot.create": {"name": "s", "volume_id": ALICES},
    "transfer.cancel": {},
    "cache_pool.add": {
        "name": "c",
        "scope": "zone",
        "zone_id": ID,
        "provider": "dir",
        "config": {},
        "capacity_bytes": 1,
    },
    "scaling_pool.create": {"zone_id": ID},
    "scaling_pool.put": {"zone_id": ID},
}


def application():
    return site(face=None, watch=None)


def real_routes():
    """(method, path) of everything the application answers, straight from its router."""
    return sorted(
        (method, route.path_format)
        for route in application().routes
        if isinstance(route, HTTPRoute)
        for method in route.methods
        if method != "OPTIONS"
    )


def filled(route, gateway, *, account="alice"):
    values = {
        "account_id": gateway.account_ids[account],
        "key_id": parse_authorization(f"Bearer {gateway.keys[account]}").key_id,
        "name": "image-store.mixing",
        "store_id": ID,
        "pool_id": ID,
    }
    path = route.path
    for field in route.path_fields:
        path = path.replace(f"{{{field}}}", values.get(field, ALICES))
    return path


async def ask(client, route, path):
    body = BODIES[route.operation.name] if route.has_body else None
    return await client.request(route.method, path, json=body)


@pytest.fixture
def alices_things(gateway):
    gateway.owners.owner_of[ALICES] = gateway.account_ids["alice"]


def test_the_matrix_covers_every_route_the_application_has():
    listed = {(route.method.value, route.path) for route in ROUTES}
    listed |= {("GET", "/v1/events"), ("GET", "/v1/openapi.json")}
    assert set(real_routes()) == listed
    assert {route.operation.name for route in ROUTES if route.has_body} == set(BODIES)


async def test_nobody_gets_past_any_route_but_the_open_document(gateway):
    for method, path in real_routes():
        for name, value in {"a": ID, "b": "x"}.items():
            concrete = path.replace("{", "").replace("}", "") if name == "b" else path
            answer = await gateway.nobody.request(method, concrete, json={"junk": value})
            expected = 200 if path in OPEN_PATHS else 401
            assert answer.status_code == expected, (method, path, answer.text)
            if expected == 401:
                assert answer.json()["code"] == "unauthenticated"
                assert answer.headers["www-authenticate"].startswith("Bearer")
    assert gateway.owners.asked == []


async def test_methods_we_do_not_speak_are_refused_without_a_key(gateway):
    for method in ("OPTIONS", "HEAD", "PATCH", "TRACE"):
        answer = await gateway.nobody.request(method, "/v1/zones")
        assert answer.status_code == 405, method


async def test_a_user_is_refused_every_route_of_administrators(gateway):
    admin_routes = [route for route in ROUTES if route.operation.role is Role.ADMIN]
    assert len(admin_routes) > 10
    for route in admin_routes:
        answer = await ask(gateway.alice, route, filled(route, gateway))
        assert answer.status_code == 403, (route.operation.name, answer.text)
        assert answer.json()["code"] == "forbidden"
    assert gateway.owners.asked == []
    watch = await gateway.alice.get("/v1/events?all_accounts=true")
    assert (watch.status_code, watch.json()["field"]) == (403, "all_accounts")


async def test_a_user_may_use_every_other_route_on_own_things(gateway, alices_things):
    # The key that asks is the last path: it revokes itself.
    routes = [route for route in ROUTES if route.operation.role is Role.USER]
    for route in sorted(routes, key=lambda route: route.operation.name == "key.revoke"):
        answer = await ask(gateway.alice, route, filled(route, gateway))
        assert answer.status_code == route.status.value, (route.operation.name, answer.text)


async def test_the_things_of_another_tenant_do_not_exist(gateway, alices_things):
    tried = 0
    for route in ROUTES:
        touches = {"template_id", "volume_id", "snapshot_id", "job_id", "transfer_id", "account_id"}
        touching = touches & set(route.path_fields) or route.operation.name == "snapshot.create"
        if not touching or route.operation.role is Role.ADMIN:
            continue
        answer = await ask(gateway.bob, route, filled(route, gateway))
        assert answer.status_code == 404, (route.operation.name, answer.text)
        assert gateway.account_ids["alice"] not in answer.text
        tried += 1
    assert tried >= 14
    for noun in ("templates", "volumes", "snapshots", "jobs", "transfers"):
        assert ALICES not in (await gateway.bob.get(f"/v1/{noun}")).text
    # alice's key was not revoked by bob's try
    assert (await gateway.alice.get("/v1/me")).status_code == 200


async def test_an_administrator_may_use_every_route(gateway, alices_things):
    for route in sorted(ROUTES, key=lambda route: route.operation.name == "key.revoke"):
        answer = await ask(gateway.admin, route, filled(route, gateway))
        assert answer.status_code == route.status.value, (route.operation.name, answer.text)


async def test_no_field_of_a_body_says_who_asks(gateway):
    for name in ("actor", "account_id", "template_id", "job_id", "role", "state"):
        body = {**BODIES["template.register"], name: ID}
        answer = await gateway.alice.post("/v1/templates", json=body)
        assert (answer.status_code, answer.json()["field"]) == (400, name)


# --- keys ---


async def test_wrong_credentials_are_all_refused_in_the_same_words(gateway):
    good = gateway.keys["alice"]
    other = mint(SystemIds().new(), lambda count: b"x" * count).text
    wrong = [
        f"Bearer {good[:-1]}{'A' if good[-1] != 'A' else 'B'}",  # wrong secret
        f"Bearer {other}",  # unknown key
        f"Basic {good}",
        "Bearer",
        "Bearer ek_zz_zz",
        f"Bearer {good}{good}",
        good,
    ]
    bodies = set()
    for header in wrong:
        answer = await gateway.nobody.get("/v1/me", headers={"Authorization": header})
        assert answer.status_code == 401, header
        bodies.add(answer.json()["detail"] + answer.json()["hint"])
    assert len(bodies) == 1


async def test_a_revoked_key_stops_working_at_once(gateway):
    own = f"/v1/accounts/{gateway.account_ids['alice']}/keys"
    made = (await gateway.alice.post(own, json={"name": "second"})).json()
    async with gateway.client(made["key"]) as second:
        assert (await second.get("/v1/me")).json()["name"] == "alice"
        assert (await gateway.alice.delete(f"{own}/{made['id']}")).status_code == 204
        assert (await second.get("/v1/me")).status_code == 401
    assert (await gateway.alice.delete(f"{own}/{made['id']}")).status_code == 204
    listed = (await gateway.alice.get(own)).json()["items"]
    assert [key["revoked_at"] is None for key in listed].count(False) == 1
    assert all(key["key"] is None for key in listed)


async def test_only_the_hash_of_a_secret_is_kept(gateway):
    own = f"/v1/accounts/{gateway.account_ids['alice']}/keys"
    made = (
        await gateway.alice.post(own, json={"name": "n"}, headers={"Idempotency-Key": "k-1"})
    ).json()
    secret = made["key"].split("_", 2)[2]
    async with gateway.database.transaction() as tx:
        for table in ("account", "api_key", "http_once", "event_log"):
            rows = await tx.connection.fetch(f"SELECT row_to_json(t)::text AS r FROM {table} t")
            text = "".join(row["r"] for row in rows)
            assert secret not in text
            assert secret.encode().hex() not in text


async def test_the_last_key_of_the_last_administrator_stays(gateway):
    own = f"/v1/accounts/{gateway.account_ids['admin']}/keys"
    key_id = (await gateway.admin.get(own)).json()["items"][0]["id"]
    answer = await gateway.admin.delete(f"{own}/{key_id}")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    await gateway.admin.post(own, json={"name": "another"})
    assert (await gateway.admin.delete(f"{own}/{key_id}")).status_code == 204


async def test_two_accounts_never_have_one_name(gateway):
    answer = await gateway.admin.post("/v1/accounts", json={"name": "alice"})
    assert (answer.status_code, answer.json()["field"]) == (409, "name")


def test_a_secret_matches_its_own_hash_only():
    one, two = (mint(ID, lambda count, fill=fill: fill * count) for fill in (b"1", b"2"))
    secret = parse_authorization(f"Bearer {one.text}").secret
    assert matches(secret, one.secret_hash)
    assert not matches(secret, two.secret_hash)
    assert not matches(secret, None)
    assert not matches("", None)
    assert not matches("no key has this secret", None)
    assert secret not in repr(one) + repr(parse_authorization(f"Bearer {one.text}"))
