"""What bad input gets: a stable code, the field, the remedy; and nothing half-made stays."""

import msgspec
import pytest

from entrepot_contracts import registry as r
from entrepot_contracts import values as v
from entrepot_contracts.errors import Code

GIB = 1 << 30
ZONE = v.Scope.ZONE


def sums(algorithm, digits):
    return v.Checksum(algorithm=algorithm, value="a" * digits)


# name -> (command of (desk, house), code, field, part of the hint)
TABLE = {
    "a zone name twice": (
        lambda d, h: r.CreateZone(actor=d.admin, zone_id=d.new(), name="a"),
        (Code.CONFLICT, "name", "choose another"),
    ),
    "a zone id twice": (
        lambda d, h: r.CreateZone(actor=d.admin, zone_id=h.zone_a, name="z"),
        (Code.CONFLICT, "zone_id", "fresh id"),
    ),
    "an unknown provider": (
        lambda d, h: d.add_bucket(name="x", provider="tape"),
        (Code.UNKNOWN_PROVIDER, "provider", "known providers: bucket, folder"),
    ),
    "a store in an unknown zone": (
        lambda d, h: d.add_folder(d.new(), name="x"),
        (Code.NOT_FOUND, "zone_id", "list the zones"),
    ),
    "a region-wide store of a zone-wide provider": (
        lambda d, h: d.add_folder(None, name="x"),
        (Code.INVALID, "zone_id", "name the zone"),
    ),
    "a zone-wide store of a region-wide provider": (
        lambda d, h: d.add_bucket(name="x", zone_id=h.zone_a, config={"bucket": "x"}),
        (Code.INVALID, "zone_id", "leave zone_id out"),
    ),
    "a primary store without a zone": (
        lambda d, h: d.add_folder(None, name="x", role=v.StoreRole.PRIMARY),
        (Code.INVALID, "zone_id", "name the zone"),
    ),
    "a role the provider has not": (
        lambda d, h: d.add_bucket(name="x", role=v.StoreRole.PRIMARY, zone_id=h.zone_a),
        (Code.INVALID, "role", "its roles are: image"),
    ),
    "a cache store": (
        lambda d, h: d.add_folder(h.zone_a, name="x", role=v.StoreRole.CACHE),
        (Code.INVALID, "role", "cache pool"),
    ),
    "details without a bucket": (
        lambda d, h: d.add_bucket(name="x", config={"bucket": None}),
        (Code.INVALID, "details.bucket", "type string"),
    ),
    "details with a stranger": (
        lambda d, h: d.add_bucket(name="x", config={"colour": "red"}),
        (Code.INVALID, "details.colour", "known fields"),
    ),
    "details sealed to somebody else": (
        lambda d, h: d.add_bucket(name="x", details=v.Sealed(recipient="x", box=b"nonsense")),
        (Code.INVALID, "details", "sealing key"),
    ),
    "a password in the endpoint": (
        lambda d, h: d.add_bucket(name="x", config={"endpoint": "https://u:hush@s3"}),
        (Code.INVALID, "details.endpoint", "secret fields"),
    ),
    "deleting an unknown store": (
        lambda d, h: r.DeleteStore(actor=d.admin, store_id=d.new()),
        (Code.NOT_FOUND, "store_id", "list the stores"),
    ),
    "listing cache stores": (
        lambda d, h: r.ListStores(actor=d.admin, role=v.StoreRole.CACHE),
        (Code.INVALID, "role", "image and primary"),
    ),
    "sealing to no key": (
        lambda d, h: r.SealCredentials(store_ids=(h.bucket,), recipient="nonsense"),
        (Code.INVALID, "recipient", "base64"),
    ),
    "an URL of a file": (
        lambda d, h: d.register(url="file:///etc/passwd"),
        (Code.INVALID, "url", "http, https"),
    ),
    "an URL with a password": (
        lambda d, h: d.register(url="https://u:hush@example.org/a"),
        (Code.INVALID, "url", "without them"),
    ),
    "an URL with a query in the clear": (
        lambda d, h: d.register(url="https://example.org/a?sig=hush"),
        (Code.INVALID, "url", "sealed"),
    ),
    "an URL with a fragment": (
        lambda d, h: d.register(url="https://example.org/a#hush", query=d.sealed("b=1")),
        (Code.INVALID, "url", "sealed"),
    ),
    "a query sealed to somebody else": (
        lambda d, h: d.register(query=v.Sealed(recipient="x", box=b"nonsense")),
        (Code.INVALID, "query", "sealing key"),
    ),
    "an empty query": (
        lambda d, h: d.register(query=d.sealed("")),
        (Code.INVALID, "query", "leave it out"),
    ),
    "a query with unfit characters": (
        lambda d, h: d.register(query=d.sealed("a=b c")),
        (Code.INVALID, "url", "percent-encode"),
    ),
    "a query that makes the URL too long": (
        lambda d, h: d.register(query=d.sealed("a" * 2048)),
        (Code.INVALID, "url", "shorter"),
    ),
    "a checksum of the wrong length": (
        lambda d, h: d.register(checksum=sums(v.ChecksumAlgorithm.SHA256, 40)),
        (Code.INVALID, "checksum", "algorithm"),
    ),
    "zones for a region-wide template": (
        lambda d, h: d.register(zone_ids=(h.zone_a,)),
        (Code.INVALID, "zone_ids", "leave zone_ids out"),
    ),
    "a zone-wide template without zones": (
        lambda d, h: d.register(scope=ZONE),
        (Code.INVALID, "zone_ids", "name one"),
    ),
    "a zone twice": (
        lambda d, h: d.register(scope=ZONE, zone_ids=(h.zone_a, h.zone_a)),
        (Code.INVALID, "zone_ids", "once"),
    ),
    "an unknown zone": (
        lambda d, h: d.register(scope=ZONE, zone_ids=(h.zone_a, d.new())),
        (Code.NOT_FOUND, "zone_ids", "list the zones"),
    ),
    "a zone without a store": (
        lambda d, h: d.register(scope=ZONE, zone_ids=(h.zone_b,)),
        (Code.NO_STORE, "zone_ids", "add one"),
    ),
    "a template of a cluster": (
        lambda d, h: d.register(scope=v.Scope.CLUSTER),
        (Code.INVALID, "scope", "region or zone"),
    ),
    "a volume of nothing": (
        lambda d, h: d.create_volume(zone_id=h.zone_a),
        (Code.INVALID, "template_id", "exactly one"),
    ),
    "a volume of two things": (
        lambda d, h: d.create_volume(zone_id=h.zone_a, size_bytes=GIB, template_id=d.new()),
        (Code.INVALID, "template_id", "exactly one"),
    ),
    "a volume of half a sector": (
        lambda d, h: d.create_volume(zone_id=h.zone_a, size_bytes=1000),
        (Code.INVALID, "size_bytes", "multiple of 512"),
    ),
    "a volume beyond the limit": (
        lambda d, h: d.create_volume(zone_id=h.zone_a, size_bytes=3 << 40),
        (Code.QUOTA_EXCEEDED, "size_bytes", "volume.size.max"),
    ),
    "a volume beyond the pool": (
        lambda d, h: d.create_volume(zone_id=h.zone_a, size_bytes=1 << 40),
        (Code.STORE_FULL, "size_bytes", "primary store"),
    ),
    "a volume in an unknown zone": (
        lambda d, h: d.create_volume(zone_id=d.new(), size_bytes=GIB),
        (Code.NOT_FOUND, "zone_id", "list the zones"),
    ),
    "a volume on an unknown store": (
        lambda d, h: d.create_volume(zone_id=h.zone_a, size_bytes=GIB, store_id=d.new()),
        (Code.NOT_FOUND, "store_id", "list the stores"),
    ),
    "a volume on an image store": (
        lambda d, h: d.create_volume(zone_id=h.zone_a, size_bytes=GIB, store_id=h.bucket),
        (Code.NOT_FOUND, "store_id", "list the stores"),
    ),
    "a volume on another zone's store": (
        lambda d, h: d.create_volume(zone_id=h.zone_a, size_bytes=GIB, store_id=h.pool_b),
        (Code.NO_STORE, "zone_id", "primary store"),
    ),
    "a snapshot of nothing": (
        lambda d, h: d.create_snapshot(d.new()),
        (Code.NOT_FOUND, "volume_id", "list the volumes"),
    ),
    "an unknown setting": (
        lambda d, h: r.PutSetting(actor=d.admin, name="colour", value="red"),
        (Code.INVALID, "name", "image-store.mixing"),
    ),
    "a setting's wrong value": (
        lambda d, h: r.PutSetting(actor=d.admin, name="image-store.mixing", value="no"),
        (Code.INVALID, "value", "same-provider or any"),
    ),
    "an unknown job": (
        lambda d, h: r.GetJob(actor=d.admin, job_id=d.new(), wait_s=5),
        (Code.NOT_FOUND, "job_id", "list the jobs"),
    ),
}


