"""Leases: one filler per object and zone, everybody else waits for it or uses the ready copy."""

from datetime import timedelta

from cache_manager.context import Cache
from cache_manager.entries import ENDED, Stimulus, step
from cache_manager.pools import loads
from cache_manager.rows import EntryRow, LeaseRow, PoolRow
from entrepot_chassis.ports import Transaction
from entrepot_contracts.cache import (
    AcquireLease,
    EntryChanged,
    EntryState,
    FillNoted,
    LeaseReleased,
    LeaseRole,
    LeaseView,
    ReleaseLease,
    RenewLease,
    ReportFill,
)
from entrepot_contracts.catalog import event_of
from entrepot_contracts.errors import Code, Refused
from entrepot_plugin.ports import LeaseAsk, Placement


async def acquire(cache: Cache, command: AcquireLease) -> LeaseView:
    """A lease on the zone's copy of the object, or on the place where it is to be filled.

    Raises Refused no_store when the zone has no pool, store_full (with every pool's verdict) when
    none can hold it, conflict when the lease id was used for another object.
    """
    async with cache.database.transaction() as tx:
        known = await tx.get(LeaseRow, command.lease_id)
        if known is not None:
            return await _known(tx, known, command)
        # Locking the pools in key order makes placement within a zone one at a time.
        pools = await tx.find(PoolRow, where={"zone_id": command.zone_id}, lock=True)
        if not pools:
            raise Refused(
                Code.NO_STORE,
                "this zone has no cache pool",
                field="zone_id",
                hint="add one, or let the transfer go direct",
            )
        entry = await _live_entry(tx, command)
        if entry is None:
            entry = await _place(cache, tx, command, pools)
        lease = await _lease(tx, entry, command)
        return await _view(tx, entry, lease)


async def renew(cache: Cache, command: RenewLease) -> LeaseView:
    """Raises Refused fenced when the lease has run out: stop using the copy."""
    async with cache.database.transaction() as tx:
        lease = await tx.get(LeaseRow, command.lease_id, lock=True)
        now = await tx.now()
        if lease is None or lease.released or lease.expires_at <= now:
            raise Refused(
                Code.FENCED,
                "this lease has ended",
                field="lease_id",
                hint="stop, and acquire a new lease",
            )
        lease.expires_at = now + timedelta(seconds=command.ttl_s)
        await tx.put(lease)
        entry = await _entry(tx, lease.entry_id)
        return await _view(tx, entry, lease)


async def release(cache: Cache, command: ReleaseLease) -> LeaseReleased:
    """Gone already = success. A filler that lets go without a report hands the fill on."""
    async with cache.database.transaction() as tx:
        lease = await tx.get(LeaseRow, command.lease_id, lock=True)
        if lease is not None and not lease.released:
            lease.released = True
            await tx.put(lease)
            entry = await tx.get(EntryRow, lease.entry_id, lock=True)
            if entry is not None and entry.filler == lease.lease_id:
                await _apply(tx, entry, Stimulus.FILLER_LOST)
    return LeaseReleased(lease_id=command.lease_id)


async def report_fill(cache: Cache, command: ReportFill) -> FillNoted:
    """The filler's verdict. Raises Refused fenced for an old epoch, digest_mismatch for other
    bytes than were asked for (the entry then counts as failed).
    """
    async with cache.database.transaction() as tx:
        entry = await tx.get(EntryRow, command.entry_id, lock=True)
        if entry is None or entry.fill_epoch != command.epoch:
            raise Refused(
                Code.FENCED, "another filler has this entry", field="epoch", hint="stop filling"
            )
        await _apply(tx, entry, Stimulus.FILL_STARTED)
        wrong = command.digest is not None and command.digest != entry.digest
        good = command.digest is not None and not wrong
        entry.reason = "" if good else command.reason or "the copy is not what was asked for"
        await _apply(tx, entry, Stimulus.FILL_VERIFIED if good else Stimulus.FILL_FAILED)
        return FillNoted(entry_id=entry.entry_id, state=entry.state)


async def sweep(cache: Cache) -> None:
    """End fills whose filler is gone, so that the next asker takes over."""
    async with cache.database.transaction() as tx:
        now = await tx.now()
        fills = await tx.find(
            EntryRow, where={"state": [EntryState.RESERVED, EntryState.FILLING]}, lock=True
        )
        for entry in fills:
            filler = await tx.get(LeaseRow, entry.filler) if entry.filler else None
            if entry.filler and (filler is None or filler.released or filler.expires_at <= now):
                await _apply(tx, entry, Stimulus.FILLER_LOST)


