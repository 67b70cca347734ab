"""`entrepot transfer`: list, show, explain, cancel."""

import sys
import threading
from typing import Annotated

from cyclopts import App, Parameter

from entrepot_cli.api import Api, Json, segment
from entrepot_cli.printing import Column, columns, print_table, show_many, show_one, tell
from entrepot_cli.session import SESSION, Session

PATH = "/v1/transfers"
SHOWN = columns(
    "ID=id",
    "KIND=kind",
    "STATE=state",
    "PATH=strategy",
    "MOVER=mover_id",
    "DONE=bytes_done:bytes",
    "TOTAL=bytes_total:bytes",
    "TRY=attempts",
    "ERROR=problem.code",
)
BIDS = (
    Column("STRATEGY", "strategy"),
    Column("CHOSEN", "chosen"),
    *columns("COST-S=cost_s", "REASON=reason"),
)
WATCH_S = 2.0
LATEST = 50
CLEAR = "\x1b[2J\x1b[H"
app = App(name="transfer", help="Transfers: bytes on their way, and how they go.")


@app.command(name="list")
def list_(
    *,
    job: Annotated[str | None, Parameter(help="Only those of this job.")] = None,
    watch: Annotated[bool, Parameter(negative=(), help="Show again every 2 s.")] = False,
    session: Session = SESSION,
) -> None:
    """List transfers, newest first."""
    params: Json = {"job_id": job} if job else {}
    with Api(session) as api:
        if not watch:
            show_many(api.items(PATH, params), SHOWN, session.output)
            return
        while True:
            found = api.get(PATH, {**params, "limit": LATEST})["items"]
            if sys.stdout.isatty() and session.output == "table":
                print(CLEAR, end="")
            show_many(found, SHOWN, session.output)
            sys.stdout.flush()
            threading.Event().wait(WATCH_S)


@app.command
def show(transfer: str, /, *, session: Session = SESSION) -> None:
    """Show one transfer."""
    with Api(session) as api:
        show_one(api.get(f"{PATH}/{segment(transfer)}"), SHOWN, session.output)


@app.command
def explain(transfer: str, /, *, session: Session = SESSION) -> None:
    """Tell why the bytes go the way they go, and what has happened to them."""
    with Api(session) as api:
        found = api.get(f"{PATH}/{segment(transfer)}")
    if session.output != "table":
        show_one(found, SHOWN, session.output)
        return
    chosen = next((bid["reason"] for bid in found["bids"] if bid["chosen"]), "no strategy bid")
    print(f"strategy {found['strategy'] or '-'}: {chosen}\n")
    print_table(found["bids"], BIDS)
    print()
    for line in found["story"]:
        print(line)


@app.command
def cancel(transfer: str, /, *, session: Session = SESSION) -> None:
    """Ask a transfer to stop."""
    with Api(session) as api:
        api.post(f"{PATH}/{segment(transfer)}/cancel")
        tell(f"transfer {transfer} is asked to stop")
