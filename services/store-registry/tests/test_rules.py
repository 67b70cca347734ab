"""The pure rules, by tables."""

import msgspec
import pytest

from entrepot_contracts import values as v
from entrepot_contracts.errors import Code, Refused
from store_registry import rows
from store_registry.rules import limits, naming, placement
from store_registry.rules.details import parse_details

BOTH = frozenset({"http", "https"})


@pytest.mark.parametrize(
    "url",
    [
        "https://images.example.org/a.qcow2",
        "http://127.0.0.1:8080/a%20b.raw?sig=1&x=%2F",
        "http://[2001:db8::1]:80/a",
        "HTTPS://EXAMPLE.org",
    ],
)
def test_an_url_that_can_be_fetched_is_let_through(url):
    naming.check_url(url, BOTH)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "scheme"),
        ("images.example.org/a", "scheme"),
        ("file:///etc/passwd", "scheme"),
        ("ftp://example.org/a", "scheme"),
        ("javascript:alert(1)", "scheme"),
        ("http:///a", "host"),
        ("http://:80/a", "host"),
        ("http://?a", "host"),
        ("http://user@example.org/a", "user name"),
        ("http://user:pw@example.org/a", "user name"),
        ("http://@example.org/a", "user name"),
        ("http://example.org:0/a", "port"),
        ("http://example.org:70000/a", "taken apart"),
        ("http://example.org:x/a", "taken apart"),
        ("http://[::1/a", "taken apart"),
        ("http://exa mple.org/a", "characters"),
        ("http://example.org/a\r\nHost: evil", "characters"),
        ("http://example.org/\x00", "characters"),
        ("http://example.org\\@evil/a", "characters"),
        ("http://exämple.org/a", "characters"),
        ("http://exa%6dple.org/a", "host"),
    ],
)
def test_an_url_that_can_not_is_refused_with_the_field_and_a_remedy(url, why):
    with pytest.raises(Refused) as caught:
        naming.check_url(url, BOTH)
    problem = caught.value.problem
    assert (problem.code, problem.field) == (Code.INVALID, "url")
    assert why in problem.message
    assert problem.hint


def test_http_can_be_forbidden():
    with pytest.raises(Refused):
        naming.check_url("http://example.org/a", frozenset({"https"}))


def test_a_scrubbed_url_keeps_no_secret():
    url = "https://u:p@example.org:8443/a/b.qcow2?X-Amz-Signature=s#f"
    assert naming.scrub_url(url) == "https://example.org:8443/a/b.qcow2"


@pytest.mark.parametrize(
    ("name", "offered"),
    [
        ("Debian 12 (amd64)", "Debian-12-amd64.qcow2"),
        ('../../x"; rm', "x-rm.qcow2"),
        ("…", "template.qcow2"),
        ("a" * 300, "a" * 100 + ".qcow2"),
    ],
)
def test_the_offered_file_name_is_tame(name, offered):
    assert naming.file_name(name, "qcow2") == offered


# --- placement ------------------------------------------------------------------------------


def store(store_id, zone_id=None, kind=rows.ImageStore, **changes):
    fields = {
        "store_id": store_id,
        "account_id": "a",
        "name": store_id,
        "provider": "p",
        "scope": v.Scope.REGION if zone_id is None else v.Scope.ZONE,
        "zone_id": zone_id,
        "region": "r",
        "state": v.StoreState.UP,
        "config": {},
        "place": store_id,
        "read_only": False,
        "created_at": None,
        "capacity_bytes": 100,
        "used_bytes": 50,
    }
    return kind(**{**fields, **changes})


def test_the_store_with_the_most_free_share_is_chosen_and_ties_fall_to_the_id():
    stores = [
        store("big", capacity_bytes=1000, used_bytes=600),
        store("small", capacity_bytes=10, used_bytes=3),
        store("zone", "z", used_bytes=0),
    ]
    assert placement.for_region(stores).store_id == "small"
    assert placement.for_region([store("b"), store("a")]).store_id == "a"
    unknown = store("cloud", capacity_bytes=None)
    assert placement.for_region([*stores, unknown]).store_id == "cloud"


@pytest.mark.parametrize(
    "change",
    [
        {"state": v.StoreState.PROBING},
        {"state": v.StoreState.DEGRADED},
        {"read_only": True},
        {"zone_id": "z"},
    ],
)
def test_what_is_not_up_writable_and_region_wide_takes_no_region_wide_copy(change):
    with pytest.raises(Refused) as caught:
        placement.for_region([store("s", **change)])
    assert caught.value.problem.code is Code.NO_STORE


def test_a_backup_prefers_a_store_that_every_zone_can_restore_from():
    stores = [store("region", used_bytes=99), store("zone", "z", used_bytes=0)]
    assert placement.for_backup(stores, "z").store_id == "region"
    assert placement.for_backup(stores[1:], "z").store_id == "zone"
    with pytest.raises(Refused):
        placement.for_backup(stores[1:], "elsewhere")


