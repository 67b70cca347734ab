"""`entrepot account`: create, list."""

from typing import Literal

from cyclopts import App

from entrepot_cli.api import Api
from entrepot_cli.printing import columns, show_one
from entrepot_cli.resources import list_all
from entrepot_cli.session import SESSION, Session

PATH = "/v1/accounts"
SHOWN = columns("ID=id", "NAME=name", "ROLE=role", "CREATED=created_at")
app = App(name="account", help="Accounts: who owns templates, volumes and snapshots.")


@app.command
def create(
    name: str, /, *, role: Literal["user", "admin"] = "user", session: Session = SESSION
) -> None:
    """Create an account; create a key for it next."""
    with Api(session) as api:
        show_one(api.post(PATH, {"name": name, "role": role}), SHOWN, session.output)


@app.command(name="list")
def list_(*, session: Session = SESSION) -> None:
    """List all accounts."""
    list_all(session, PATH, SHOWN)
