"""`entrepot events tail`: what changes, as it changes."""

import json
import threading
from collections.abc import Iterator
from typing import Annotated

from cyclopts import App, Parameter

from entrepot_cli.api import Api, Json
from entrepot_cli.printing import printable, tell
from entrepot_cli.session import SESSION, Session

AGAIN_S = 1.0
app = App(name="events", help="Events: changes of your resources and progress of transfers.")


@app.command
def tail(
    *,
    count: Annotated[int | None, Parameter(help="End after so many events.")] = None,
    all_accounts: Annotated[
        bool, Parameter(negative=(), help="Administrators: events of every account.")
    ] = False,
    session: Session = SESSION,
) -> None:
    """Print events as they happen; goes on by itself when the connection breaks."""
    left = count
    for event in _events(session, {"all_accounts": "true"} if all_accounts else {}):
        if session.output in ("json", "jsonl"):
            print(json.dumps(event), flush=True)
        else:
            words = " ".join(f"{key}={value}" for key, value in event["data"].items())
            print(printable(f"{event['event']}  {words}"), flush=True)
        left = None if left is None else left - 1
        if left == 0:
            return


def _events(session: Session, params: Json) -> Iterator[Json]:
    last_id = ""
    with Api(session) as api:
        while True:
            for event in _parsed(api.stream("/v1/events", last_id=last_id, params=params)):
                last_id = event["id"] or last_id
                yield event
            tell("the stream ended; connecting again")
            threading.Event().wait(AGAIN_S)


def _parsed(lines: Iterator[str]) -> Iterator[Json]:
    """Events of a text/event-stream; comments are keep-alives."""
    fields: dict[str, str] = {}
    for line in lines:
        if line == "":
            if "data" in fields:
                yield {
                    "id": fields.get("id", ""),
                    "event": fields.get("event", "message"),
                    "data": json.loads(fields["data"]),
                }
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
