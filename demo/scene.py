"""What all steps of the demo share: the running stack and its surroundings, and how to judge."""

from pathlib import Path
from typing import Any

from msgspec import Struct

from demo.cli import Cli
from demo.image import Image
from demo.servers import Swift
from demo.show import Show
from entrepot_testkit.api import Api
from entrepot_testkit.embedded import EmbeddedStack

BUCKET = "images"
ZONES = ("north", "south")
JOB_S = 170


class Mismatch(Exception):
    """Something is not what it must be; the demo fails."""


class Places(Struct, frozen=True, kw_only=True):
    """Folders of the demo, all under one that is removed at the end."""

    images: Path  # directory image store
    pools: dict[str, Path]  # primary store per zone
    work: Path


class Scene(Struct, frozen=True, kw_only=True):
    """Everything is asked of the HTTP API (`api`) or the command line (`cli`), nothing inside."""

    stack: EmbeddedStack
    api: Api
    cli: Cli
    swift: Swift
    downloads: str
    image: Image
    places: Places
    show: Show

    def job(self, job_id: str, what: str) -> dict[str, Any]:
        """The job when it has ended, its progress shown until then."""
        job: dict[str, Any] = {}
        for job in self.api.watch(job_id, timeout_s=JOB_S):
            self.show.progress(what, job["bytes_done"], job["bytes_total"])
        return job

    def finish(self, job_id: str, what: str) -> dict[str, Any]:
        """The job when it has succeeded; anything else fails the demo."""
        job = self.job(job_id, what)
        if job["state"] != "succeeded":
            error = job["error"]
            raise Mismatch(f"{job['kind']} failed: {error['code']}: {error['message']}")
        return job

    def ready_copy(self, collection: str, thing_id: str) -> dict[str, Any]:
        """What the one copy of a template or snapshot left in its store."""
        thing = self.api.get(f"/v1/{collection}/{thing_id}")
        same("state", thing["state"], "ready")
        same("states of its copies", [copy["state"] for copy in thing["copies"]], ["Ready"])
        stored: dict[str, Any] = thing["copies"][0]["stored"]
        return stored


def same(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise Mismatch(f"{what}: expected {expected}, found {found}")
