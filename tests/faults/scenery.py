"""The fault tests' installation: stores, work that is under way, and what "ends right" means."""

import hashlib
import json
import os
import signal
import time
import urllib.request
from pathlib import Path

import psutil

from demo.image import MIB, sha256
from demo.mover_death import mover_name
from entrepot_testkit.api import until

BUCKET = "images"
JOB_S = 150
SLOW_BPS = 10_000_000
LEASE_S = 3


class Scenery:
    def __init__(self, *, folder, stack, swift, downloads, small, large, env):
        self.folder, self.stack, self.swift = folder, stack, swift
        self.downloads, self.small, self.large, self.env = downloads, small, large, env
        self.api = stack.admin(patience_s=90)
        self.zones = {}
        self._count = 0

    def furnish(self):
        """Two zones, S3 for the region, a directory image store and a pool in each zone."""
        api, swift = self.api, self.swift
        swift.make_bucket(BUCKET)
        api.put("/v1/settings/image-store.mixing", {"value": "any"})
        for zone in ("north", "south"):
            self.zones[zone] = api.post("/v1/zones", {"name": zone})["id"]
        s3 = {
            "endpoint": swift.endpoint,
            "bucket": BUCKET,
            "access_key": swift.access_key,
            "secret_key": swift.secret_key,
        }
        self._add("image", "objects", "s3", s3)
        for zone in self.zones:
            self._add("image", f"shelf-{zone}", "file", self._made(f"shelf-{zone}"), zone)
            self._add("primary", f"pool-{zone}", "file", self._made(f"pool-{zone}"), zone)
        self.template = self.register("seed", self.small.qcow2, scope="region")["id"]
        self.api.succeeded(self.job_of("templates", self.template), timeout_s=JOB_S)

    def _made(self, name):
        (self.folder / name).mkdir()
        return {"path": str(self.folder / name)}

    def _add(self, role, name, provider, config, zone=None):
        more = {"zone_id": self.zones[zone]} if zone else {}
        body = {"name": name, "provider": provider, "config": config, **more}
        self.api.succeeded(self.api.post(f"/v1/{role}-stores", body)["job_id"], timeout_s=JOB_S)

    # --- work ---

    def register(self, name, file, *, scope, bps=None, checksum=None, **more):
        self._count += 1
        zones = {"zone_ids": list(self.zones.values())} if scope == "zone" else {}
        url = f"{self.downloads}/{file.name}" + (f"?bps={bps}" if bps else "")
        asked = {
            "name": f"{name}-{self._count}",
            "url": url,
            "format": file.suffix[1:],
            "scope": scope,
            "checksum": {"algorithm": "sha256", "value": checksum or self.sha256_of(file)},
            **zones,
            **more,
        }
        return self.api.post("/v1/templates", asked)

    def sha256_of(self, file):
        known = {
            self.small.qcow2: self.small.qcow2_sha256,
            self.small.raw: self.small.raw_sha256,
            self.large.qcow2: self.large.qcow2_sha256,
            self.large.raw: self.large.raw_sha256,
        }
        return known[file]

    def job_of(self, collection, thing_id):
        return self.api.get(f"/v1/{collection}/{thing_id}")["job_id"]

    def work(self):
        """Jobs of every kind, slow enough to be hit in the middle."""
        return Work(self)

    def running_copy(self, job_id, *, share=0.0):
        """A copy of the job that a mover holds and that is `share` done."""

        def found():
            for transfer in self.api.transfers(job_id):
                total = transfer["bytes_total"] or 0
                held = transfer["state"] in ("running", "verifying")
                far = transfer["bytes_done"] >= share * total
                if transfer["kind"] == "copy" and held and total and far:
                    return transfer
            return None

        return until(found, timeout_s=JOB_S, what="a copy under way")

    def taken_over(self, transfer):
        """The transfer once another mover holds it and has got somewhere."""

        def found():
            now = self.api.get(f"/v1/transfers/{transfer['id']}")
            moved = now["bytes_done"] > transfer["bytes_done"]
            return now if now["epoch"] > transfer["epoch"] and moved else None

        return until(found, timeout_s=JOB_S, what="another mover took over")

    # --- faults ---

    def kill_and_wait(self, name):
        pid = self.stack.kill(name)
        return self.stack.comes_back(name, old_pid=pid)

    def holder_of(self, transfer):
        return mover_name(self.stack, transfer["mover_id"])

    def freeze(self, name):
        os.kill(self.stack.pid(name), signal.SIGSTOP)

    def thaw(self, name):
        os.kill(self.stack.pid(name), signal.SIGCONT)

    def noticed_its_loss(self, name, transfer):
        """The mover says in its log that the work is not its own any more."""

        def said():
            log = self.stack.folder / "log" / f"{name}.log"
            lines = log.read_text(errors="replace").splitlines()
            return any('"job.fenced"' in line and transfer["id"] in line for line in lines)

        until(said, timeout_s=JOB_S, what=f"{name} was told that it lost {transfer['id']}")

    # --- judging ---

    def served(self, file):
        with urllib.request.urlopen(f"{self.downloads}/served", timeout=10) as answer:
            return json.load(answer).get(file.name, 0)

    def stored(self, collection, thing_id):
        thing = self.api.get(f"/v1/{collection}/{thing_id}")
        assert thing["state"] == "ready", thing
        assert {copy["state"] for copy in thing["copies"]} == {"Ready"}, thing
        return [copy["stored"] for copy in thing["copies"]]

    def assert_template(self, template_id, file, *, copies=1):
        """Ready, and what the stores really hold hashes to what was asked for."""
        stored = self.stored("templates", template_id)
        assert len(stored) == copies
        wanted = self.sha256_of(file)
        for one in stored:
            assert self.bytes_of(one["key"]) == wanted, one["key"]

    def bytes_of(self, key):
        """SHA-256 of an object, read past Entrepot."""
        for zone in self.zones:
            path = self.folder / f"shelf-{zone}" / "objects" / key
            if path.exists():
                return sha256(path)
        return hashlib.sha256(self.swift.read(BUCKET, key)).hexdigest()


