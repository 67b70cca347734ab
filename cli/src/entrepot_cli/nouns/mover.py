"""`entrepot mover list`."""

from cyclopts import App

from entrepot_cli.printing import columns
from entrepot_cli.resources import list_all
from entrepot_cli.session import SESSION, Session

SHOWN = columns(
    "ID=id", "ZONES=zone_ids", "SLOTS=slots", "RUNNING=running", "ALIVE=alive", "SEEN=seen_at"
)
app = App(name="mover", help="Movers: the processes that move bytes.")


@app.command(name="list")
def list_(*, session: Session = SESSION) -> None:
    """List all movers."""
    list_all(session, "/v1/movers", SHOWN)
