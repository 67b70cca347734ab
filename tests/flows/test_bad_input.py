"""Bad requests: each gets a stable code, the field and a remedy, and changes nothing."""

import json

import pytest

from entrepot_testkit.api import ApiProblem
from tests.flows.house import BUCKET, NOBODY, SPARE_BUCKET

TEMPLATE = {"name": "t", "url": "http://127.0.0.2/x.qcow2", "format": "qcow2"}
STORE = {"name": "s", "provider": "file", "config": {"path": "/srv"}}


def assert_problem(answer, status, code, field):
    said = answer.document
    assert (answer.status, said.get("code"), said.get("field")) == (status, code, field), said
    assert said["status"] == status
    assert said["hint"], said
    assert said["detail"], said


def north(house):
    return house.zones["north"]


# Per case: method, path, body (of the house, for ids), status, code, field.
REFUSED = {
    "image store in an unknown zone": (
        *("POST", "/v1/image-stores", lambda _: STORE | {"zone_id": NOBODY}),
        *(404, "not_found", "zone_id"),
    ),
    "primary store in an unknown zone": (
        *("POST", "/v1/primary-stores", lambda _: STORE | {"zone_id": NOBODY}),
        *(404, "not_found", "zone_id"),
    ),
    "volume in an unknown zone": (
        *("POST", "/v1/volumes", lambda _: {"name": "v", "zone_id": NOBODY, "size_bytes": 512}),
        *(404, "not_found", "zone_id"),
    ),
    "template in an unknown zone": (
        *("POST", "/v1/templates", lambda _: TEMPLATE | {"scope": "zone", "zone_ids": [NOBODY]}),
        *(404, "not_found", "zone_ids"),
    ),
    "template in a zone without an image store": (
        "POST",
        "/v1/templates",
        lambda h: TEMPLATE | {"scope": "zone", "zone_ids": [h.zones["south"]]},
        *(422, "no_store", "zone_ids"),
    ),
    "zone-wide template without a zone": (
        *("POST", "/v1/templates", lambda _: TEMPLATE | {"scope": "zone"}),
        *(400, "invalid", "zone_ids"),
    ),
    "volume on an unknown store": (
        "POST",
        "/v1/volumes",
        lambda h: {"name": "v", "zone_id": north(h), "size_bytes": 512, "store_id": NOBODY},
        *(404, "not_found", "store_id"),
    ),
    "volume of an unknown template": (
        "POST",
        "/v1/volumes",
        lambda h: {"name": "v", "zone_id": north(h), "template_id": NOBODY},
        *(404, "not_found", "template_id"),
    ),
    "volume of an unknown snapshot": (
        "POST",
        "/v1/volumes",
        lambda h: {"name": "v", "zone_id": north(h), "snapshot_id": NOBODY},
        *(404, "not_found", "snapshot_id"),
    ),
    "volume of nothing": (
        *("POST", "/v1/volumes", lambda h: {"name": "v", "zone_id": north(h)}),
        *(400, "invalid", "template_id"),
    ),
    "volume of half a sector": (
        "POST",
        "/v1/volumes",
        lambda h: {"name": "v", "zone_id": north(h), "size_bytes": 768},
        *(400, "invalid", "size_bytes"),
    ),
    "volume larger than its quota": (
        "POST",
        "/v1/volumes",
        lambda h: {"name": "v", "zone_id": north(h), "size_bytes": 1 << 45},
        *(422, "quota_exceeded", "size_bytes"),
    ),
    "snapshot of an unknown volume": (
        *("POST", "/v1/snapshots", lambda _: {"name": "s", "volume_id": NOBODY}),
        *(404, "not_found", "volume_id"),
    ),
    "removal of an unknown image store": (
        *("DELETE", f"/v1/image-stores/{NOBODY}", None, 404, "not_found", "store_id"),
    ),
    "removal of an unknown primary store": (
        *("DELETE", f"/v1/primary-stores/{NOBODY}", None, 404, "not_found", "store_id"),
    ),
    "id that is none": (*("GET", "/v1/templates/..%2F..%2Fetc", None, 404, "not_found", None),),
    "id of another shape": ("GET", "/v1/templates/7", None, 400, "invalid", "template_id"),
    "unknown provider": (
        "POST",
        "/v1/image-stores",
        lambda _: STORE | {"provider": "tape"},
        *(422, "unknown_provider", "provider"),
    ),
    "S3 as a primary store": (
        "POST",
        "/v1/primary-stores",
        lambda h: {
            "name": "s",
            "provider": "s3",
            "config": h.s3_config(SPARE_BUCKET),
            "zone_id": north(h),
        },
        *(400, "invalid", "role"),
    ),
    "directory for the whole region": (
        *("POST", "/v1/image-stores", lambda _: STORE, 400, "invalid", "zone_id"),
    ),
    "primary store without a zone": (
        *("POST", "/v1/primary-stores", lambda _: STORE, 400, "invalid", "zone_id"),
    ),
    "missing required config field": (
        "POST",
        "/v1/image-stores",
        lambda h: STORE | {"zone_id": north(h), "config": {}},
        *(400, "invalid", "config.path"),
    ),
    "missing secret": (
        "POST",
        "/v1/image-stores",
        lambda h: {
            "name": "s",
            "provider": "s3",
            "config": {**h.s3_config(SPARE_BUCKET), "secret_key": None},
        },
        *(400, "invalid", "config.secret_key"),
    ),
    "unknown config field": (
        "POST",
        "/v1/image-stores",
        lambda h: STORE | {"zone_id": north(h), "config": {"path": "/srv", "colour": "red"}},
        *(400, "invalid", "config.colour"),
    ),
    "config value of the wrong kind": (
        "POST",
        "/v1/image-stores",
        lambda h: STORE | {"zone_id": north(h), "config": {"path": "relative/path"}},
        *(400, "invalid", "config.path"),
    ),
    "place of another store": (
        "POST",
        "/v1/image-stores",
        lambda h: {"name": "again", "provider": "s3", "config": h.s3_config(BUCKET)},
        *(409, "conflict", "config"),
    ),
    "taken store name": (
        "POST",
        "/v1/image-stores",
        lambda h: {"name": "objects", "provider": "s3", "config": h.s3_config(SPARE_BUCKET)},
        *(409, "conflict", "name"),
    ),
    "unknown setting": (
        *("PUT", "/v1/settings/colour", lambda _: {"value": "red"}, 400, "invalid", "name"),
    ),
    "impossible setting": (
        "PUT",
        "/v1/settings/image-store.mixing",
        lambda _: {"value": "sometimes"},
        *(400, "invalid", "value"),
    ),
    "URL of another scheme": (
        "POST",
        "/v1/templates",
        lambda _: TEMPLATE | {"url": "file:///etc/shadow"},
        *(400, "invalid", "url"),
    ),
    "URL with a password": (
        "POST",
        "/v1/templates",
        lambda _: TEMPLATE | {"url": "http://me:hush@127.0.0.2/x"},
        *(400, "invalid", "url"),
    ),
    "checksum of the wrong length": (
        "POST",
        "/v1/templates",
        lambda _: TEMPLATE | {"checksum": {"algorithm": "sha256", "value": "abc"}},
        *(400, "invalid", "checksum"),
    ),
    "unknown format": (
        "POST",
        "/v1/templates",
        lambda _: TEMPLATE | {"format": "vmdk"},
        *(400, "invalid", "format"),
    ),
    "unknown field": (
        "POST",
        "/v1/templates",
        lambda _: TEMPLATE | {"colour": "red"},
        *(400, "invalid", "colour"),
    ),
    "somebody else's account in the body": (
        "POST",
        "/v1/templates",
        lambda _: TEMPLATE | {"account_id": NOBODY},
        *(400, "invalid", "account_id"),
    ),
    "missing field": (
        *("POST", "/v1/volumes", lambda _: {"name": "v"}, 400, "invalid", "zone_id"),
    ),
    "route that is none": ("GET", "/v1/colours", None, 404, "not_found", None),
    "method that is none": ("PATCH", "/v1/zones", None, 405, "method_not_allowed", None),
}

