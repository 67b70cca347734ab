"""`entrepot setting`: list, set."""

from cyclopts import App

from entrepot_cli.api import Api, segment
from entrepot_cli.printing import columns, show_many
from entrepot_cli.session import SESSION, Session

PATH = "/v1/settings"
SHOWN = columns("NAME=name", "VALUE=value", "DEFAULT=default", "HELP=help")
app = App(name="setting", help="Settings of the whole installation.")


@app.command(name="list")
def list_(*, session: Session = SESSION) -> None:
    """List all settings with their values."""
    with Api(session) as api:
        _show(session, list(api.items(PATH)))


@app.command(name="set")
def set_(name: str, value: str, /, *, session: Session = SESSION) -> None:
    """Change a setting."""
    with Api(session) as api:
        changed = api.put(f"{PATH}/{segment(name)}", {"value": value})["items"]
        _show(session, [one for one in changed if one["name"] == name])


def _show(session: Session, settings: list[dict[str, object]]) -> None:
    show_many([{"id": one["name"], **one} for one in settings], SHOWN, session.output)
