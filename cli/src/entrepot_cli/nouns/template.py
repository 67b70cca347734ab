"""`entrepot template`: register, list, show, copies, extract, delete."""

from typing import Annotated, Literal

from cyclopts import App, Parameter

from entrepot_cli.api import Api, Json
from entrepot_cli.exits import Exit, Failure
from entrepot_cli.printing import columns, show_many
from entrepot_cli.resources import list_all, resource_at, start, the_job
from entrepot_cli.resources import show as show_resource
from entrepot_cli.session import SESSION, Session
from entrepot_cli.waiting import WAITING, Waiting, duration_s

PATH = "/v1/templates"
SHOWN = columns(
    "ID=id",
    "NAME=name",
    "FORMAT=format",
    "SCOPE=scope",
    "SIZE=size_bytes:bytes",
    "VIRTUAL=virtual_size_bytes:bytes",
    "STATE=state",
    "ERROR=error.code",
)
COPIES = columns(
    "STORE=store_id",
    "ZONE=zone_id",
    "STATE=state",
    "BYTES=stored.stored_bytes:bytes",
    "DIGEST=stored.digest.root",
    "ERROR=error.code",
)
LINK = columns("URL=url")
app = App(name="template", help="Templates: images that volumes are made from.")


@app.command
def register(
    *,
    name: str,
    url: str,
    format_: Annotated[Literal["qcow2", "raw", "iso"], Parameter(name="--format")] = "qcow2",
    scope: Literal["region", "zone"] = "region",
    zone: Annotated[
        list[str] | None, Parameter(help="With --scope zone: one copy per zone, by id or name.")
    ] = None,
    checksum: Annotated[
        str | None, Parameter(help="What the bytes must hash to: sha256:<hex> (or sha512, md5).")
    ] = None,
    public: Annotated[bool, Parameter(help="Every account may use it.")] = False,
    waiting: Waiting = WAITING,
    session: Session = SESSION,
) -> None:
    """Register a template from an http(s) URL."""
    body: Json = {"name": name, "url": url, "format": format_, "scope": scope, "public": public}
    if checksum is not None:
        body["checksum"] = _checksum(checksum)

    def ask(api: Api) -> Json:
        zones = [api.id_of("/v1/zones", each) for each in zone or ()]
        return api.post(PATH, {**body, "zone_ids": zones})

    start(session, waiting, ask, then=resource_at(PATH), shown=SHOWN)


@app.command(name="list")
def list_(*, session: Session = SESSION) -> None:
    """List own and public templates."""
    list_all(session, PATH, SHOWN)


@app.command
def show(template: str, /, *, session: Session = SESSION) -> None:
    """Show one template, by id or name."""
    show_resource(session, PATH, template, SHOWN)


@app.command
def copies(template: str, /, *, session: Session = SESSION) -> None:
    """Show where the verified copies of a template are."""
    with Api(session) as api:
        found = api.get(f"{PATH}/{api.id_of(PATH, template)}")
        rows = [{"id": copy["store_id"], **copy} for copy in found["copies"]]
        show_many(rows, COPIES, session.output)


@app.command
def extract(
    template: str,
    /,
    *,
    zone: str | None = None,
    expires: Annotated[str, Parameter(help="How long the link works: 15m, 2h.")] = "1h",
    waiting: Waiting = WAITING,
    session: Session = SESSION,
) -> None:
    """Make an expiring link to a template's bytes; --wait prints it."""

    def ask(api: Api) -> Json:
        body: Json = {"expires_s": int(duration_s(expires))}
        if zone is not None:
            body["zone_id"] = api.id_of("/v1/zones", zone)
        return api.post(f"{PATH}/{api.id_of(PATH, template)}/extract", body)

    start(session, waiting, ask, then=the_job, shown=LINK)


@app.command
def delete(template: str, /, *, waiting: Waiting = WAITING, session: Session = SESSION) -> None:
    """Delete a template and its copies."""
    start(
        session,
        waiting,
        lambda api: api.delete(f"{PATH}/{api.id_of(PATH, template)}"),
        then=the_job,
        shown=columns("ID=resource_id", "JOB=id", "STATE=state"),
    )


def _checksum(text: str) -> Json:
    algorithm, colon, value = text.partition(":")
    if not colon:
        raise Failure(
            Exit.USAGE,
            "usage",
            "--checksum wants algorithm:hex",
            field="--checksum",
            hint="like sha256:9f86d08...",
        )
    return {"algorithm": algorithm, "value": value.lower()}
