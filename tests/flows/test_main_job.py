"""The main job in short: templates, a volume's life across zones, a sparse disk, expiring links."""

import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from demo.image import MIB, sha256
from tests.flows.house import BUCKET, JOB_S, eventually_refused

GUEST = ((0x5A, 16 * MIB, 2 * MIB), (0xC3, 40 * MIB + 4096, 66_048), (0x11, 4096, 8192))
DISK_BYTES = 1 << 30
HUSH = "a-secret-of-the-user"  # in the query of a template's URL


@pytest.fixture(scope="module")
def template(house, image):
    """Region-wide on S3; its URL has a secret in it, as links of download servers do."""
    accepted = house.register(
        house.sources.url(image.qcow2.name, token=HUSH),
        checksum={"algorithm": "sha256", "value": image.qcow2_sha256},
    )
    return house.api.get(f"/v1/templates/{house.done(accepted)}")


def stored_of(thing):
    (copy,) = thing["copies"]
    assert (thing["state"], copy["state"]) == ("ready", "Ready"), thing
    return copy["stored"]


def volume(house, zone, **source):
    body = {"name": house.name("volume"), "zone_id": house.zones[zone], **source}
    return house.api.get(f"/v1/volumes/{house.done(house.api.post('/v1/volumes', body))}")


def snapshot(house, of):
    body = {"name": house.name("snapshot"), "volume_id": of["id"]}
    return house.api.get(f"/v1/snapshots/{house.done(house.api.post('/v1/snapshots', body))}")


def deleted(house, noun, thing):
    house.done(house.api.delete(f"/v1/{noun}/{thing['id']}"))


