"""`entrepot key`: create, list, revoke API keys."""

from typing import Annotated

from cyclopts import App, Parameter

from entrepot_cli.api import Api, segment
from entrepot_cli.printing import columns, show_many, show_one, tell
from entrepot_cli.session import SESSION, Session

SHOWN = columns("ID=id", "NAME=name", "CREATED=created_at", "REVOKED=revoked_at")
MADE = columns("ID=id", "NAME=name", "KEY=key")
Owner = Annotated[str | None, Parameter(help="Account, by id or name; default: the own one.")]
app = App(name="key", help="API keys of an account.")


@app.command
def create(name: str, /, *, account: Owner = None, session: Session = SESSION) -> None:
    """Create an API key; it is printed now and never again."""
    with Api(session) as api:
        made = api.post(f"{_keys_of(api, account)}", {"name": name})
        show_one(made, MADE, session.output)


@app.command(name="list")
def list_(*, account: Owner = None, session: Session = SESSION) -> None:
    """List the keys of an account; their secrets are kept nowhere."""
    with Api(session) as api:
        show_many(api.items(_keys_of(api, account)), SHOWN, session.output)


@app.command
def revoke(key: str, /, *, account: Owner = None, session: Session = SESSION) -> None:
    """Revoke a key, by id; it stops working at once."""
    with Api(session) as api:
        api.delete(f"{_keys_of(api, account)}/{segment(key)}")
        tell(f"key {key} is revoked")


def _keys_of(api: Api, account: str | None) -> str:
    account_id = api.get("/v1/me")["id"] if account is None else api.id_of("/v1/accounts", account)
    return f"/v1/accounts/{account_id}/keys"
