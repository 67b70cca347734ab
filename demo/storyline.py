"""The main job, step by step, through the public HTTP API and the `entrepot` CLI."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from msgspec import Struct

from demo.image import Image, sha256
from demo.servers import Swift
from demo.show import Show, short
from entrepot_testkit.api import Api, ApiProblem, until
from entrepot_testkit.embedded import EmbeddedStack

BUCKET = "images"
MIB = 1 << 20
JOB_S = 170
LINK_EXPIRES_S = 300
PART_BYTES = 16 * MIB
PARTS_RESENT_MAX = 8
KILL_AT = 0.35
# What a guest would have written: (pattern, offset, length), inside and across clusters.
WRITES = ((0x5A, 100 * MIB, 4 * MIB), (0xC3, 513 * MIB + 4096, 65536 + 512), (0x11, 4096, 8192))


class Mismatch(Exception):
    """Something is not what it must be; the demo fails."""


class Places(Struct, frozen=True, kw_only=True):
    """Folders of the demo, all under one that is removed at the end."""

    images: Path  # directory image store
    pools: dict[str, Path]  # primary store per zone
    work: Path


class Storyline:
    """Holds what later steps need of earlier ones."""

    def __init__(
        self,
        *,
        stack: EmbeddedStack,
        swift: Swift,
        downloads: str,
        image: Image,
        places: Places,
        show: Show,
    ) -> None:
        self._stack, self._swift, self._downloads = stack, swift, downloads
        self._image, self._places, self._show = image, places, show
        self._api: Api = stack.admin(patience_s=30)
        self._zones: dict[str, str] = {}
        self._template = ""
        self._snapshot = ""

    def run(self) -> None:
        self._show.head("zones and stores")
        self._make_zones()
        self._make_stores()
        self._show.head("templates: verified before they are ready")
        self._template_for_the_region()
        self._template_for_a_zone()
        self._template_with_a_wrong_checksum()
        self._show.head("a volume's life: create, write, snapshot, delete, restore elsewhere")
        self._volume_life()
        self._show.head("extract by an expiring link")
        self._extract()
        self._show.head("a mover dies in the middle of 1 GiB")
        self._mover_dies()

    # --- zones and stores ---

    def _make_zones(self) -> None:
        for name in self._places.pools:
            self._zones[name] = self._api.post("/v1/zones", {"name": name})["id"]
        self._show.say(f"zones: {', '.join(self._zones)}")

    def _make_stores(self) -> None:
        self._swift.make_bucket(BUCKET)
        s3 = {
            "endpoint": self._swift.endpoint,
            "region": self._swift.region,
            "bucket": BUCKET,
            "access_key": self._swift.access_key,
            "secret_key": self._swift.secret_key,
        }
        self._add_store("image", "objects", "s3", s3)
        north = self._zones["north"]
        directory = {"path": str(self._places.images)}
        try:
            self._add_store("image", "shelf", "file", directory, zone_id=north)
        except ApiProblem as problem:
            _same("refusal of a second provider", problem.code, "provider_mixing")
            self._show.say(f"second provider refused: {problem.document['detail']}")
        else:
            raise Mismatch("a second image store provider was accepted against the default rule")
        self._api.put("/v1/settings/image-store.mixing", {"value": "any"})
        self._show.say("setting image-store.mixing = any")
        self._add_store("image", "shelf", "file", directory, zone_id=north)
        for name, path in self._places.pools.items():
            pool = {"path": str(path)}
            self._add_store("primary", f"pool-{name}", "file", pool, zone_id=self._zones[name])

    def _add_store(
        self, role: str, name: str, provider: str, config: dict[str, Any], **more: str
    ) -> None:
        body = {"name": name, "provider": provider, "config": config, **more}
        accepted = self._api.post(f"/v1/{role}-stores", body)
        self._api.succeeded(accepted["job_id"], timeout_s=JOB_S)
        where = "zone-wide" if role == "image" and more else "region-wide"
        self._show.say(
            f"{role} store {name} ({provider}{f', {where}' if role == 'image' else ''})"
            " probed and up"
        )

    # --- templates ---

    def _register(self, name: str, **body: object) -> dict[str, Any]:
        asked = {
            "name": name,
            "url": f"{self._downloads}/{self._image.qcow2.name}",
            "format": "qcow2",
            "checksum": {"algorithm": "sha256", "value": self._image.qcow2_sha256},
            **body,
        }
        return self._api.post("/v1/templates", asked)

    def _template_for_the_region(self) -> None:
        with self._show.step("template, region-wide on S3") as row:
            accepted = self._register("debian")
            self._finish(accepted["job_id"], "http -> S3, verified by re-reading")
            self._template = accepted["id"]
            copy = self._ready_copy("/v1/templates", self._template)
            row.bytes = copy["stored"]["stored_bytes"]
            _same("bytes stored", row.bytes, self._image.qcow2_bytes)
            row.verified = self._user_checksum(self._template)

    def _template_for_a_zone(self) -> None:
        with self._show.step("template, zone-wide on a directory") as row:
            accepted = self._register("debian-north", scope="zone", zone_ids=[self._zones["north"]])
            self._finish(accepted["job_id"], "http -> directory")
            copy = self._ready_copy("/v1/templates", accepted["id"])
            stored = self._places.images / "objects" / copy["stored"]["key"]
            row.bytes = stored.stat().st_size
            _same("SHA-256 of the file in the store", sha256(stored), self._image.qcow2_sha256)
            row.verified = self._user_checksum(accepted["id"])

    def _template_with_a_wrong_checksum(self) -> None:
        with self._show.step("template with a wrong checksum: refused") as row:
            before = self._swift.keys(BUCKET)
            wrong = {"algorithm": "sha256", "value": "0" * 64}
            accepted = self._register("not-debian", checksum=wrong)
            job = self._job(accepted["job_id"], "http -> S3")
            _same("state of the job", job["state"], "failed")
            error = job["error"]
            _same("code", error["code"], "checksum_mismatch")
            _same("checksum expected", error["facts"]["expected"], wrong["value"])
            _same("checksum found", error["facts"]["actual"], self._image.qcow2_sha256)
            state = self._api.get(f"/v1/templates/{accepted['id']}")["state"]
            _same("state of the template", state, "failed")
            _same("objects left behind", sorted(self._swift.keys(BUCKET)), sorted(before))
            row.bytes = self._image.qcow2_bytes
            row.verified = "no object left"
            self._show.say(f"{error['code']}: {error['message']}")

    def _user_checksum(self, template_id: str) -> str:
        found = self._api.get(f"/v1/templates/{template_id}")["checksum"]
        _same("checksum shown", found["value"], self._image.qcow2_sha256)
        return short("sha256", found["value"])

    def _ready_copy(self, collection: str, thing_id: str) -> dict[str, Any]:
        thing = self._api.get(f"{collection}/{thing_id}")
        _same("state", thing["state"], "ready")
        copies: list[dict[str, Any]] = thing["copies"]
        _same("copies", [copy["state"] for copy in copies], ["Ready"])
        return copies[0]

    # --- volumes and snapshots ---

    def _volume_life(self) -> None:
        volume = self._create_volume("root", "north", template_id=self._template)
        path = Path(volume["path"])
        with self._show.step("guest writes into the volume (qemu-io)") as row:
            row.bytes = _guest_writes(path)
            kept = self._places.work / "kept.qcow2"
            subprocess.run(["cp", "--sparse=always", str(path), str(kept)], check=True)
            row.verified = short("sha256", sha256(kept))
        with self._show.step("snapshot, backed up to S3") as row:
            asked = {"volume_id": volume["id"], "name": "before-delete"}
            accepted = self._api.post("/v1/snapshots", asked)
            self._finish(accepted["job_id"], "pool -> S3, verified by re-reading")
            self._snapshot = accepted["id"]
            snapshot = self._api.get(f"/v1/snapshots/{self._snapshot}")
            row.bytes = self._ready_copy("/v1/snapshots", self._snapshot)["stored"]["stored_bytes"]
            row.verified = short("blake3", snapshot["digest_root"])
        with self._show.step("volume deleted"):
            deleted = self._api.delete(f"/v1/volumes/{volume['id']}")
            self._finish(deleted["job_id"], "delete")
            if path.exists():
                raise Mismatch(f"{path} is still there")
        restored = self._create_volume("root-again", "south", snapshot_id=self._snapshot)
        _same("content digest", restored["digest_root"], snapshot["digest_root"])
        self._compare(kept, Path(restored["path"]))

    def _create_volume(self, name: str, zone: str, **source: str) -> dict[str, Any]:
        what = "template" if "template_id" in source else "snapshot"
        with self._show.step(f"volume in zone {zone} from {what}") as row:
            asked = {"name": name, "zone_id": self._zones[zone], **source}
            accepted = self._api.post("/v1/volumes", asked)
            self._finish(accepted["job_id"], f"S3 -> pool of {zone}")
            volume = self._api.get(f"/v1/volumes/{accepted['id']}")
            _same("state", volume["state"], "ready")
            row.bytes = Path(volume["path"]).stat().st_size
            row.verified = short("blake3", volume["digest_root"])
        return volume

    def _compare(self, kept: Path, restored: Path) -> None:
        with self._show.step("restored volume compared bit for bit") as row:
            row.bytes = restored.stat().st_size
            subprocess.run(
                ["qemu-img", "compare", "-q", "-f", "qcow2", "-F", "qcow2", str(kept),
                 str(restored)],
                check=True,
            )  # fmt: skip
            _same("SHA-256 of the restored volume", sha256(restored), sha256(kept))
            subprocess.run(["qemu-img", "check", "-q", str(restored)], check=True)
            row.verified = short("sha256", sha256(restored))

    # --- extract ---

    def _extract(self) -> None:
        with self._show.step("template by expiring link (curl)") as row:
            asked = {"expires_s": LINK_EXPIRES_S}
            accepted = self._api.post(f"/v1/templates/{self._template}/extract", asked)
            job = self._finish(accepted["job_id"], "link")
            target = self._places.work / "extracted.qcow2"
            subprocess.run(["curl", "-fsS", "-o", str(target), job["url"]], check=True)
            row.bytes = target.stat().st_size
            found = sha256(target)
            _same("SHA-256 of the extracted file", found, self._image.qcow2_sha256)
            row.verified = short("sha256", found)
            target.unlink()

    # --- the mover's death ---

    def _mover_dies(self) -> None:
        with self._show.step("1 GiB raw template, its mover killed") as row:
            accepted = self._api.post(
                "/v1/templates",
                {
                    "name": "debian-raw",
                    "url": f"{self._downloads}/{self._image.raw.name}",
                    "format": "raw",
                    "checksum": {"algorithm": "sha256", "value": self._image.raw_sha256},
                },
            )
            running = until(
                lambda: self._far_enough(accepted["job_id"]), timeout_s=JOB_S, what="1 GiB running"
            )
            killed = self._kill_mover_of(running)
            self._finish(accepted["job_id"], "http -> S3, second mover")
            copy = self._ready_copy("/v1/templates", accepted["id"])
            row.bytes = copy["stored"]["digest"]["size_bytes"]
            checksum = self._api.get(f"/v1/templates/{accepted['id']}")["checksum"]
            _same("checksum", checksum["value"], self._image.raw_sha256)
            row.verified = short("sha256", checksum["value"])
        self._judge_resume(self._api.get(f"/v1/transfers/{running['id']}"), running, killed)

    def _far_enough(self, job_id: str) -> dict[str, Any] | None:
        for transfer in self._api.transfers(job_id):
            done, total = transfer["bytes_done"], transfer["bytes_total"]
            if total:
                self._show.progress("http -> S3, first mover", done, total)
            if transfer["kind"] == "copy" and total and done >= KILL_AT * total:
                return transfer
        return None

    def _kill_mover_of(self, transfer: dict[str, Any]) -> str:
        name = mover_name(self._stack, transfer["mover_id"])
        pid = self._stack.kill(name)
        done = transfer["bytes_done"] / transfer["bytes_total"]
        self._show.say(f"SIGKILL to {name} (pid {pid}) at {done:.0%}")
        return name

    def _judge_resume(
        self, transfer: dict[str, Any], killed: dict[str, Any], killed_name: str
    ) -> None:
        resent = transfer["bytes_resent"] / PART_BYTES
        in_flight = int(os.environ.get("ENTREPOT_MOVER_PARTS_IN_FLIGHT", "4"))
        finisher = mover_name(self._stack, transfer["mover_id"])
        self._show.say(
            f"{killed_name} died at epoch {killed['epoch']}; {finisher} finished it at epoch "
            f"{transfer['epoch']}; {resent:.1f} parts of 16 MiB sent again"
        )
        _same(
            "the killed mover's epoch is over", transfer["epoch"] > killed["epoch"], expected=True
        )
        _same("mover that finished differs", finisher != killed_name, expected=True)
        if resent > PARTS_RESENT_MAX + in_flight:
            raise Mismatch(f"{resent:.1f} parts were sent again, more than 8 and those in flight")

    # --- jobs ---

    def _finish(self, job_id: str, what: str) -> dict[str, Any]:
        job = self._job(job_id, what)
        if job["state"] != "succeeded":
            error = job["error"]
            raise Mismatch(f"{job['kind']} failed: {error['code']}: {error['message']}")
        return job

    def _job(self, job_id: str, what: str) -> dict[str, Any]:
        job: dict[str, Any] = {}
        for job in self._api.watch(job_id, timeout_s=JOB_S):
            self._show.progress(what, job["bytes_done"], job["bytes_total"])
        return job


def mover_name(stack: EmbeddedStack, mover_id: str) -> str:
    """Name of the process (mover-1, ...) behind a mover's id: its state folder tells."""
    for path in (stack.folder / "state").glob("mover-*/mover_id"):
        if path.read_text().strip() == mover_id:
            return path.parent.name
    raise Mismatch(f"no process is known for mover {mover_id}")


def _guest_writes(volume: Path) -> int:
    commands = [f"write -P {pattern} {offset} {length}" for pattern, offset, length in WRITES]
    arguments = [word for command in commands for word in ("-c", command)]
    qemu_io = shutil.which("qemu-io") or "qemu-io"
    done = subprocess.run(
        [qemu_io, "-f", "qcow2", *arguments, str(volume)],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0 or "error" in done.stdout.lower():
        raise Mismatch(f"qemu-io: {done.stdout}{done.stderr}")
    return sum(length for _, _, length in WRITES)


def _same(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise Mismatch(f"{what}: expected {expected}, found {found}")
