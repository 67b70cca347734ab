"""`entrepot job`: list, show, wait."""

from typing import Annotated

from cyclopts import App, Parameter

from entrepot_cli.api import Api, segment
from entrepot_cli.printing import columns, show_one
from entrepot_cli.resources import list_all
from entrepot_cli.session import SESSION, Session
from entrepot_cli.waiting import duration_s, wait_for

PATH = "/v1/jobs"
SHOWN = columns(
    "ID=id",
    "KIND=kind",
    "RESOURCE=resource_id",
    "STATE=state",
    "STEP=step",
    "DONE=bytes_done:bytes",
    "TOTAL=bytes_total:bytes",
    "ERROR=error.code",
)
app = App(name="job", help="Jobs: what the API accepted and carries out.")


@app.command(name="list")
def list_(*, session: Session = SESSION) -> None:
    """List own jobs."""
    list_all(session, PATH, SHOWN)


@app.command
def show(job: str, /, *, session: Session = SESSION) -> None:
    """Show one job; -o json shows its error and the link of an extract."""
    with Api(session) as api:
        show_one(api.get(f"{PATH}/{segment(job)}"), SHOWN, session.output)


@app.command
def wait(
    job: str,
    /,
    *,
    timeout: Annotated[str, Parameter(help="Give up waiting after this: 90s, 10m, 2h.")] = "1h",
    session: Session = SESSION,
) -> None:
    """Wait for a job to end; exits like the job did."""
    with Api(session) as api:
        ended = wait_for(api, segment(job), timeout_s=duration_s(timeout))
        show_one(ended, SHOWN, session.output)
