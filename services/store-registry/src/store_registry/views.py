"""Rows as the world sees them: views without secrets, and for tenants without the inside."""

from collections.abc import Iterable

from entrepot_contracts.motion import Copied
from entrepot_contracts.registry import (
    CopyView,
    JobView,
    ProviderView,
    SnapshotView,
    StoreView,
    TemplateView,
    VolumeView,
    ZoneView,
)
from store_registry.progress import Progress
from store_registry.rows import (
    Job,
    Provider,
    Snapshot,
    Store,
    StoreRef,
    Template,
    Volume,
    Zone,
)


def zone_view(zone: Zone) -> ZoneView:
    return ZoneView(zone_id=zone.zone_id, name=zone.name, region=zone.region)


def provider_view(provider: Provider) -> ProviderView:
    return ProviderView(
        name=provider.name,
        version=provider.version,
        roles=provider.roles,
        scopes=provider.scopes,
        traits=provider.traits,
        config_schema=provider.config_schema,
    )


def store_view(store: Store, *, inside: bool) -> StoreView:
    """`inside`: with config, size and the probe's report, for administrators."""
    return StoreView(
        store_id=store.store_id,
        role=store.ROLE,
        name=store.name,
        provider=store.provider,
        scope=store.scope,
        zone_id=store.zone_id,
        region=store.region,
        state=store.state,
        read_only=store.read_only,
        config=store.config if inside else {},
        capacity_bytes=store.capacity_bytes if inside else None,
        used_bytes=store.used_bytes if inside else 0,
        report=store.report if inside else None,
        job_id=store.job_id if inside else None,
    )


def copy_views(refs: Iterable[StoreRef]) -> tuple[CopyView, ...]:
    return tuple(
        CopyView(
            store_id=ref.store_id,
            zone_id=ref.zone_id,
            state=ref.state,
            stored=ref.stored,
            error=ref.error,
        )
        for ref in refs
    )


def template_view(template: Template, refs: Iterable[StoreRef]) -> TemplateView:
    return TemplateView(
        template_id=template.template_id,
        account_id=template.account_id,
        name=template.name,
        url=template.url,
        format=template.format,
        scope=template.scope,
        public=template.public,
        state=template.state,
        created_at=template.created_at,
        copies=copy_views(refs),
        size_bytes=template.size_bytes,
        virtual_size_bytes=template.virtual_size_bytes,
        checksum=template.checksum,
        error=template.error,
        job_id=template.job_id,
    )


def volume_view(volume: Volume, *, inside: bool) -> VolumeView:
    """`inside`: with the path on the pool, for administrators."""
    return VolumeView(
        volume_id=volume.volume_id,
        account_id=volume.account_id,
        name=volume.name,
        zone_id=volume.zone_id,
        store_id=volume.store_id,
        format=volume.format,
        size_bytes=volume.size_bytes,
        state=volume.state,
        created_at=volume.created_at,
        path=volume.path if inside else None,
        digest_root=volume.digest_root,
        template_id=volume.template_id,
        snapshot_id=volume.snapshot_id,
        error=volume.error,
        job_id=volume.job_id,
    )


def snapshot_view(snapshot: Snapshot, refs: Iterable[StoreRef]) -> SnapshotView:
    return SnapshotView(
        snapshot_id=snapshot.snapshot_id,
        account_id=snapshot.account_id,
        name=snapshot.name,
        volume_id=snapshot.volume_id,
        format=snapshot.format,
        size_bytes=snapshot.size_bytes,
        state=snapshot.state,
        created_at=snapshot.created_at,
        copies=copy_views(refs),
        digest_root=snapshot.digest_root,
        error=snapshot.error,
        job_id=snapshot.job_id,
    )


def job_view(job: Job, progress: Progress) -> JobView:
    done, total = _bytes(job, progress)
    return JobView(
        job_id=job.job_id,
        account_id=job.account_id,
        kind=job.kind,
        resource_id=job.resource_id,
        state=job.state,
        created_at=job.created_at,
        finished_at=job.finished_at,
        step=job.saga.step_name,
        bytes_done=done,
        bytes_total=total,
        transfer_ids=job.transfer_ids,
        error=job.error,
        link=job.link,
    )


def _bytes(job: Job, progress: Progress) -> tuple[int, int | None]:
    """Bytes of the ended copies, and what the running ones last said. The total is known when
    every transfer that has spoken so far knows its own.
    """
    ended = [
        outcome.result.bytes_read
        for outcome in job.saga.outcomes.values()
        if isinstance(outcome.result, Copied)
    ]
    said = [progress.of(transfer_id) for transfer_id in job.saga.open]
    running = [word for word in said if word is not None]
    done = sum(ended) + sum(word.bytes_done for word in running)
    totals = [word.bytes_total for word in running]
    known = [total for total in totals if total is not None]
    if not (ended or running) or len(known) < len(totals):
        return done, None
    return done, sum(ended) + sum(known)