def test_a_pool_promises_no_more_than_its_capacity_times_the_factor():
    pool = store("p", "z", kind=rows.StoragePool)

    def place(size_bytes, factor):
        return placement.for_volume(
            [pool],
            zone_id="z",
            size_bytes=size_bytes,
            overprovision=factor,
            holds_format=lambda _: True,
        )

    assert place(50, 1.0) is pool
    assert place(150, 2.0) is pool
    for size_bytes, factor in ((51, 1.0), (151, 2.0)):
        with pytest.raises(Refused) as caught:
            place(size_bytes, factor)
        assert caught.value.problem.code is Code.STORE_FULL


def ref(store_id, zone_id=None):
    stored = v.StoredObject(
        key="k",
        digest=v.ContentDigest(root="aa", size_bytes=1),
        stored_bytes=1,
        format=v.ImageFormat.RAW,
        virtual_size_bytes=1,
    )
    return rows.TemplateStoreRef(
        ref_id=store_id,
        template_id="t",
        store_id=store_id,
        zone_id=zone_id,
        state=v.CopyState.READY,
        prefix="",
        created_at=None,
        updated_at=None,
        stored=stored,
    )


def test_a_copy_in_the_zone_is_read_before_a_region_wide_one_and_a_degraded_store_last():
    near, far = store("near", "z"), store("far")
    refs = [ref("far"), ref("near", "z")]
    assert placement.readable_copy(refs, [near, far], "z")[1] is near
    assert placement.readable_copy(refs, [near, far], "other")[1] is far
    near.state = v.StoreState.DEGRADED
    assert placement.readable_copy(refs, [near, far], "z")[1] is far
    assert placement.readable_copy(refs, [near], "z")[1] is near
    assert placement.readable_copy(refs, [near], "other") is None


# --- settings --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("5KiB", 5 << 10), ("500GiB", 500 << 30), ("64TiB", 1 << 46)]
)
def test_sizes_are_read(text, size):
    assert limits.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "0", "-1", "1.5GiB", "65TiB", "5 PiB", "5GB", "1e9"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(Refused) as caught:
        limits.check_setting("template.size.max", text)
    assert caught.value.problem.field == "value"


def test_every_setting_s_default_is_one_it_takes():
    for known in limits.KNOWN.values():
        limits.check_setting(known.name, known.default)


# --- details ---------------------------------------------------------------------------------

SCHEMA = {
    "type": "object",
    "required": ["url", "key"],
    "properties": {
        "url": {"type": "string", "pattern": "^https?://"},
        "key": {"type": "string", "x-secret": True, "minLength": 4},
        "token": {"anyOf": [{"type": "string", "x-secret": True}, {"type": "null"}]},
        "mode": {"enum": ["a", "b"]},
        "nested": {"type": "object", "properties": {"n": {"type": "integer"}}},
    },
}
GOOD = {"url": "https://x", "key": "hush-hush"}


@pytest.mark.parametrize(
    ("change", "field", "hint"),
    [
        ({"url": None}, "details.url", "type string"),
        ({"url": "gopher://x"}, "details.url", "must match"),
        ({"key": "abc"}, "details.key", "at least 4"),
        ({"key": 12345678}, "details.key", "type string"),
        ({"mode": "c"}, "details.mode", "one of"),
        ({"nested": {"n": "x"}}, "details.nested.n", "type integer"),
        ({"token": 5}, "details.token", "string, null"),
        ({"colour": "red"}, "details.colour", "known fields: key, mode, nested, token, url"),
        ({"url": "https://user:pw@x"}, "details.url", "secret fields"),
    ],
)
def test_wrong_details_name_the_field_and_never_repeat_the_value(change, field, hint):
    with pytest.raises(Refused) as caught:
        parse_details("p", SCHEMA, msgspec.json.encode({**GOOD, **change}))
    problem = caught.value.problem
    assert (problem.code, problem.field) == (Code.INVALID, field)
    assert hint in problem.hint
    for value in change.values():
        if isinstance(value, str | int) and len(str(value)) > 1:
            assert str(value) not in f"{problem.message} {problem.hint}"


def test_missing_details_are_named():
    with pytest.raises(Refused) as caught:
        parse_details("p", SCHEMA, b'{"url": "https://x"}')
    assert caught.value.problem.field == "details.key"


@pytest.mark.parametrize("body", [b"", b"[]", b"nonsense", b'"x"', b"\xff", b"[" * 100_000])
def test_details_that_are_no_object_are_refused(body):
    with pytest.raises(Refused) as caught:
        parse_details("p", SCHEMA, body)
    assert caught.value.problem.field == "details"


def test_details_are_split_by_x_secret_in_unions_too():
    details = parse_details("p", SCHEMA, msgspec.json.encode({**GOOD, "token": "t", "mode": "a"}))
    assert details.public == {"url": "https://x", "mode": "a"}
    assert details.secret == {"key": "hush-hush", "token": "t"}


def test_a_schema_never_makes_us_fetch_anything():
    schema = {"type": "object", "properties": {"x": {"$ref": "http://127.0.0.1:9/s.json"}}}
    with pytest.raises(Exception, match="Unresolvable|127.0.0.1"):
        parse_details("p", schema, b'{"x": 1}')
