"""Operations on jobs, transfers, movers, cache pools and scaling pools."""

from datetime import datetime
from typing import Annotated, Any

from msgspec import Meta, Struct, structs

from api_gateway.operations.inventory import as_said
from api_gateway.operations.operation import Call, Operation, forwarded
from entrepot_contracts import cache, fleet, motion, registry
from entrepot_contracts.errors import Problem
from entrepot_contracts.ids import Id
from entrepot_contracts.registry import GetJob, JobView, ListJobs, Page, PageLimit
from entrepot_contracts.values import JobState, Name, Role, Scope, StoreRole, StoreSpec

# --- jobs -------------------------------------------------------------------------------------


class Job(Struct, frozen=True, kw_only=True):
    """A job as its owner sees it: a finished extract has its link opened as `url`."""

    job_id: Id
    account_id: Id
    kind: str
    resource_id: Id
    state: JobState
    created_at: datetime
    finished_at: datetime | None = None
    step: str = ""
    bytes_done: int = 0
    bytes_total: int | None = None
    transfer_ids: tuple[Id, ...] = ()
    error: Problem | None = None
    url: Annotated[str | None, Meta(description="Expiring; only the job's owner sees it.")] = None


class Jobs(Struct, frozen=True, kw_only=True):
    items: tuple[Job, ...]


class GetJobRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    job_id: Id
    wait_s: Annotated[
        float, Meta(ge=0, le=25, description="Wait so long for the job to end before answering.")
    ] = 0


class ListJobsRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    after: Id | None = None
    limit: PageLimit = 100


async def _get_job(call: Call, want: GetJobRequest) -> Job:
    command = GetJob(actor=call.actor, job_id=want.job_id, wait_s=want.wait_s)
    job = await call.ask(command, JobView, extra_s=want.wait_s)
    return _job(job, url=call.desk.links.url_for(call.caller, job))


async def _list_jobs(call: Call, want: ListJobsRequest) -> Jobs:
    page = Page(after=want.after, limit=want.limit)
    found = await call.ask(ListJobs(actor=call.actor, page=page), registry.JobList)
    return Jobs(items=tuple(_job(job, url=None) for job in found.items))


def _job(job: JobView, *, url: str | None) -> Job:
    shown = (name for name in Job.__struct_fields__ if name != "url")
    said = Job(**{name: getattr(job, name) for name in shown}, url=url)
    return structs.replace(said, error=as_said(job.error)) if job.error else said


# --- transfers --------------------------------------------------------------------------------


class ListTransfersRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    job_id: Id | None = None
    after: Annotated[Id | None, Meta(description="Last row seen; the newest come first.")] = None
    limit: PageLimit = 100


async def _list_transfers(call: Call, want: ListTransfersRequest) -> motion.TransferList:
    command = motion.ListTransfers(
        actor=call.actor, job_id=want.job_id, before=want.after, limit=want.limit
    )
    return await call.ask(command, motion.TransferList)


# --- cache and scaling pools ------------------------------------------------------------------


class AddCachePoolRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A cache pool is a store without secrets: a directory or a mounted export."""

    name: Name
    scope: Scope
    zone_id: Id
    provider: Name
    config: dict[str, Any]
    capacity_bytes: Annotated[int, Meta(ge=1)]


async def _add_cache_pool(call: Call, want: AddCachePoolRequest) -> cache.PoolView:
    pool_id = call.ids.new()
    store = StoreSpec(
        store_id=call.ids.new(),
        role=StoreRole.CACHE,
        provider=want.provider,
        config=want.config,
        zone_id=want.zone_id,
    )
    command = cache.AddPool(
        actor=call.actor,
        pool_id=pool_id,
        name=want.name,
        scope=want.scope,
        zone_id=want.zone_id,
        store=store,
        capacity_bytes=want.capacity_bytes,
    )
    return await call.ask(command, cache.PoolView)


_POOL_FIELDS = ("zone_id", "strategy", "mode", "vms_min", "vms_max")

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        name="job.get",
        summary="One job; with wait_s the answer waits for its end.",
        request=GetJobRequest,
        reply=Job,
        run=_get_job,
    ),
    Operation(
        name="job.list", summary="Own jobs.", request=ListJobsRequest, reply=Jobs, run=_list_jobs
    ),
    Operation(
        name="transfer.list",
        summary="Transfers of the own account, newest first; an admin sees all.",
        request=ListTransfersRequest,
        reply=motion.TransferList,
        run=_list_transfers,
    ),
    forwarded(
        "transfer.get",
        "One transfer: its plan, why that plan, and its story.",
        motion.GetTransfer,
        says=("transfer_id",),
    ),
    forwarded(
        "transfer.cancel",
        "Ask a transfer to stop.",
        motion.CancelTransfer,
        says=("transfer_id",),
    ),
    forwarded("mover.list", "All movers.", motion.ListMovers, role=Role.ADMIN),
    Operation(
        name="cache_pool.add",
        summary="Add a cache pool.",
        request=AddCachePoolRequest,
        reply=cache.PoolView,
        run=_add_cache_pool,
        role=Role.ADMIN,
    ),
    forwarded("cache_pool.list", "All cache pools.", cache.ListPools, role=Role.ADMIN),
    forwarded(
        "cache_pool.remove",
        "Remove a cache pool.",
        cache.RemovePool,
        says=("pool_id",),
        role=Role.ADMIN,
    ),
    forwarded(
        "scaling_pool.create",
        "Create the scaling pool of a zone.",
        fleet.PutPool,
        says=_POOL_FIELDS,
        minted=("pool_id",),
        role=Role.ADMIN,
    ),
    forwarded(
        "scaling_pool.put",
        "Change a scaling pool.",
        fleet.PutPool,
        says=("pool_id", *_POOL_FIELDS),
        role=Role.ADMIN,
    ),
    forwarded("scaling_pool.list", "All scaling pools.", fleet.ListPools, role=Role.ADMIN),
)
