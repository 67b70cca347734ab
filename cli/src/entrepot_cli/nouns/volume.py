"""`entrepot volume`: create, list, show, delete."""

import re
from typing import Annotated

from cyclopts import App, Parameter

from entrepot_cli.api import Api, Json
from entrepot_cli.exits import Exit, Failure
from entrepot_cli.printing import columns
from entrepot_cli.resources import list_all, resource_at, start, the_job
from entrepot_cli.resources import show as show_resource
from entrepot_cli.session import SESSION, Session
from entrepot_cli.waiting import WAITING, Waiting

PATH = "/v1/volumes"
SHOWN = columns(
    "ID=id",
    "NAME=name",
    "ZONE=zone_id",
    "STORE=store_id",
    "FORMAT=format",
    "SIZE=size_bytes:bytes",
    "STATE=state",
    "PATH=path",
    "ERROR=error.code",
)
app = App(name="volume", help="Volumes: disks on primary stores.")
_SIZE = re.compile(r"(\d+)\s*(B|KiB|MiB|GiB|TiB)?\Z")
_UNITS = {None: 0, "B": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}


@app.command
def create(
    *,
    name: str,
    zone: str,
    template: Annotated[str | None, Parameter(help="From this template, by id or name.")] = None,
    snapshot: Annotated[str | None, Parameter(help="From this snapshot, by id or name.")] = None,
    size: Annotated[str | None, Parameter(help="Blank, of this size: 10GiB.")] = None,
    store: Annotated[str | None, Parameter(help="Primary store; default: placed.")] = None,
    waiting: Waiting = WAITING,
    session: Session = SESSION,
) -> None:
    """Create a volume from a template, from a snapshot, or blank."""

    def ask(api: Api) -> Json:
        body: Json = {"name": name, "zone_id": api.id_of("/v1/zones", zone)}
        if template is not None:
            body["template_id"] = api.id_of("/v1/templates", template)
        if snapshot is not None:
            body["snapshot_id"] = api.id_of("/v1/snapshots", snapshot)
        if size is not None:
            body["size_bytes"] = size_bytes(size)
        if store is not None:
            body["store_id"] = api.id_of("/v1/primary-stores", store)
        return api.post(PATH, body)

    start(session, waiting, ask, then=resource_at(PATH), shown=SHOWN)


@app.command(name="list")
def list_(*, session: Session = SESSION) -> None:
    """List own volumes."""
    list_all(session, PATH, SHOWN)


@app.command
def show(volume: str, /, *, session: Session = SESSION) -> None:
    """Show one volume, by id or name."""
    show_resource(session, PATH, volume, SHOWN)


@app.command
def delete(volume: str, /, *, waiting: Waiting = WAITING, session: Session = SESSION) -> None:
    """Delete a volume."""
    start(
        session,
        waiting,
        lambda api: api.delete(f"{PATH}/{api.id_of(PATH, volume)}"),
        then=the_job,
        shown=columns("ID=resource_id", "JOB=id", "STATE=state"),
    )


def size_bytes(text: str) -> int:
    match = _SIZE.match(text.strip())
    if match is None:
        raise Failure(
            Exit.USAGE, "usage", f"{text!r} is no size", field="--size", hint="like 512MiB or 10GiB"
        )
    return int(match[1]) << _UNITS[match[2]]