def write_as_guest(path, image_format, writes=GUEST):
    words = [word for p, at, n in writes for word in ("-c", f"write -P {p} {at} {n}")]
    done = subprocess.run(
        ["qemu-io", "-f", image_format, *words, str(path)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.count("wrote ") == len(writes), done.stdout


def kept(house, path):
    """A copy of the volume as the guest left it, outside of Entrepot."""
    copy = house.folder / "kept"
    subprocess.run(["cp", "--sparse=always", str(path), str(copy)], check=True)
    return copy


def allocated_bytes(path):
    return Path(path).stat().st_blocks * 512


def test_a_template_lies_in_the_bucket_byte_for_byte(house, template, image):
    stored = stored_of(template)
    assert template["checksum"] == {"algorithm": "sha256", "value": image.qcow2_sha256}
    assert template["virtual_size_bytes"] == 64 * MIB
    assert (stored["layout"], stored["stored_bytes"]) == ("plain", image.qcow2_bytes)
    assert house.swift.read(BUCKET, stored["key"]) == image.qcow2.read_bytes()
    assert HUSH not in template["url"]


def test_a_zone_wide_template_lies_in_its_directory(house, template, image):
    accepted = house.register(house.sources.url(image.qcow2.name), zone="north")
    zonal = house.api.get(f"/v1/templates/{house.done(accepted)}")
    stored = stored_of(zonal)
    assert sha256(house.folder / "shelf" / "objects" / stored["key"]) == image.qcow2_sha256
    assert stored["digest"] == stored_of(template)["digest"], "the same bytes, the same digest"
    deleted(house, "templates", zonal)
    assert not list((house.folder / "shelf").rglob(f"*{zonal['id']}*/**/data"))


def test_a_volume_outlives_itself_by_its_snapshot_in_another_zone(house, template):
    before = house.footprint(segments=False)
    first = volume(house, "north", template_id=template["id"])
    path = Path(first["path"])
    assert path.is_relative_to(house.folder / "pool-north") or path.is_relative_to(
        house.folder / "pool-raw"
    )
    assert first["digest_root"] == stored_of(template)["digest"]["root"]
    write_as_guest(path, "qcow2")
    copy = kept(house, path)
    backup = snapshot(house, first)
    stored_of(backup)
    deleted(house, "volumes", first)
    assert not path.exists()
    again = volume(house, "south", snapshot_id=backup["id"])
    restored = Path(again["path"])
    assert restored.is_relative_to(house.folder / "pool-south")
    assert again["digest_root"] == backup["digest_root"] != first["digest_root"]
    subprocess.run(["cmp", str(restored), str(copy)], check=True)
    subprocess.run(["qemu-img", "check", "-q", str(restored)], check=True)
    deleted(house, "volumes", again)
    deleted(house, "snapshots", backup)
    assert house.footprint(segments=False) == before, (
        "what was deleted left nothing, no generation either"
    )


def test_a_sparse_disk_is_stored_by_its_extents_and_comes_back_sparse(house):
    before = house.footprint(segments=False)
    blank = volume(house, "north", store_id=house.stores["raw"], size_bytes=DISK_BYTES)
    path = Path(blank["path"])
    assert (blank["format"], path.stat().st_size) == ("raw", DISK_BYTES)
    ends = [(0x77, 0, MIB), (0x78, 700 * MIB + 512, 3 * MIB), (0x79, DISK_BYTES - 4096, 4096)]
    write_as_guest(path, "raw", ends)
    copy = kept(house, path)
    backup = snapshot(house, blank)
    stored = stored_of(backup)
    assert stored["layout"] == "extents"
    assert 4 * MIB <= stored["stored_bytes"] <= 5 * MIB
    assert stored["digest"]["size_bytes"] == stored["virtual_size_bytes"] == DISK_BYTES
    assert len(house.swift.read(BUCKET, stored["key"])) == stored["stored_bytes"]
    deleted(house, "volumes", blank)
    again = volume(house, "south", snapshot_id=backup["id"])
    restored = Path(again["path"])
    subprocess.run(["cmp", str(restored), str(copy)], check=True)
    assert allocated_bytes(restored) <= 8 * MIB
    assert again["digest_root"] == backup["digest_root"]
    deleted(house, "volumes", again)
    deleted(house, "snapshots", backup)
    assert house.footprint(segments=False) == before


def link_to(house, template, expires_s):
    job = house.api.post(f"/v1/templates/{template['id']}/extract", {"expires_s": expires_s})
    return house.api.succeeded(job["job_id"], timeout_s=JOB_S)["url"]


def status_of(url):
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_a_template_is_given_away_by_a_link_that_expires(house, template, image, tmp_path):
    target = tmp_path / "out.qcow2"
    link = link_to(house, template, 300)
    subprocess.run(["curl", "-fsS", "-o", str(target), link], check=True, timeout=60)
    assert sha256(target) == image.qcow2_sha256
    short = link_to(house, template, 1)
    assert eventually_refused(lambda: status_of(short)) in (401, 403)
    assert status_of(link) == 200, "the other one still holds"


def test_no_log_tells_a_secret_of_links_stores_or_users(house, template):
    link = link_to(house, template, 300)
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(link).query)
    (signature,) = query["X-Amz-Signature"]
    logs = house.logs()
    assert {"api-gateway.log", "motion-engine.log", "mover-1.log", "store-registry.log"} <= set(
        logs
    )
    assert any(template["id"] in text for text in logs.values()), "these are the right logs"
    secrets = {
        "signature of a link": signature,
        "S3 secret key": house.swift.secret_key,
        "admin's key": house.stack.admin_key_file.read_text().strip(),
        "query of a source": HUSH,
    }
    told = [
        (name, what) for name, text in logs.items() for what, one in secrets.items() if one in text
    ]
    assert told == []


def test_no_database_and_no_stream_keeps_the_query_of_a_source(house, template):
    assert "store_registry.event_log" in house.tables_with(template["id"])
    assert "motion_engine.transfer" in house.tables_with(template["id"])
    assert house.tables_with(HUSH) == []
    streams = [path.read_bytes() for path in house.stream_files()]
    assert any(template["id"].encode() in one for one in streams), "these are the right files"
    assert not any(HUSH.encode() in one for one in streams)
