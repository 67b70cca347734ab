"""Which live job uses which resource: one exclusive holder, or any number of readers.

The caller has locked the resource's row, so that check and claim are one.
"""

from collections.abc import Sequence

from entrepot_chassis.ports import Transaction
from entrepot_contracts.errors import Code, Refused
from store_registry.rows import Hold, Job

HOLDS_MAX = 1000


async def holds_on(tx: Transaction, resource_id: str) -> list[Hold]:
    return await tx.find(Hold, where={"resource_id": resource_id}, limit=HOLDS_MAX)


async def take(tx: Transaction, job: Job, resource_id: str, *, exclusive: bool) -> None:
    await tx.put(
        Hold(
            hold_id=f"{resource_id}.{job.job_id}",
            resource_id=resource_id,
            job_id=job.job_id,
            kind=job.kind,
            exclusive=exclusive,
        )
    )


async def release(tx: Transaction, job: Job) -> None:
    for hold in await tx.find(Hold, where={"job_id": job.job_id}, limit=HOLDS_MAX):
        await tx.remove(Hold, hold.hold_id)


async def refuse_if_held(
    tx: Transaction, resource_id: str, *, noun: str, field: str, code: Code, reading: bool = False
) -> None:
    """Raise `code` naming the running jobs, unless nobody holds it; a reader minds only an
    exclusive holder.
    """
    holds = await holds_on(tx, resource_id)
    in_the_way = [hold for hold in holds if hold.exclusive or not reading]
    if in_the_way:
        raise busy(noun, resource_id, field, code, in_the_way)


def busy(noun: str, resource_id: str, field: str, code: Code, holds: Sequence[Hold]) -> Refused:
    first = holds[0]
    return Refused(
        code,
        f"the {noun} {resource_id} is in use by job {first.job_id} ({first.kind})",
        field=field,
        hint="wait for the job to end, then ask again",
        facts={"job_id": first.job_id, "blockers": ", ".join(hold.job_id for hold in holds)},
    )
