"""Ends of template.register, template.delete and template.extract."""

from entrepot_chassis.ports import Transaction
from entrepot_contracts.errors import Problem
from entrepot_contracts.motion import Linked
from entrepot_contracts.registry import TemplateChanged
from entrepot_contracts.values import ResourceState
from store_registry.announce import announce
from store_registry.jobs.endings.copies import (
    refs_of,
    settle_destroyed,
    settle_failed,
    settle_ready,
)
from store_registry.rows import Job, Template, TemplateStoreRef


async def registered(tx: Transaction, job: Job) -> None:
    template = await _template(tx, job)
    refs = await refs_of(tx, TemplateStoreRef, template.template_id, lock=True)
    first, *_ = await settle_ready(tx, job, refs)
    template.size_bytes = first.digest.size_bytes
    template.virtual_size_bytes = first.virtual_size_bytes
    if first.stored is not None and template.checksum is None:
        template.checksum = first.stored.checksum
    template.error = None
    await _put(tx, template, ResourceState.READY)


async def not_registered(tx: Transaction, job: Job, problem: Problem) -> None:
    template = await _template(tx, job)
    refs = await refs_of(tx, TemplateStoreRef, template.template_id, lock=True)
    await settle_failed(tx, refs, problem)
    template.error = problem
    await _put(tx, template, ResourceState.FAILED)


async def deleted(tx: Transaction, job: Job) -> None:
    template = await _template(tx, job)
    refs = await refs_of(tx, TemplateStoreRef, template.template_id, lock=True)
    await settle_destroyed(tx, refs)
    await _put(tx, template, ResourceState.DELETED)


async def not_deleted(tx: Transaction, job: Job, problem: Problem) -> None:
    """Some of it may be gone: it is of no use any more, and can be deleted again."""
    template = await _template(tx, job)
    template.error = problem
    await _put(tx, template, ResourceState.FAILED)


async def extracted(tx: Transaction, job: Job) -> None:
    (outcome,) = job.saga.outcomes.values()
    assert isinstance(outcome.result, Linked), "link work answers with a link"
    assert await tx.get(Template, job.resource_id) is not None, "its job held the template"
    job.link = outcome.result.link


async def not_extracted(_tx: Transaction, _job: Job, _problem: Problem) -> None:
    """Nothing was changed; the job tells."""


async def announce_template(tx: Transaction, template: Template) -> None:
    await announce(
        tx,
        TemplateChanged(
            template_id=template.template_id,
            account_id=template.account_id,
            state=template.state,
            at=await tx.now(),
        ),
    )


async def _put(tx: Transaction, template: Template, state: ResourceState) -> None:
    template.state = state
    template.source_query = None  # its job was the last to need it
    await tx.put(template)
    await announce_template(tx, template)


async def _template(tx: Transaction, job: Job) -> Template:
    template = await tx.get(Template, job.resource_id, lock=True)
    assert template is not None, "templates are marked deleted, never removed"
    return template
