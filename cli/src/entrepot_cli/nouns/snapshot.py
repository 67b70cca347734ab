"""`entrepot snapshot`: create, list, show, delete."""

from typing import Annotated

from cyclopts import App, Parameter

from entrepot_cli.api import Api, Json
from entrepot_cli.printing import columns
from entrepot_cli.resources import list_all, resource_at, start, the_job
from entrepot_cli.resources import show as show_resource
from entrepot_cli.session import SESSION, Session
from entrepot_cli.waiting import WAITING, Waiting

PATH = "/v1/snapshots"
SHOWN = columns(
    "ID=id",
    "NAME=name",
    "VOLUME=volume_id",
    "SIZE=size_bytes:bytes",
    "STATE=state",
    "DIGEST=digest_root",
    "ERROR=error.code",
)
app = App(name="snapshot", help="Snapshots: pinned generations of volumes, backed up.")


@app.command
def create(
    *,
    volume: str,
    name: str,
    store: Annotated[str | None, Parameter(help="Image store; default: placed.")] = None,
    waiting: Waiting = WAITING,
    session: Session = SESSION,
) -> None:
    """Snapshot a volume and back it up to an image store."""

    def ask(api: Api) -> Json:
        body: Json = {"name": name, "volume_id": api.id_of("/v1/volumes", volume)}
        if store is not None:
            body["store_id"] = api.id_of("/v1/image-stores", store)
        return api.post(PATH, body)

    start(session, waiting, ask, then=resource_at(PATH), shown=SHOWN)


@app.command(name="list")
def list_(*, session: Session = SESSION) -> None:
    """List own snapshots."""
    list_all(session, PATH, SHOWN)


@app.command
def show(snapshot: str, /, *, session: Session = SESSION) -> None:
    """Show one snapshot, by id or name."""
    show_resource(session, PATH, snapshot, SHOWN)


@app.command
def delete(snapshot: str, /, *, waiting: Waiting = WAITING, session: Session = SESSION) -> None:
    """Delete a snapshot and its copies."""
    start(
        session,
        waiting,
        lambda api: api.delete(f"{PATH}/{api.id_of(PATH, snapshot)}"),
        then=the_job,
        shown=columns("ID=resource_id", "JOB=id", "STATE=state"),
    )