async def _known(tx: Transaction, lease: LeaseRow, command: AcquireLease) -> LeaseView:
    entry = await _entry(tx, lease.entry_id)
    if entry.digest != command.digest or entry.zone_id != command.zone_id:
        raise Refused(
            Code.CONFLICT,
            "this lease id stands for another object",
            field="lease_id",
            hint="mint a new id",
        )
    return await _view(tx, entry, lease)


async def _live_entry(tx: Transaction, command: AcquireLease) -> EntryRow | None:
    found = await tx.find(EntryRow, where={"live_key": _live_key(command)}, lock=True)
    return found[0] if found else None


async def _place(
    cache: Cache, tx: Transaction, command: AcquireLease, pools: list[PoolRow]
) -> EntryRow:
    live_key = _live_key(command)
    ask = LeaseAsk(
        object_id=command.digest.root,
        size_bytes=command.digest.size_bytes,
        purpose=command.purpose,
    )
    verdict = cache.policy.place(ask, await loads(tx, pools, live_key))
    if not isinstance(verdict, Placement):
        raise Refused(
            Code.STORE_FULL,
            verdict.reason,
            field="zone_id",
            hint="free space, add a pool, or let the transfer go direct",
            facts=dict(verdict.table),
        )
    entry_id = cache.ids.new()
    entry = EntryRow(
        entry_id=entry_id,
        pool_id=verdict.pool_id,
        zone_id=command.zone_id,
        live_key=live_key,
        digest=command.digest,
        format=command.format,
        key=f"cache/{entry_id}/data",
        state=EntryState.RESERVED,
        reason=f"{cache.policy.name}: {verdict.reason}",
    )
    await tx.add(entry)
    return entry


async def _lease(tx: Transaction, entry: EntryRow, command: AcquireLease) -> LeaseRow:
    now = await tx.now()
    role = LeaseRole.USE if entry.state is EntryState.READY else LeaseRole.WAIT
    if role is LeaseRole.WAIT and await _takes_over(tx, entry):
        role = LeaseRole.FILL
    lease = LeaseRow(
        lease_id=command.lease_id,
        entry_id=entry.entry_id,
        holder=command.holder,
        purpose=command.purpose,
        role=role,
        expires_at=now + timedelta(seconds=command.ttl_s),
    )
    await tx.add(lease)
    if role is LeaseRole.FILL:
        entry.filler = lease.lease_id
        await _apply(tx, entry, Stimulus.FILL_STARTED)
    entry.uses += 1
    entry.last_use_at = now
    await tx.put(entry)
    return lease


async def _takes_over(tx: Transaction, entry: EntryRow) -> bool:
    """True if nobody fills now; a lost filler's epoch is left behind."""
    if entry.filler is None:
        return True
    filler = await tx.get(LeaseRow, entry.filler)
    if filler is not None and not filler.released and filler.expires_at > await tx.now():
        return False
    await _apply(tx, entry, Stimulus.FILLER_LOST)
    return True


async def _apply(tx: Transaction, entry: EntryRow, stimulus: Stimulus) -> None:
    before = entry.state
    entry.state = step(before, stimulus)
    if stimulus is Stimulus.FILLER_LOST and before in (EntryState.RESERVED, EntryState.FILLING):
        entry.filler = None
        entry.fill_epoch += 1
    if entry.state in ENDED:
        entry.live_key = None
    if entry.state is EntryState.READY:
        entry.filler = None
    await tx.put(entry)
    if entry.state is not before:
        event = EntryChanged(
            entry_id=entry.entry_id, pool_id=entry.pool_id, state=entry.state, at=await tx.now()
        )
        await tx.emit(f"entry:{entry.entry_id}", event_of(EntryChanged).subject_for(event), event)


async def _entry(tx: Transaction, entry_id: str) -> EntryRow:
    entry = await tx.get(EntryRow, entry_id)
    assert entry is not None, "a lease refers to its entry by foreign key"
    return entry


async def _view(tx: Transaction, entry: EntryRow, lease: LeaseRow) -> LeaseView:
    pool = await tx.get(PoolRow, entry.pool_id)
    assert pool is not None, "an entry refers to its pool by foreign key"
    return LeaseView(
        lease_id=lease.lease_id,
        entry_id=entry.entry_id,
        pool_id=entry.pool_id,
        store=pool.store,
        key=entry.key,
        role=lease.role,
        epoch=entry.fill_epoch,
        expires_at=lease.expires_at,
        reason=entry.reason,
    )


def _live_key(command: AcquireLease) -> str:
    return f"{command.zone_id}/{command.digest.root}/{command.format}"
