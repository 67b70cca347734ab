"""A volume's life: made from a template, written to, snapshotted, deleted, restored elsewhere."""

import subprocess
from pathlib import Path
from typing import Any

from demo.image import MIB, sha256
from demo.scene import ZONES, Mismatch, Scene, same
from demo.show import short

# What a guest would have written: (pattern, offset, length), inside and across clusters.
WRITES = ((0x5A, 100 * MIB, 4 * MIB), (0xC3, 513 * MIB + 4096, 66_048), (0x11, 4096, 8192))


def life(scene: Scene, template_id: str) -> None:
    here, there = ZONES
    volume = _created(scene, "root", here, template_id=template_id)
    path = Path(volume["path"])
    kept = _written(scene, path)
    snapshot = _backed_up(scene, volume["id"])
    with scene.show.step("volume deleted"):
        deleted = scene.api.delete(f"/v1/volumes/{volume['id']}")
        scene.finish(deleted["job_id"], "delete")
        if path.exists():
            raise Mismatch(f"{path} is still there")
    restored = _created(scene, "root-again", there, snapshot_id=snapshot["id"])
    same("content digest", restored["digest_root"], snapshot["digest_root"])
    _compared(scene, kept, Path(restored["path"]))


def _created(scene: Scene, name: str, zone: str, **source: str) -> dict[str, Any]:
    what = "template" if "template_id" in source else "snapshot"
    with scene.show.step(f"volume in zone {zone} from {what}") as row:
        zone_id = next(
            one["id"] for one in scene.api.get("/v1/zones")["items"] if one["name"] == zone
        )
        accepted = scene.api.post("/v1/volumes", {"name": name, "zone_id": zone_id, **source})
        scene.finish(accepted["job_id"], f"S3 -> pool of {zone}")
        volume = scene.api.get(f"/v1/volumes/{accepted['id']}")
        same("state", volume["state"], "ready")
        row.bytes = Path(volume["path"]).stat().st_size
        row.verified = short("blake3", volume["digest_root"])
    return volume


def _written(scene: Scene, path: Path) -> Path:
    """A copy of the volume as the guest left it, kept outside of Entrepot."""
    with scene.show.step("guest writes into the volume (qemu-io)") as row:
        words = [word for p, at, n in WRITES for word in ("-c", f"write -P {p} {at} {n}")]
        done = subprocess.run(
            ["qemu-io", "-f", "qcow2", *words, str(path)],
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0 or done.stdout.count("wrote ") != len(WRITES):
            raise Mismatch(f"qemu-io: {done.stdout}{done.stderr}")
        row.bytes = sum(length for _, _, length in WRITES)
        kept = scene.places.work / "kept.qcow2"
        subprocess.run(["cp", "--sparse=always", str(path), str(kept)], check=True)
        row.verified = short("sha256", sha256(kept))
    return kept


def _backed_up(scene: Scene, volume_id: str) -> dict[str, Any]:
    with scene.show.step("snapshot, backed up to S3") as row:
        accepted = scene.api.post(
            "/v1/snapshots", {"volume_id": volume_id, "name": "before-delete"}
        )
        scene.finish(accepted["job_id"], "pool -> S3, verified by re-reading")
        row.bytes = scene.ready_copy("snapshots", accepted["id"])["stored_bytes"]
        snapshot = scene.api.get(f"/v1/snapshots/{accepted['id']}")
        row.verified = short("blake3", snapshot["digest_root"])
    return snapshot


def _compared(scene: Scene, kept: Path, restored: Path) -> None:
    """What the guest sees, what it wrote, and the container's very bytes."""
    with scene.show.step("restored volume compared bit for bit") as row:
        row.bytes = restored.stat().st_size
        formats = ["-f", "qcow2", "-F", "qcow2"]
        subprocess.run(["qemu-img", "compare", "-q", *formats, kept, restored], check=True)
        subprocess.run(["qemu-img", "check", "-q", restored], check=True)
        found = sha256(restored)
        same("SHA-256 of the restored volume", found, sha256(kept))
        row.verified = short("sha256", found)