NAMED = {
    "zones": {},
    "accounts": {},
    "image-stores": STORE,
    "primary-stores": STORE,
    "templates": TEMPLATE,
    "volumes": {"zone_id": NOBODY, "size_bytes": 512},
    "snapshots": {"volume_id": NOBODY},
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_request_that_cannot_be_met_is_refused_at_once(house, unchanged, case):
    method, path, body, *expected = REFUSED[case]
    text = json.dumps(body(house)) if body else None
    assert_problem(house.raw(method, path, text), *expected)


@pytest.mark.parametrize("name", ["two\nlines", "bell\x07", "\x85", "line\u2028end", "", "x" * 256])
@pytest.mark.parametrize("noun", NAMED)
def test_a_name_with_control_characters_or_none_is_refused(house, unchanged, noun, name):
    answer = house.raw("POST", f"/v1/{noun}", json.dumps(NAMED[noun] | {"name": name}))
    assert_problem(answer, 400, "invalid", "name")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{not json", 400, "invalid"),
        (b"\xff\xfe\x00", 400, "invalid"),
        (b'["a", "list"]', 400, "invalid"),
        (b"[" * 100_000, 400, "invalid"),
        (b'{"name": "' + b"x" * (2 << 20) + b'"}', 413, "too_large"),
    ],
    ids=["broken", "no text", "a list", "deep", "two MiB"],
)
def test_a_body_that_is_no_request_is_refused(house, unchanged, body, status, code):
    assert_problem(house.raw("POST", "/v1/zones", body), status, code, "body")


