"""Carries out what the saga machine says, inside one transaction with the rows it is about."""

import structlog

from entrepot_chassis.ports import Transaction
from entrepot_contracts.registry import Accepted, JobChanged, MotionCancelled, MotionRequested
from entrepot_contracts.values import JobState
from store_registry import figures
from store_registry.announce import announce
from store_registry.jobs import holds
from store_registry.jobs.endings import ENDINGS
from store_registry.jobs.machine import (
    Ask,
    Finish,
    Instruction,
    Spoiled,
    Start,
    Stimulus,
    Stop,
    step,
)
from store_registry.jobs.sagas import Kind, scrubbed
from store_registry.rows import Job

log = structlog.get_logger()


class Taken(Exception):
    """A row of that id was written by somebody else meanwhile: look again."""


async def begin(
    tx: Transaction, job: Job, *, exclusive: tuple[str, ...], reading: tuple[str, ...] = ()
) -> Accepted:
    """Write the job with its holds and set its saga going. The resource's rows are written."""
    if not await tx.add(job):
        raise Taken
    for resource_id in exclusive:
        await holds.take(tx, job, resource_id, exclusive=True)
    for resource_id in reading:
        await holds.take(tx, job, resource_id, exclusive=False)
    await apply(tx, job, Start())
    return Accepted(job_id=job.job_id, resource_id=job.resource_id)


async def apply(tx: Transaction, job: Job, stimulus: Stimulus) -> None:
    """Step the job's saga; `job` was read with a lock, or just made."""
    before = (job.state, job.saga.step_name)
    saga, instructions = step(job.saga, stimulus)
    if saga is job.saga and not instructions:
        return
    job.saga = saga
    for instruction in instructions:
        await _carry_out(tx, job, instruction)
    await tx.put(job)
    if isinstance(stimulus, Start) or before != (job.state, job.saga.step_name):
        await _announce_job(tx, job)


async def _carry_out(tx: Transaction, job: Job, instruction: Instruction) -> None:
    match instruction:
        case Ask(ask=ask, again=again):
            job.rung_at = await tx.now()
            if not again:
                job.rings = 0
                job.transfer_ids = (*job.transfer_ids, ask.transfer_id)
            await announce(tx, MotionRequested(ask=ask))
        case Stop(transfer_id=transfer_id):
            await announce(
                tx,
                MotionCancelled(transfer_id=transfer_id, reason="another transfer failed"),
            )
        case Spoiled(transfer_id=transfer_id, problem=problem):
            figures.SPOILED.labels(kind=job.kind).inc()
            log.warning(
                "job.cleanup_failed",
                job_id=job.job_id,
                kind=job.kind,
                resource_id=job.resource_id,
                transfer_id=transfer_id,
                code=problem.code,
            )
        case Finish():
            await _finish(tx, job, instruction)


async def _finish(tx: Transaction, job: Job, finish: Finish) -> None:
    job.finished_at = await tx.now()
    job.error = finish.problem
    job.state = JobState.SUCCEEDED if finish.problem is None else JobState.FAILED
    ending = ENDINGS[Kind(job.kind)]
    if finish.problem is None:
        await ending.well(tx, job)
    else:
        await ending.badly(tx, job, finish.problem)
    await holds.release(tx, job)
    job.saga = scrubbed(job.saga)
    figures.FINISHED.labels(kind=job.kind, state=job.state.value).inc()
    log.info(
        "job.finished",
        job_id=job.job_id,
        kind=job.kind,
        resource_id=job.resource_id,
        state=job.state.value,
        code=finish.problem.code if finish.problem else None,
    )


async def _announce_job(tx: Transaction, job: Job) -> None:
    await announce(
        tx,
        JobChanged(
            job_id=job.job_id,
            account_id=job.account_id,
            kind=job.kind,
            resource_id=job.resource_id,
            state=job.state,
            at=await tx.now(),
            error=job.error,
        ),
    )