class Work:
    """Jobs under way; `ends_right` knows how each of them must end."""

    def __init__(self, scenery):
        self._scenery = scenery
        slow = {"bps": SLOW_BPS}
        small = scenery.small.qcow2
        self.before = set(scenery.swift.keys(BUCKET))
        self.region = scenery.register("region", small, scope="region", **slow)
        self.zone = scenery.register("zone", small, scope="zone", **slow)
        self.wrong = scenery.register("wrong", small, scope="region", checksum="0" * 64, **slow)
        self.volume = scenery.api.post(
            "/v1/volumes",
            {
                "name": f"v-{time.time_ns()}",
                "zone_id": scenery.zones["south"],
                "template_id": scenery.template,
            },
        )
        scenery.running_copy(self.region["job_id"], share=0.1)

    def ends_right(self):
        scenery, api = self._scenery, self._scenery.api
        api.succeeded(self.region["job_id"], timeout_s=JOB_S)
        api.succeeded(self.zone["job_id"], timeout_s=JOB_S)
        api.succeeded(self.volume["job_id"], timeout_s=JOB_S)
        failed = api.ended(self.wrong["job_id"], timeout_s=JOB_S)
        assert failed["state"] == "failed"
        assert failed["error"]["code"] == "checksum_mismatch", failed
        scenery.assert_template(self.region["id"], scenery.small.qcow2)
        scenery.assert_template(self.zone["id"], scenery.small.qcow2, copies=2)
        volume = api.get(f"/v1/volumes/{self.volume['id']}")
        assert volume["state"] == "ready", volume
        assert sha256(Path(volume["path"])) == scenery.small.qcow2_sha256
        self._nothing_is_left_of(self.wrong)
        self._each_transfer_ended_once()

    def _nothing_is_left_of(self, failed):
        template = self._scenery.api.get(f"/v1/templates/{failed['id']}")
        assert template["state"] == "failed"
        left = [key for key in self._scenery.swift.keys(BUCKET) if failed["id"] in key]
        assert left == []

    def _each_transfer_ended_once(self):
        for job in (self.region, self.zone, self.volume, self.wrong):
            for transfer in self._scenery.api.transfers(job["job_id"]):
                assert transfer["state"] in ("done", "failed"), transfer


def still_runs(stack):
    """Names of processes that should run and do."""
    return {name for name, pid in stack.endpoints["pids"].items() if psutil.pid_exists(pid)}


__all__ = ["BUCKET", "JOB_S", "LEASE_S", "MIB", "Scenery", "Work", "still_runs"]
