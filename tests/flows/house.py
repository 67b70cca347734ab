"""One furnished installation for the flow tests, and how to tell that something stayed in it."""

import http.client
import json
import time
import urllib.error
import urllib.parse
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from entrepot_cli.embedded.postgres_server import PostgresServer
from entrepot_testkit.api import Api

BUCKET = "images"
SPARE_BUCKET = "spare"  # no store is in it: for those that must fail
JOB_S = 100
PAGE_MAX = 500
SEGMENTS = "+segments"  # where Swift's S3 face keeps parts, those of unfinished uploads too
NOBODY = "01890000-0000-7000-8000-000000000000"  # well-formed, and nobody's id


class Answer(NamedTuple):
    status: int
    document: dict


class House:
    """Two zones; S3 for the region, a directory image store in the north, pools in both."""

    def __init__(self, *, folder, stack, swift, sources):
        self.folder, self.stack, self.swift, self.sources = folder, stack, swift, sources
        self.api = stack.admin()
        self.zones, self.stores = {}, {}
        self._count = 0

    def furnish(self):
        for bucket in (BUCKET, SPARE_BUCKET):
            self.swift.make_bucket(bucket)
        self.api.put("/v1/settings/image-store.mixing", {"value": "any"})
        for zone in ("north", "south"):
            self.zones[zone] = self.api.post("/v1/zones", {"name": zone})["id"]
        adding = [
            self._add("image", "objects", "s3", self.s3_config(BUCKET)),
            self._add("image", "shelf", "file", self.made("shelf"), "north"),
            self._add("primary", "north", "file", self.made("pool-north"), "north"),
            self._add("primary", "south", "file", self.made("pool-south"), "south"),
            self._add("primary", "raw", "file", self.made("pool-raw") | {"format": "raw"}, "north"),
        ]
        for job_id in adding:
            self.api.succeeded(job_id, timeout_s=JOB_S)

    def s3_config(self, bucket, **other):
        return {
            "endpoint": self.swift.endpoint,
            "region": self.swift.region,
            "bucket": bucket,
            "access_key": self.swift.access_key,
            "secret_key": self.swift.secret_key,
            **other,
        }

    def made(self, name):
        (self.folder / name).mkdir()
        return {"path": str(self.folder / name)}

    def _add(self, role, name, provider, config, zone=None):
        more = {"zone_id": self.zones[zone]} if zone else {}
        body = {"name": name, "provider": provider, "config": config, **more}
        accepted = self.api.post(f"/v1/{role}-stores", body)
        self.stores[name] = accepted["id"]
        return accepted["job_id"]

    # --- asking ---

    def name(self, stem):
        self._count += 1
        return f"{stem}-{self._count}"

    def tenant(self, stem):
        """A new account of the role user, and what it can see."""
        account = self.api.post("/v1/accounts", {"name": self.name(stem)})
        key = self.api.post(f"/v1/accounts/{account['id']}/keys", {"name": "first"})
        return account["id"], key["id"], Api(self.stack.url, key["key"])

    def register(self, url, *, api=None, zone=None, **more):
        """A template from an URL, region-wide on S3, or in the directory store of a zone."""
        scope = {"scope": "zone", "zone_ids": [self.zones[zone]]} if zone else {"scope": "region"}
        body = {"name": self.name("template"), "url": url, "format": "qcow2", **scope, **more}
        return (api or self.api).post("/v1/templates", body)

    def done(self, accepted, *, api=None):
        """The resource's id once its job has succeeded."""
        (api or self.api).succeeded(accepted["job_id"], timeout_s=JOB_S)
        return accepted["id"]

    def raw(self, method, path, body=None, *, key=None, headers=()):
        """A request as it is, whatever it is; key "" sends none."""
        key = self.stack.admin_key_file.read_text().strip() if key is None else key
        sent = {"Authorization": f"Bearer {key}"} if key else {}
        sent |= {"Content-Type": "application/json", **dict(headers)}
        at = urllib.parse.urlsplit(self.stack.url)
        with closing(http.client.HTTPConnection(at.hostname, at.port, timeout=40)) as line:
            line.request(method, path, body, sent)
            answer = line.getresponse()
            text = answer.read()
        return Answer(answer.status, json.loads(text) if text else {})

    # --- looking ---

    def footprint(self, *, segments=True):
        """Everything that is there for good: in the catalogue, the buckets and the directories.

        Without `segments` after large objects were deleted: Swift collects theirs much later.
        """
        found = {
            f"bucket {bucket}{part}": set(self._keys(bucket + part))
            for bucket in (BUCKET, SPARE_BUCKET)
            for part in ("", SEGMENTS)[: 1 + segments]
        }
        for path in [*sorted(self.folder.glob("pool-*")), self.folder / "shelf"]:
            found[path.name] = {str(file) for file in path.rglob("*") if not file.is_dir()}
        for noun in ("zones", "image-stores", "primary-stores"):
            found[noun] = {one["id"] for one in self.api.get(f"/v1/{noun}")["items"]}
        for noun in ("templates", "volumes", "snapshots"):
            listed = self.api.get(f"/v1/{noun}", limit=PAGE_MAX)["items"]
            found[noun] = {one["id"] for one in listed if one["state"] != "failed"}
            copies = [copy for one in listed for copy in one.get("copies", ())]
            found[f"copies of {noun}"] = {
                copy["stored"]["key"] for copy in copies if copy["state"] != "Failed"
            }
        return found

    def _keys(self, container):
        try:
            return self.swift.keys(container)
        except urllib.error.HTTPError as error:
            assert error.code == http.HTTPStatus.NOT_FOUND, error
            return []

    def logs(self):
        """Text of every log of the installation, by name."""
        return {
            path.name: path.read_text(errors="replace")
            for path in Path(self.stack.folder).rglob("*.log*")
            if path.is_file()
        }

    def tables_with(self, text):
        """`schema.table` of every table that has the text in a row, bytes taken as text."""
        server = PostgresServer(Path(self.stack.folder) / "postgres")
        listed = server.psql(
            "SELECT table_schema || '.' || table_name FROM information_schema.tables"
            " WHERE table_type = 'BASE TABLE'"
            " AND table_schema NOT IN ('pg_catalog', 'information_schema')",
            database="entrepot",
        )
        as_bytes = text.encode().hex()  # how PostgreSQL shows bytea
        return [
            table
            for table in sorted(listed.split())
            if server.psql(
                f"SELECT 1 FROM {table} t WHERE strpos(t::text, '{text}') > 0"
                f" OR strpos(t::text, '{as_bytes}') > 0 LIMIT 1",
                database="entrepot",
            )
        ]

    def stream_files(self):
        """What JetStream has on disk."""
        return [path for path in Path(self.stack.folder).rglob("*.blk") if path.is_file()]


def eventually_refused(get, *, timeout_s=20):
    """The first status of `get` that is not 200."""
    deadline = time.monotonic() + timeout_s
    while (status := get()) == http.HTTPStatus.OK:
        assert time.monotonic() < deadline, f"still answered after {timeout_s} s"
        time.sleep(0.2)
    return status
