"""Bad templates: sources that misbehave and images that lie. All end failed and leave nothing."""

import subprocess
from contextlib import contextmanager

from demo.image import MIB
from tests.flows.house import JOB_S
from tests.flows.sources import LIE_BYTES, sources_on, write_pattern

QUOTA_BYTES = 24 * MIB
READ_AHEAD_BYTES = 64 * MIB  # socket buffers and the mover's window, generously


@contextmanager
def setting(house, name, value):
    listed = house.api.get("/v1/settings")["items"]
    old = next(one["value"] for one in listed if one["name"] == name)
    house.api.put(f"/v1/settings/{name}", {"value": value})
    try:
        yield
    finally:
        house.api.put(f"/v1/settings/{name}", {"value": old})


def failures(house, url, **more):
    """The error of a region-wide (S3) and of a zone-wide (directory) registration."""
    accepted = [house.register(url, zone=zone, **more) for zone in (None, "north")]
    return [failure(house, one) for one in accepted]


def failure(house, accepted):
    job = house.api.ended(accepted["job_id"], timeout_s=JOB_S)
    template = house.api.get(f"/v1/templates/{accepted['id']}")
    assert (job["state"], template["state"]) == ("failed", "failed"), job
    assert {copy["state"] for copy in template["copies"]} == {"Failed"}
    assert [copy["stored"] for copy in template["copies"]] == [None]
    assert template["error"] == job["error"]
    return job["error"]


def assert_failed(errors, code, field="url", **facts):
    for error in errors:
        assert (error["code"], error["field"]) == (code, field), error
        assert error["hint"], error
        assert error["message"], error
        assert error["facts"] | facts == error["facts"], error


# --- sources -----------------------------------------------------------------------------------


def test_an_url_that_answers_404(house, unchanged, image):
    url = house.sources.url(image.qcow2.name, way="missing")
    assert_failed(failures(house, url), "source_status", status="404")


def test_an_url_that_redirects_to_loopback_is_not_followed(house, unchanged, image):
    """What listens there would even have had a good image; it is never spoken to."""
    with sources_on("127.0.0.1", image.qcow2.parent) as inside:
        house.sources.redirect_to = inside.url(image.qcow2.name)
        url = house.sources.url(image.qcow2.name, way="redirect")
        assert_failed(failures(house, url), "address_refused", host="127.0.0.1")
        direct = inside.url(image.qcow2.name)
        assert_failed(failures(house, direct), "address_refused", host="127.0.0.1")
        assert inside.requests.total() == 0


def test_an_allowed_redirect_is_followed(house, image):
    """So that the test above fails for the address, not for being redirected."""
    house.sources.redirect_to = house.sources.url(image.qcow2.name)
    accepted = house.register(house.sources.url(image.qcow2.name, way="redirect"), zone="north")
    template_id = house.done(accepted)
    house.done(house.api.delete(f"/v1/templates/{template_id}"))


def test_a_body_that_never_ends_is_cut_at_the_quota(house, unchanged):
    name = write_pattern(house.sources.folder / "endless.raw", MIB).name
    with setting(house, "template.size.max", f"{QUOTA_BYTES}"):
        errors = failures(house, house.sources.url(name, way="endless"), format="raw")
    assert_failed(errors, "source_too_large", size_bytes_max=str(QUOTA_BYTES))
    assert house.sources.sent_bytes[name] <= 2 * (QUOTA_BYTES + READ_AHEAD_BYTES)


def test_a_body_longer_than_the_quota_is_refused_before_it_is_read(house, unchanged, image):
    with setting(house, "template.size.max", "1MiB"):
        errors = failures(house, house.sources.url(image.qcow2.name))
    assert_failed(errors, "source_too_large", size_bytes_max=str(MIB))


def test_a_source_that_promises_more_than_it_sends(house, unchanged, image):
    url = house.sources.url(image.qcow2.name, way="short")
    assert_failed(failures(house, url), "source_length", received_bytes=str(image.qcow2_bytes))


def test_a_source_that_sends_more_than_it_promised(house, unchanged, image):
    url = house.sources.url(image.qcow2.name, way="long")
    promised = image.qcow2_bytes - LIE_BYTES
    assert_failed(failures(house, url), "source_length", promised_bytes=str(promised))


def test_a_source_that_stops_sending_is_tried_again_and_given_up(house, unchanged, image):
    house.sources.requests.clear()
    errors = failures(house, house.sources.url(image.qcow2.name, way="stalled"))
    assert_failed(errors, "source_stalled", attempts="5")
    assert house.sources.requests[image.qcow2.name] == 2 * 5


def test_a_wrong_checksum_is_told_with_both_values(house, unchanged, image):
    wrong = "0" * 64
    errors = failures(
        house,
        house.sources.url(image.qcow2.name),
        checksum={"algorithm": "sha256", "value": wrong},
    )
    both = {"expected": wrong, "actual": image.qcow2_sha256}
    assert_failed(errors, "checksum_mismatch", "checksum", **both)


# --- images ------------------------------------------------------------------------------------


def made(house, name, *words):
    path = house.sources.folder / name
    subprocess.run(
        ["qemu-img", "create", "-q", *words[:-1], str(path), *words[-1:]],
        check=True,
        cwd=path.parent,
    )
    return house.sources.url(name)


def test_an_image_with_a_backing_file(house, unchanged):
    write_pattern(house.sources.folder / "base.raw", MIB)
    url = made(house, "backed.qcow2", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "1M")
    assert_failed(failures(house, url), "unsafe_image")


def test_an_image_with_an_external_data_file(house, unchanged):
    url = made(house, "split.qcow2", "-f", "qcow2", "-o", "data_file=split.data", "1M")
    assert_failed(failures(house, url), "unsafe_image")


def test_a_raw_image_declared_as_qcow2(house, unchanged):
    write_pattern(house.sources.folder / "plain.raw", 20 * MIB)
    errors = failures(house, house.sources.url("plain.raw"))
    assert_failed(errors, "format_mismatch", "format", declared="qcow2", found="raw")


def test_a_qcow2_image_declared_as_raw(house, unchanged, image):
    """Taken as raw it would be a disk whose guest may write itself a backing file."""
    errors = failures(house, house.sources.url(image.qcow2.name), format="raw")
    assert_failed(errors, "format_mismatch", "format", declared="raw", found="qcow2")


def test_an_image_with_a_larger_disk_than_the_quota(house, unchanged):
    url = made(house, "huge.qcow2", "-f", "qcow2", "3T")
    assert_failed(failures(house, url), "quota_exceeded", virtual_size_bytes=str(3 << 40))


def test_a_raw_image_larger_than_the_quota_for_disks(house, unchanged):
    write_pattern(house.sources.folder / "plain.raw", 20 * MIB)
    with setting(house, "template.virtual-size.max", "16MiB"):
        errors = failures(house, house.sources.url("plain.raw"), format="raw")
    assert_failed(errors, "quota_exceeded", virtual_size_bytes=str(20 * MIB))


def test_a_raw_image_that_is_no_whole_number_of_sectors(house, unchanged):
    write_pattern(house.sources.folder / "odd.raw", 1000)
    errors = failures(house, house.sources.url("odd.raw"), format="raw")
    assert_failed(errors, "format_mismatch", size_bytes="1000")
