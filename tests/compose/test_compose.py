"""The main job's short form on compose.yaml, while each container is killed in turn."""

import hashlib
import http.server
import os
import socket
import subprocess
import threading
from functools import partial
from pathlib import Path

import pytest

from entrepot_testkit.api import Api, until

from .engine import NoEngine, engine
from .project import Project

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1500)]
KILLED = (
    "nats",
    "postgres",
    "store-registry",
    "motion-engine",
    "cache-manager",
    "autoscaler",
    "api-gateway",
    "mover",
)
JOB_S = 180
IMAGE_BYTES = 96 << 20


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compose")
    os.environ.setdefault("ENTREPOT_COMPOSE_PORT", str(_free_port()))
    try:
        with engine(folder) as docker:
            project = Project(docker, folder)
            project.prepare()
            try:
                project.up()
                yield project
            finally:
                project.down()
    except NoEngine as err:
        # Asked for by name (make test-compose), so a missing engine is a failure, not a skip.
        pytest.fail(str(err))


@pytest.fixture(scope="module")
def api(project):
    key = project.read("api-gateway", "/var/lib/entrepot/admin.key")
    return Api(f"http://127.0.0.1:{os.environ['ENTREPOT_COMPOSE_PORT']}", key, patience_s=90)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A real qcow2 with a filesystem, served on the bridge's address."""
    folder = tmp_path_factory.mktemp("source")
    image = _image(folder)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("0.0.0.0", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield image, server.server_address[1]
        server.shutdown()


@pytest.fixture(scope="module")
def house(project, api):
    """Two zones, an image store and a primary store in each."""
    ids = {}
    for zone in ("north", "south"):
        ids[zone] = api.post("/v1/zones", {"name": zone})["id"]
        for kind in ("image-stores", "primary-stores"):
            folder = project.stores / zone / kind
            folder.mkdir(parents=True)
            for path in (folder.parent, folder):
                path.chmod(0o777)
            accepted = api.post(
                f"/v1/{kind}",
                {
                    "name": f"{zone}-{kind}",
                    "provider": "file",
                    "zone_id": ids[zone],
                    "config": {"path": f"/srv/entrepot/{zone}/{kind}"},
                },
            )
            api.succeeded(accepted["job_id"], timeout_s=JOB_S)
    return ids


def test_a_volume_made_from_a_template_is_backed_up_and_restored(project, api, house, source):
    image, port = source
    template = _register(project, api, house, image, port, name="first")
    api.succeeded(template["job_id"], timeout_s=JOB_S)
    volume = api.post(
        "/v1/volumes", {"name": "root", "zone_id": house["north"], "template_id": template["id"]}
    )
    api.succeeded(volume["job_id"], timeout_s=JOB_S)
    snapshot = api.post("/v1/snapshots", {"volume_id": volume["id"], "name": "s"})
    api.succeeded(snapshot["job_id"], timeout_s=JOB_S)
    again = api.post(
        "/v1/volumes", {"name": "again", "zone_id": house["north"], "snapshot_id": snapshot["id"]}
    )
    api.succeeded(again["job_id"], timeout_s=JOB_S)
    path = api.get(f"/v1/volumes/{again['id']}")["path"]
    restored = project.stores / Path(path).relative_to("/srv/entrepot")
    assert _sha256(restored) == _sha256(image)


@pytest.mark.parametrize("service", KILLED)
def test_a_job_ends_right_though_a_container_is_killed(project, api, house, source, service):
    image, port = source
    template = _register(project, api, house, image, port, name=f"while {service} dies")
    project.kill(service)
    job = api.succeeded(template["job_id"], timeout_s=JOB_S)
    assert job["state"] == "succeeded"
    found = api.get(f"/v1/templates/{template['id']}")
    assert found["checksum"]["value"] == _sha256(image)
    project.healthy(service)


def test_a_crashed_service_comes_back_by_its_restart_policy(project):
    old = project.crash("store-registry")
    until(lambda: project.pid("store-registry") not in {0, old}, timeout_s=60, what="a new process")
    project.healthy("store-registry")


def _register(project, api, house, image, port, *, name):
    gateway = project.compose_gateway()
    return api.post(
        "/v1/templates",
        {
            "name": name,
            "url": f"http://{gateway}:{port}/{image.name}",
            "format": "qcow2",
            "scope": "zone",
            "zone_ids": [house["north"]],
            "checksum": {"algorithm": "sha256", "value": _sha256(image)},
        },
    )


def _image(folder: Path) -> Path:
    raw, qcow2 = folder / "image.raw", folder / "image.qcow2"
    with raw.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    subprocess.run(
        ["mke2fs", "-q", "-t", "ext4", "-d", "/usr/share/zoneinfo", str(raw)], check=True
    )
    argv = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(qcow2)]
    subprocess.run(argv, check=True)
    raw.unlink()
    return qcow2


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
