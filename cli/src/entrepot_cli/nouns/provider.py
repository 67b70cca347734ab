"""`entrepot provider`: list, show. Providers are what the movers have plugins for."""

import json
from typing import Annotated

from cyclopts import App, Parameter

from entrepot_cli.api import Api, Json
from entrepot_cli.exits import Exit, Failure
from entrepot_cli.printing import columns, show_many, show_one
from entrepot_cli.session import SESSION, Session

PATH = "/v1/providers"
SHOWN = columns("NAME=name", "VERSION=version", "ROLES=roles", "SCOPES=scopes")
app = App(name="provider", help="Store providers the movers have plugins for.")


@app.command(name="list")
def list_(*, session: Session = SESSION) -> None:
    """List store providers."""
    with Api(session) as api:
        found = [_named(one) for one in api.items(PATH)]
        show_many(found, SHOWN, session.output)


@app.command
def show(
    name: str,
    /,
    *,
    schema: Annotated[
        bool, Parameter(negative=(), help="Print the JSON Schema of its settings.")
    ] = False,
    session: Session = SESSION,
) -> None:
    """Show one provider."""
    with Api(session) as api:
        found = provider_named(api, name)
        if schema:
            print(json.dumps(found["config_schema"], indent=2))
        else:
            show_one(found, SHOWN, session.output)


def provider_named(api: Api, name: str) -> Json:
    known = {one["name"]: one for one in api.items(PATH)}
    if name not in known:
        raise Failure(
            Exit.NOT_FOUND,
            "unknown_provider",
            f"no mover has a plugin for {name!r}",
            field="provider",
            hint="known: " + (", ".join(sorted(known)) or "none; is a mover running?"),
        )
    return _named(known[name])


def _named(provider: Json) -> Json:
    """A provider's id is its name."""
    return {"id": provider["name"], **provider}