def test_a_second_provider_is_refused_until_an_administrator_allows_it(house, unchanged):
    folder = house.folder / "second"
    folder.mkdir(exist_ok=True)
    store = {**STORE, "config": {"path": str(folder)}, "zone_id": north(house)}
    house.api.put("/v1/settings/image-store.mixing", {"value": "same-provider"})
    try:
        answer = house.raw("POST", "/v1/image-stores", json.dumps(store))
    finally:
        house.api.put("/v1/settings/image-store.mixing", {"value": "any"})
    assert_problem(answer, 409, "provider_mixing", "provider")
    assert "image-store.mixing" in answer.document["hint"]
    assert list(folder.iterdir()) == []
    accepted = house.api.post("/v1/image-stores", store)
    house.done(accepted)
    house.api.delete(f"/v1/image-stores/{accepted['id']}")


# --- stores that fail their probe ------------------------------------------------------------


def s3(**wrong):
    return lambda house: ("s3", {**house.s3_config(SPARE_BUCKET), **wrong}, None)


def directory(path):
    return lambda house: ("file", {"path": str(path(house))}, north(house))


def occupied(house):
    file = house.folder / "a-file"
    file.write_text("not a folder")
    return file


UNFIT = {
    "wrong secret key": ("auth", s3(secret_key="not-the-secret-key")),
    "wrong access key": ("auth", s3(access_key="test:nobody")),
    "missing bucket": ("bucket", s3(bucket="nobody-made-it")),
    "nobody listens": ("connect", s3(endpoint="http://127.0.0.1:9")),
    "missing directory": ("path", directory(lambda house: house.folder / "nowhere")),
    "a file in the way": ("path", directory(occupied)),
    "below a file": ("path", directory(lambda house: occupied(house) / "below")),
    "nobody may write there, not even root": ("write", directory(lambda _: "/proc")),
}


@pytest.mark.parametrize("case", UNFIT)
def test_a_store_that_fails_its_probe_is_gone_with_a_remedy(house, unchanged, case):
    check, made = UNFIT[case]
    provider, config, zone_id = made(house)
    body = {"name": house.name("unfit"), "provider": provider, "config": config}
    accepted = house.api.post("/v1/image-stores", body | ({"zone_id": zone_id} if zone_id else {}))
    job = house.api.ended(accepted["job_id"])
    error = job["error"]
    assert (job["state"], error["code"], error["field"]) == ("failed", "probe_failed", "config")
    assert error["facts"]["check"] == check, error
    assert error["hint"], error
    assert config.get("secret_key", "no secret here") not in json.dumps(job)


def test_a_primary_store_that_fails_its_probe_is_gone_too(house, unchanged):
    accepted = house.api.post(
        "/v1/primary-stores",
        {
            "name": "unfit",
            "provider": "file",
            "config": {"path": str(house.folder / "nowhere")},
            "zone_id": north(house),
        },
    )
    assert house.api.ended(accepted["job_id"])["error"]["code"] == "probe_failed"
    with pytest.raises(ApiProblem) as refused:
        house.api.delete(f"/v1/primary-stores/{accepted['id']}")
    assert refused.value.code == "not_found"
