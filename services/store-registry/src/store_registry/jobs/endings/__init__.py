"""What the end of a job means for its resource: one pair of functions per kind."""

from collections.abc import Awaitable, Callable

from msgspec import Struct

from entrepot_chassis.ports import Transaction
from entrepot_contracts.errors import Problem
from store_registry.jobs.endings import snapshots, stores, templates, volumes
from store_registry.jobs.sagas import Kind
from store_registry.rows import Job


class Ending(Struct, frozen=True, kw_only=True):
    well: Callable[[Transaction, Job], Awaitable[None]]
    badly: Callable[[Transaction, Job, Problem], Awaitable[None]]


ENDINGS: dict[Kind, Ending] = {
    Kind.STORE_ADD: Ending(well=stores.added, badly=stores.not_added),
    Kind.TEMPLATE_REGISTER: Ending(well=templates.registered, badly=templates.not_registered),
    Kind.TEMPLATE_DELETE: Ending(well=templates.deleted, badly=templates.not_deleted),
    Kind.TEMPLATE_EXTRACT: Ending(well=templates.extracted, badly=templates.not_extracted),
    Kind.VOLUME_CREATE: Ending(well=volumes.created, badly=volumes.not_created),
    Kind.VOLUME_DELETE: Ending(well=volumes.deleted, badly=volumes.not_deleted),
    Kind.SNAPSHOT_CREATE: Ending(well=snapshots.created, badly=snapshots.not_created),
    Kind.SNAPSHOT_DELETE: Ending(well=snapshots.deleted, badly=snapshots.not_deleted),
}