@pytest.mark.parametrize("name", TABLE)
async def test_bad_input_is_answered_with_code_field_and_remedy(memory, name):
    house = await memory.furnish()
    command_of, (code, field, hint) = TABLE[name]
    command = command_of(memory, house)
    before = await memory.dump()
    problem = await memory.refused(command)
    assert (problem.code, problem.field) == (code, field)
    assert hint in problem.hint
    assert "hush" not in f"{problem}"
    assert await memory.dump() == before, "something half-made stayed"


async def test_things_that_are_not_ready_are_not_used(desk, house):
    template = desk.register(format=v.ImageFormat.ISO)
    await desk.ask(template)
    await desk.settle(template.job_id)
    problem = await desk.refused(
        desk.create_volume(template_id=template.template_id, zone_id=house.zone_a)
    )
    assert (problem.code, problem.field) == (Code.INVALID, "template_id")

    failed = desk.register()
    await desk.ask(failed)
    (ask,) = await desk.asks(failed.job_id)
    problem = await desk.refused(
        desk.create_volume(template_id=failed.template_id, zone_id=house.zone_a)
    )
    assert (problem.code, problem.field) == (Code.CONFLICT, "template_id")
    await desk.fail(ask)
    await desk.settle(failed.job_id)
    for command in (
        desk.create_volume(template_id=failed.template_id, zone_id=house.zone_a),
        r.ExtractTemplate(
            actor=desk.user, template_id=failed.template_id, job_id=desk.new(), seal_to="k"
        ),
    ):
        assert (await desk.refused(command)).code is Code.CONFLICT

    volume = desk.create_volume(zone_id=house.zone_a, size_bytes=GIB)
    await desk.ask(volume)
    (ask,) = await desk.asks(volume.job_id)
    await desk.fail(ask)
    await desk.settle(volume.job_id)
    problem = await desk.refused(desk.create_snapshot(volume.volume_id))
    assert (problem.code, problem.field) == (Code.CONFLICT, "volume_id")


@pytest.mark.parametrize("name", ["", "a\x00b", "line\nbreak", "x" * 256, "\u2028"])
def test_a_name_with_control_characters_does_not_even_decode(name):
    body = {
        "type": "registry.zone.create.v1",
        "actor": {"account_id": "0" * 8 + "-0000-7000-8000-" + "0" * 12, "role": "admin"},
        "zone_id": "0" * 8 + "-0000-7000-8000-" + "0" * 12,
        "name": name,
    }
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(body), type=r.CreateZone)
