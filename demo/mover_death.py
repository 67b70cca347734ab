"""A mover is killed in the middle of 1 GiB; another one finishes, sending little again."""

import json
import urllib.request
from typing import Any

from demo.scene import JOB_S, Mismatch, Scene, same
from demo.show import MB, short
from entrepot_testkit.api import until
from entrepot_testkit.embedded import EmbeddedStack

KILL_AT = 0.35
PART_BYTES = 16 << 20
PARTS_RESENT_MAX = 8
PARTS_IN_FLIGHT = 4  # ENTREPOT_MOVER_PARTS_IN_FLIGHT, its default
REQUEST_S = 10


def survived(scene: Scene) -> None:
    with scene.show.step("1 GiB raw template, its mover killed") as row:
        accepted = _register(scene)
        running = until(
            lambda: _far_enough(scene, accepted["job_id"]), timeout_s=JOB_S, what="1 GiB running"
        )
        killed = mover_name(scene.stack, running["mover_id"])
        pid = scene.stack.kill(killed)
        share = running["bytes_done"] / running["bytes_total"]
        scene.show.say(f"SIGKILL to {killed} (pid {pid}) at {share:.0%}")
        scene.finish(accepted["job_id"], "http -> S3, another mover")
        stored = scene.ready_copy("templates", accepted["id"])
        row.bytes = stored["digest"]["size_bytes"]
        found = scene.api.get(f"/v1/templates/{accepted['id']}")["checksum"]["value"]
        same("SHA-256 of the template", found, scene.image.raw_sha256)
        row.verified = short("sha256", found)
    _judge(scene, running, killed)


def _register(scene: Scene) -> dict[str, Any]:
    checksum = {"algorithm": "sha256", "value": scene.image.raw_sha256}
    url = f"{scene.downloads}/{scene.image.raw.name}"
    body = {"name": "debian-raw", "url": url, "format": "raw", "checksum": checksum}
    return scene.api.post("/v1/templates", body)


def _far_enough(scene: Scene, job_id: str) -> dict[str, Any] | None:
    for transfer in scene.api.transfers(job_id):
        done, total = transfer["bytes_done"], transfer["bytes_total"]
        if transfer["kind"] == "copy" and total:
            scene.show.progress("http -> S3, first mover", done, total)
            if done >= KILL_AT * total:
                return transfer
    return None


def _judge(scene: Scene, before: dict[str, Any], killed: str) -> None:
    """Sent again is judged by the download server: bytes it gave out beyond the file's length,
    which counts what the dead mover had fetched and never recorded.
    """
    after = scene.api.get(f"/v1/transfers/{before['id']}")
    finisher = mover_name(scene.stack, after["mover_id"])
    given = _given_out(scene, scene.image.raw.name)
    again = given - scene.image.raw.stat().st_size
    scene.show.say(
        f"{killed} held it at epoch {before['epoch']}, {finisher} finished it at epoch "
        f"{after['epoch']}; {again / MB:.0f} MB = {again / PART_BYTES:.1f} parts fetched again"
    )
    if after["epoch"] <= before["epoch"]:
        raise Mismatch("nobody took over")
    if again > (PARTS_RESENT_MAX + PARTS_IN_FLIGHT) * PART_BYTES:
        raise Mismatch("more than 8 parts and those in flight were sent again")
    row = scene.show.rows[-1]
    row.verified += f"  ({again / PART_BYTES:.1f} parts again)"


def _given_out(scene: Scene, name: str) -> int:
    with urllib.request.urlopen(f"{scene.downloads}/served", timeout=REQUEST_S) as answer:  # noqa: S310 - our own server
        served: dict[str, int] = json.load(answer)
    return served[name]


def mover_name(stack: EmbeddedStack, mover_id: str) -> str:
    """Name of the process (mover-1, ...) behind a mover's id: its state folder tells."""
    for path in (stack.folder / "state").glob("mover-*/mover_id"):
        if path.read_text().strip() == mover_id:
            return path.parent.name
    raise Mismatch(f"no process is known for mover {mover_id}")
