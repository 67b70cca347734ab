"""A folder finds everything again: after `entrepot down`, and after SIGKILL of the supervisor."""

import shutil
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from demo.image import MIB, sha256
from entrepot_testkit.api import Api, until
from entrepot_testkit.embedded import embedded_stack, up
from tests.flows.house import JOB_S
from tests.flows.sources import sources_on, write_pattern

SLOW_BPS = 6 * MIB
LARGE_BYTES = 40 * MIB
FAST = {"ENTREPOT_MOTION_ENGINE_LEASE_S": "3", "ENTREPOT_MOTION_ENGINE_RENEW_S": "1"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A stack of this file alone, and a source on loopback."""
    files = tmp_path_factory.mktemp("files")
    # Not below pytest's folder: it is closed to the user PostgreSQL runs as.
    folder = Path(tempfile.mkdtemp(prefix="entrepot-restart-", dir="/var/tmp"))
    folder.chmod(0o711)
    try:
        with (
            sources_on("127.0.0.1", files) as sources,
            embedded_stack(folder / "data", env=FAST) as stack,
        ):
            yield SimpleNamespace(folder=folder, stack=stack, sources=sources)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def home(place):
    """A zone with an image store and a pool; a tenant with a template and a volume of it."""
    api = place.stack.admin()
    zone = api.post("/v1/zones", {"name": "only"})["id"]
    for role in ("image", "primary"):
        (place.folder / role).mkdir()
        config = {"path": str(place.folder / role)}
        body = {"name": role, "provider": "file", "config": config, "zone_id": zone}
        api.succeeded(api.post(f"/v1/{role}-stores", body)["job_id"], timeout_s=JOB_S)
    account = api.post("/v1/accounts", {"name": "tenant"})["id"]
    key = api.post(f"/v1/accounts/{account}/keys", {"name": "hers"})["key"]
    tenant = Api(place.stack.url, key)
    small = write_pattern(place.sources.folder / "small.raw", 4 * MIB)
    template = register(tenant, place.sources.url(small.name), zone)
    tenant.succeeded(template["job_id"], timeout_s=JOB_S)
    volume = tenant.post("/v1/volumes", volume_of(template["id"], zone, "first"))
    tenant.succeeded(volume["job_id"], timeout_s=JOB_S)
    return SimpleNamespace(zone=zone, tenant=tenant, template=template["id"], small=small)


def register(api, url, zone):
    body = {"name": url[-20:], "url": url, "format": "raw", "scope": "zone", "zone_ids": [zone]}
    return api.post("/v1/templates", body)


def volume_of(template_id, zone, name):
    return {"name": name, "zone_id": zone, "template_id": template_id}


def everything(api):
    """All that the API lists, as it lists it."""
    nouns = ["zones", "image-stores", "primary-stores", "templates", "volumes", "snapshots"]
    listed = {
        noun: api.get(f"/v1/{noun}")["items"] for noun in [*nouns, "accounts", "jobs", "settings"]
    }
    assert all(listed[noun] for noun in nouns if noun != "snapshots")
    return listed


def assert_still_makes_volumes(place, home):
    """A new volume of the old template: ready, the same digest, the same bytes."""
    made = home.tenant.post("/v1/volumes", volume_of(home.template, home.zone, "again"))
    home.tenant.succeeded(made["job_id"], timeout_s=JOB_S)
    volume = place.stack.admin().get(f"/v1/volumes/{made['id']}")
    (copy,) = home.tenant.get(f"/v1/templates/{home.template}")["copies"]
    assert volume["digest_root"] == copy["stored"]["digest"]["root"]
    subprocess.run(["cmp", volume["path"], str(home.small)], check=True)


def test_down_and_up_find_everything_again(place, home):
    url, before = place.stack.url, everything(place.stack.admin())
    place.stack.down()
    up(place.stack.folder, env=FAST)
    assert place.stack.url == url
    assert everything(place.stack.admin()) == before
    assert home.tenant.get("/v1/me")["name"] == "tenant", "her key of before"
    assert_still_makes_volumes(place, home)


def test_after_sigkill_of_the_supervisor_up_goes_on_with_the_work(place, home):
    url, admin_key = place.stack.url, place.stack.admin_key_file.read_text()
    before = everything(place.stack.admin())
    large = write_pattern(place.sources.folder / "large.raw", LARGE_BYTES)
    accepted = register(home.tenant, place.sources.url(large.name, bps=SLOW_BPS), home.zone)
    until(
        lambda: home.tenant.get(f"/v1/jobs/{accepted['job_id']}")["bytes_done"] > 8 * MIB,
        timeout_s=JOB_S,
        what="the copy under way",
    )
    pids = place.stack.endpoints["pids"]
    place.stack.kill_supervisor()
    up(place.stack.folder, env=FAST)
    assert place.stack.url == url
    assert place.stack.admin_key_file.read_text() == admin_key
    assert not [name for name, pid in pids.items() if psutil.pid_exists(pid)], "no old process"
    home.tenant.succeeded(accepted["job_id"], timeout_s=JOB_S)
    template = home.tenant.get(f"/v1/templates/{accepted['id']}")
    (copy,) = template["copies"]
    assert (template["state"], copy["state"]) == ("ready", "Ready")
    assert sha256(place.folder / "image" / "objects" / copy["stored"]["key"]) == sha256(large)
    after = everything(place.stack.admin())
    for noun in ("zones", "accounts", "settings", "volumes"):
        assert after[noun] == before[noun]
    assert_still_makes_volumes(place, home)
    parts = [path for path in (place.folder / "image").rglob("*") if ".part" in path.name]
    assert parts == [], "what the killed attempt had begun is gone"
