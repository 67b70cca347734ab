"""What most commands are: list, show, start a job and maybe wait for it."""

from collections.abc import Callable, Sequence
from typing import Any

from entrepot_cli.api import Api, Json
from entrepot_cli.printing import Column, columns, show_many, show_one, tell
from entrepot_cli.session import Session
from entrepot_cli.waiting import Waiting, wait_for

ACCEPTED = columns("ID=id", "JOB=job_id")


def list_all(
    session: Session, path: str, shown: Sequence[Column], params: Json | None = None
) -> None:
    with Api(session) as api:
        show_many(api.items(path, params), shown, session.output)


def show(session: Session, path: str, name: str, shown: Sequence[Column]) -> None:
    """One resource by id or name."""
    with Api(session) as api:
        show_one(api.get(f"{path}/{api.id_of(path, name)}"), shown, session.output)


def start(
    session: Session,
    waiting: Waiting,
    ask: Callable[[Api], Json],
    *,
    then: Callable[[Api, Json], Any],
    shown: Sequence[Column],
) -> None:
    """`ask` begins a job; after --wait, `then` gives what to show for it."""
    with Api(session) as api:
        accepted = ask(api)
        if not waiting.wait:
            tell(f"accepted; follow it with: entrepot job wait {accepted['job_id']}")
            show_one(accepted, ACCEPTED, session.output)
            return
        job = wait_for(api, accepted["job_id"], timeout_s=waiting.timeout_s)
        show_one(then(api, job), shown, session.output)


def resource_at(path: str) -> Callable[[Api, Json], Json]:
    """`then` for jobs that make something: that thing."""
    return lambda api, job: api.get(f"{path}/{job['resource_id']}")


def the_job(_api: Api, job: Json) -> Json:
    """`then` for jobs that leave nothing behind: the job."""
    return job
