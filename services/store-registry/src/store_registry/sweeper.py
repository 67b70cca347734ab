"""Sagas whose transfers gave no answer for long are asked again, with the same ids."""

from datetime import datetime, timedelta

import structlog

from entrepot_contracts.values import JobState
from store_registry import figures
from store_registry.jobs.machine import Quiet
from store_registry.jobs.runner import apply
from store_registry.registry import Registry
from store_registry.rows import Job

PAGE = 200
QUIET_S = 60.0
QUIET_MAX_S = 900.0

log = structlog.get_logger()


async def sweep(registry: Registry) -> int:
    """Ring every quiet saga once; returns how many were rung."""
    after: str | None = None
    rung = 0
    while True:
        async with registry.database.transaction() as tx:
            now = await tx.now()
            page = await tx.find(Job, where={"state": JobState.RUNNING}, after=after, limit=PAGE)
        for job in page:
            if _quiet(job, now) and not _alive(registry, job):
                rung += await _ring(registry, job.job_id, now)
        if len(page) < PAGE:
            return rung
        after = page[-1].job_id


async def _ring(registry: Registry, job_id: str, now: datetime) -> bool:
    async with registry.database.transaction() as tx:
        job = await tx.get(Job, job_id, lock=True)
        if job is None or job.state is not JobState.RUNNING or not _quiet(job, now):
            return False  # it got its answer, or another instance rang
        job.rings += 1
        await apply(tx, job, Quiet())
    figures.RUNG.labels(kind=job.kind).inc()
    log.warning("job.rung_again", job_id=job_id, kind=job.kind, rings=job.rings)
    return True


def _quiet(job: Job, now: datetime) -> bool:
    """Each ring waits twice as long as the one before it."""
    patience_s = min(QUIET_S * 2**job.rings, QUIET_MAX_S)
    return now - job.rung_at >= timedelta(seconds=patience_s)


def _alive(registry: Registry, job: Job) -> bool:
    """Progress heard from every open transfer means that the engine knows them all."""
    return registry.progress.all_heard_within(job.saga.open, QUIET_S)
