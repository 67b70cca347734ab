"""`entrepot zone`: create, list."""

from cyclopts import App

from entrepot_cli.api import Api
from entrepot_cli.printing import columns, show_one
from entrepot_cli.resources import list_all
from entrepot_cli.session import SESSION, Session

PATH = "/v1/zones"
SHOWN = columns("ID=id", "NAME=name", "REGION=region")
app = App(name="zone", help="Zones: places with their own stores and movers.")


@app.command
def create(name: str, /, *, region: str = "default", session: Session = SESSION) -> None:
    """Create a zone."""
    with Api(session) as api:
        made = api.post(PATH, {"name": name, "region": region})
        show_one(made, SHOWN, session.output)


@app.command(name="list")
def list_(*, session: Session = SESSION) -> None:
    """List all zones."""
    list_all(session, PATH, SHOWN)
