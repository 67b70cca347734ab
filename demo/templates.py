"""Templates: one for the region, one for a zone, one with a wrong checksum; and the way out."""

import subprocess
from typing import Any

from demo.image import sha256
from demo.scene import BUCKET, ZONES, Scene, same
from demo.show import short

OBJECTS = "objects"  # folder of a directory store under which its objects lie


def for_the_region(scene: Scene) -> str:
    """Id of the template, Ready on S3."""
    with scene.show.step("template, region-wide on S3") as row:
        accepted = _register(scene, "debian")
        scene.finish(accepted["job_id"], "http -> S3, verified by re-reading")
        stored = scene.ready_copy("templates", accepted["id"])
        row.bytes = stored["stored_bytes"]
        same("bytes stored", row.bytes, scene.image.qcow2_bytes)
        row.verified = _user_checksum(scene, accepted["id"])
    return str(accepted["id"])


def for_a_zone(scene: Scene) -> None:
    """The file in the directory store is hashed here once more, by ourselves."""
    with scene.show.step("template, zone-wide on a directory") as row:
        accepted = _register(scene, "debian-zone", "--scope", "zone", "--zone", ZONES[0])
        scene.finish(accepted["job_id"], "http -> directory")
        stored = scene.ready_copy("templates", accepted["id"])
        file = scene.places.images / OBJECTS / stored["key"]
        row.bytes = file.stat().st_size
        same("SHA-256 of the file in the store", sha256(file), scene.image.qcow2_sha256)
        row.verified = _user_checksum(scene, accepted["id"])


def with_a_wrong_checksum(scene: Scene) -> None:
    with scene.show.step("template with a wrong checksum: refused") as row:
        before = sorted(scene.swift.keys(BUCKET))
        wrong = "0" * 64
        accepted = _register(scene, "not-debian", checksum=wrong)
        job = scene.job(accepted["job_id"], "http -> S3")
        same("state of the job", job["state"], "failed")
        error = job["error"]
        same("code", error["code"], "checksum_mismatch")
        same("checksum expected", error["facts"]["expected"], wrong)
        same("checksum found", error["facts"]["actual"], scene.image.qcow2_sha256)
        template = scene.api.get(f"/v1/templates/{accepted['id']}")
        same("state of the template", template["state"], "failed")
        same("objects in the bucket", sorted(scene.swift.keys(BUCKET)), before)
        row.bytes = scene.image.qcow2_bytes
        row.verified = "refused; no object left"
    scene.show.say(f"expected {wrong[:12]}…, found {error['facts']['actual'][:12]}…")


def extracted(scene: Scene, template_id: str) -> None:
    """By an expiring link, with curl, as anybody outside would."""
    with scene.show.step("template by expiring link (curl)") as row:
        job = scene.cli("template", "extract", template_id, "--expires", "5m", "--wait")
        target = scene.places.work / "extracted.qcow2"
        subprocess.run(["curl", "-fsS", "-o", str(target), job["url"]], check=True)
        row.bytes = target.stat().st_size
        found = sha256(target)
        same("SHA-256 of the extracted file", found, scene.image.qcow2_sha256)
        row.verified = short("sha256", found)
        target.unlink()


def _register(scene: Scene, name: str, *words: str, checksum: str | None = None) -> dict[str, Any]:
    url = f"{scene.downloads}/{scene.image.qcow2.name}"
    given = f"sha256:{checksum or scene.image.qcow2_sha256}"
    accepted: dict[str, Any] = scene.cli(
        *("template", "register", "--name", name, "--url", url, "--format", "qcow2"),
        *("--checksum", given, *words),
    )
    return accepted


def _user_checksum(scene: Scene, template_id: str) -> str:
    found = scene.api.get(f"/v1/templates/{template_id}")["checksum"]["value"]
    same("checksum shown", found, scene.image.qcow2_sha256)
    return short("sha256", found)
