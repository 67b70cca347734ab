"""`entrepot store`: add, list, delete image and primary stores."""

import os
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from entrepot_cli.api import Api, Json
from entrepot_cli.exits import Exit, Failure
from entrepot_cli.nouns.provider import provider_named
from entrepot_cli.printing import columns, show_many, tell
from entrepot_cli.resources import start
from entrepot_cli.schema import typed
from entrepot_cli.session import SESSION, Session
from entrepot_cli.waiting import WAITING, Waiting

Role = Literal["image", "primary"]
SHOWN = columns(
    "ID=id",
    "NAME=name",
    "ROLE=role",
    "PROVIDER=provider",
    "SCOPE=scope",
    "ZONE=zone_id",
    "USED=used_bytes:bytes",
    "CAPACITY=capacity_bytes:bytes",
    "STATE=state",
)
app = App(name="store", help="Image stores (templates, snapshots) and primary stores (volumes).")


@app.command
def add(
    provider: str,
    /,
    *,
    name: str,
    role: Role = "image",
    zone: Annotated[
        str | None, Parameter(help="Zone-wide stores: the zone, by id or name.")
    ] = None,
    region: str = "default",
    read_only: bool = False,
    set_: Annotated[
        list[str] | None, Parameter(name="--set", help="A setting of the provider: key=value.")
    ] = None,
    secret_file: Annotated[
        list[str] | None, Parameter(help="A secret setting: key=path of a file.")
    ] = None,
    secret_env: Annotated[
        list[str] | None, Parameter(help="A secret setting: key=name of an environment variable.")
    ] = None,
    waiting: Waiting = WAITING,
    session: Session = SESSION,
) -> None:
    """Add a store. It is up once a mover has probed it; --wait shows the outcome."""
    said = _pairs("--set", set_) | {
        key: _secret_of_file(path) for key, path in _pairs("--secret-file", secret_file).items()
    }
    said |= {key: _secret_of_env(env) for key, env in _pairs("--secret-env", secret_env).items()}

    def ask(api: Api) -> Json:
        schema = provider_named(api, provider)["config_schema"]
        body: Json = {
            "name": name,
            "provider": provider,
            "config": typed(said, schema),
            "region": region,
            "read_only": read_only,
        }
        if zone is not None:
            body["zone_id"] = api.id_of("/v1/zones", zone)
        return api.post(path_of(role), body)

    def added(api: Api, job: Json) -> Json:
        return api.find(path_of(role), job["resource_id"])

    start(session, waiting, ask, then=added, shown=SHOWN)


@app.command(name="list")
def list_(*, role: Role | None = None, session: Session = SESSION) -> None:
    """List stores; both roles unless --role says one."""
    with Api(session) as api:
        roles: tuple[Role, ...] = (role,) if role else ("image", "primary")
        found = [store for each in roles for store in api.items(path_of(each))]
        show_many(found, SHOWN, session.output)


@app.command
def delete(store: str, /, *, role: Role = "image", session: Session = SESSION) -> None:
    """Remove a store that nothing lives on any more."""
    with Api(session) as api:
        store_id = api.id_of(path_of(role), store)
        api.delete(f"{path_of(role)}/{store_id}")
        tell(f"store {store_id} removed")


def path_of(role: Role) -> str:
    return f"/v1/{role}-stores"


def _pairs(flag: str, given: list[str] | None) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in given or ():
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise Failure(Exit.USAGE, "usage", f"{flag} wants key=value", field=flag)
        pairs[key] = value
    return pairs


def _secret_of_file(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise Failure(
            Exit.USAGE, "usage", f"{path}: {error.strerror}", field="--secret-file"
        ) from None


def _secret_of_env(name: str) -> str:
    if name not in os.environ:
        raise Failure(Exit.USAGE, "usage", f"the environment has no {name}", field="--secret-env")
    return os.environ[name]
