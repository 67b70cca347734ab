"""Accepting a command that becomes a job: once per id, all or nothing."""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from entrepot_chassis.ports import Ids, Transaction, TransactionConflict
from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.registry import Accepted
from entrepot_contracts.values import Actor, JobState
from store_registry.jobs.machine import Saga
from store_registry.jobs.runner import Taken
from store_registry.jobs.sagas import Asker, Kind
from store_registry.registry import Registry
from store_registry.rows import Job, Latch

TRIES_MAX = 3
_NOT_COMPARED = frozenset({"actor", "job_id", "details", "query", "seal_to"})


class Command(Protocol):
    @property
    def actor(self) -> Actor: ...
    @property
    def job_id(self) -> str: ...


class Opening(Struct, frozen=True, kw_only=True):
    """A job about to be: who asked for what."""

    kind: Kind
    job_id: str
    account_id: str
    resource_id: str
    request_digest: str
    now: datetime
    ids: Ids

    @property
    def asker(self) -> Asker:
        return Asker(ids=self.ids, account_id=self.account_id, job_id=self.job_id, now=self.now)

    def job(self, saga: Saga) -> Job:
        return Job(
            job_id=self.job_id,
            account_id=self.account_id,
            kind=self.kind.value,
            resource_id=self.resource_id,
            request_digest=self.request_digest,
            state=JobState.RUNNING,
            saga=saga,
            created_at=self.now,
            rung_at=self.now,
        )


Decide = Callable[[Transaction, Opening], Awaitable[Accepted]]


async def accept(
    registry: Registry,
    command: Command,
    kind: Kind,
    decide: Decide,
    *,
    resource: str,
    creates: bool = False,
    latch: str | None = None,
    opened: Mapping[str, str] = {},
) -> Accepted:
    """Let `decide` write rows and job in one transaction, unless this was accepted before.

    `resource` is the field that names the resource; with `creates` its id is the command's own
    choice, so the same command under another job id is the same intent still. A latch makes rules
    that span rows hold while others decide too. `opened` are fields that came sealed, as they
    read: a repeat seals them anew.
    """
    digest = _digest(command, opened)
    for _ in range(TRIES_MAX):
        try:
            async with registry.database.transaction() as tx:
                if latch is not None:
                    await tx.add(Latch(name=latch))
                    await tx.get(Latch, latch, lock=True)
                opening = await _opening(registry, tx, command, kind, resource, digest=digest)
                before = await _accepted_before(tx, opening, resource, creates=creates)
                return before or await decide(tx, opening)
        except (Taken, TransactionConflict):
            continue  # somebody was first with a row, or changed one that was chosen: look again
        except Refused:
            # A second delivery that waited for the first one's locks meets what the first one did.
            async with registry.database.transaction() as tx:
                opening = await _opening(registry, tx, command, kind, resource, digest=digest)
                before = await _accepted_before(tx, opening, resource, creates=creates)
            if before is None:
                raise
            return before
    raise Refused(
        Code.UNAVAILABLE,
        "others changed the same things at the same time",
        hint="ask again with the same ids",
    )


async def _opening(
    registry: Registry,
    tx: Transaction,
    command: Command,
    kind: Kind,
    resource: str,
    *,
    digest: str,
) -> Opening:
    return Opening(
        kind=kind,
        job_id=command.job_id,
        account_id=command.actor.account_id,
        resource_id=getattr(command, resource),
        request_digest=digest,
        now=await tx.now(),
        ids=registry.ids,
    )


async def _accepted_before(
    tx: Transaction, opening: Opening, resource: str, *, creates: bool
) -> Accepted | None:
    job = await tx.get(Job, opening.job_id)
    field = "job_id"
    if job is None and creates:
        field = resource
        where = {"resource_id": opening.resource_id, "kind": opening.kind.value}
        job = next(iter(await tx.find(Job, where=where, limit=1)), None)
    if job is None:
        return None
    same = (
        job.account_id == opening.account_id
        and job.kind == opening.kind
        and job.request_digest == opening.request_digest
    )
    if not same:
        raise _id_taken(field)
    return Accepted(job_id=job.job_id, resource_id=job.resource_id)


def _id_taken(field: str) -> Refused:
    return Refused(
        Code.CONFLICT,
        f"this {field} was used for something else",
        field=field,
        hint="mint a fresh id for a new intent; to repeat an intent, repeat it unchanged",
    )


def _digest(command: Any, opened: Mapping[str, str]) -> str:
    """What is asked for. Sealed fields differ each time: those that were opened take part as
    they read; a store's details are compared with the store itself.
    """
    asked = {
        name: getattr(command, name)
        for name in command.__struct_fields__
        if name not in _NOT_COMPARED
    }
    asked |= opened
    return hashlib.sha256(msgspec.json.encode(asked, order="deterministic")).hexdigest()
