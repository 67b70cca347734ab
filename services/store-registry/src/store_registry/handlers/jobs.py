"""Jobs: where they stand, waited for if asked."""

from entrepot_contracts.registry import GetJob, JobList, JobView, ListJobs
from entrepot_contracts.values import JobState
from store_registry.registry import Registry
from store_registry.rows import Job
from store_registry.rules.ownership import account_filter, seen
from store_registry.views import job_view

_REREAD_S = 1.0  # another instance may have finished the job, and no bell is sure


async def get_job(registry: Registry, command: GetJob) -> JobView:
    until_s = registry.clock.monotonic() + command.wait_s
    while True:
        job = await _job(registry, command)
        left_s = until_s - registry.clock.monotonic()
        if job.state is not JobState.RUNNING or left_s <= 0:
            return job_view(job, registry.progress)
        await registry.wakes.wait(job.job_id, min(left_s, _REREAD_S))


async def list_jobs(registry: Registry, command: ListJobs) -> JobList:
    """Newest first: ids are minted in the order of time."""
    async with registry.database.transaction() as tx:
        rows = await tx.find(
            Job,
            where=account_filter(command.actor),
            after=command.page.after,
            descending=True,
            limit=command.page.limit,
        )
    return JobList(items=tuple(job_view(row, registry.progress) for row in rows))


async def _job(registry: Registry, command: GetJob) -> Job:
    async with registry.database.transaction() as tx:
        job = await tx.get(Job, command.job_id)
    return seen(command.actor, job, noun="job", resource_id=command.job_id, field="job_id")
