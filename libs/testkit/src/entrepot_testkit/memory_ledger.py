"""motion-engine's Ledger on the Transaction port alone, for the simulation's memory database.

Libraries do not import services, so the ledger's words (the module `motion_engine.ledger`) are
handed in. The contract suite of the ledger runs over this one and over PostgreSQL.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, ClassVar

from msgspec.structs import replace

from entrepot_chassis.ports import Row, Table, Transaction
from entrepot_contracts.motion import PartRecord, TransferState

_ALL = 10**9
_HELD = [TransferState.RUNNING, TransferState.VERIFYING]
_LIVE = [TransferState.QUEUED, TransferState.RETRY_WAIT, *_HELD]
_SAVED = (
    "state", "version", "attempts", "strategy", "bids", "legs", "needs", "zones", "mover_id",
    "boot_id", "lease_until", "not_before", "cancel_requested", "finished_at", "result", "problem",
)  # fmt: skip


class MemoryPart(Row, kw_only=True):
    TABLE: ClassVar[Table] = Table(name="memory_part", key="part_id")

    part_id: str
    transfer_id: str
    record: PartRecord
    epoch: int
    stale: bool = False


class MemoryLine(Row, kw_only=True):
    TABLE: ClassVar[Table] = Table(name="memory_history", key="line_id")

    line_id: str
    transfer_id: str
    epoch: int
    text: str


class MemoryRound(Row, kw_only=True):
    """Locked by the round of claims that is under way."""

    TABLE: ClassVar[Table] = Table(name="memory_round", key="round_id")

    round_id: str


class MemoryLedger:
    """`words`: the module motion_engine.ledger."""

    def __init__(self, words: Any) -> None:
        self._words = words

    # --- claims -----------------------------------------------------------------------------------

    async def held(self, tx: Transaction) -> Sequence[Any]:
        await tx.put(MemoryRound(round_id="round"))
        now = await tx.now()
        return [
            self._words.Held(
                account_id=one.account_id,
                zone_id=one.zone_id,
                store_ids=one.store_ids,
                mover_id=one.mover_id,
            )
            for one in await self._of_states(tx, _HELD)
            if one.lease_until >= now
        ]

    async def ready(
        self, tx: Transaction, reach: Any, *, full: Any, per_account: int
    ) -> Sequence[Any]:
        now = await tx.now()
        live = await self._of_states(tx, [TransferState.QUEUED, *_HELD])
        fitting = [
            one
            for one in live
            if _claimable(one, now) and _within(one, reach) and not _is_full(one, full)
        ]
        fitting.sort(key=lambda one: (one.order_at, one.transfer_id))
        lines: dict[object, int] = defaultdict(int)
        found = []
        for one in fitting:
            line = (one.work_class, one.account_id)
            if one.state == TransferState.QUEUED:
                lines[line] += 1
            if lines[line] <= per_account or one.state != TransferState.QUEUED:
                found.append(self._candidate(one))
        return found

    async def claim(
        self, tx: Transaction, transfer_ids: Sequence[str], holder: Any
    ) -> Sequence[Any]:
        claimed = []
        for transfer_id in transfer_ids:
            before = await tx.get(self._words.Transfer, transfer_id, lock=True)
            now = await tx.now()
            if before is None or not _claimable(before, now):
                continue
            after = replace(
                before,
                state=TransferState.RUNNING,
                version=before.version + 1,
                epoch=before.epoch + 1,
                attempts=before.attempts + 1,
                mover_id=holder.mover_id,
                boot_id=holder.boot_id,
                not_before=None,
                claimed_at=now,
                lease_until=now + timedelta(seconds=holder.lease_s),
            )
            await tx.put(after)
            await self._tell(tx, before, after, f"claimed by {holder.mover_id}")
            claimed.append(after)
        return claimed

    # --- holders ----------------------------------------------------------------------------------

    async def renew(self, tx: Transaction, transfer_id: str, epoch: int, *, lease_s: float) -> bool:
        transfer = await self._hold(tx, transfer_id, epoch)
        until = await tx.now() + timedelta(seconds=lease_s)
        await tx.put(replace(transfer, lease_until=until))
        return bool(transfer.cancel_requested)

    async def checkpoint(
        self, tx: Transaction, transfer_id: str, epoch: int, progress: Any
    ) -> None:
        transfer = await self._hold(tx, transfer_id, epoch)
        kept = {
            part.record.number: part
            for part in await tx.find(
                MemoryPart, where={"transfer_id": transfer_id}, limit=_ALL, lock=True
            )
        }
        before = (transfer.upload_key, transfer.resume)
        upload = (progress.key, progress.resume)
        if upload == ("", None):
            upload = before
        another = before not in {upload, ("", None)}
        if another:
            kept = {number: replace(part, stale=True) for number, part in kept.items()}
        resent_bytes = _put_parts(kept, transfer_id, epoch, progress.parts)
        for part in kept.values():
            await tx.put(part)
        await tx.put(
            replace(
                transfer,
                upload_key=upload[0],
                resume=upload[1],
                facts={**({} if another else transfer.facts), **progress.facts},
                bytes_done=progress.bytes_done,
                bytes_total=(
                    transfer.bytes_total if progress.bytes_total is None else progress.bytes_total
                ),
                bytes_resent=transfer.bytes_resent + resent_bytes,
                parts_done=sum(not part.stale for part in kept.values()),
            )
        )

    async def parts(
        self, tx: Transaction, transfer_ids: Sequence[str]
    ) -> dict[str, tuple[PartRecord, ...]]:
        found: dict[str, list[PartRecord]] = {}
        where: Mapping[str, object] = {"transfer_id": list(transfer_ids), "stale": False}
        for part in await tx.find(MemoryPart, where=where, limit=_ALL):
            found.setdefault(part.transfer_id, []).append(part.record)
        return {key: tuple(parts) for key, parts in found.items()}

    # --- transitions ------------------------------------------------------------------------------

    async def enqueue(self, tx: Transaction, transfer: Any) -> bool:
        return await tx.add(transfer)

    async def save(self, tx: Transaction, transfer: Any, *, before: Any, why: str) -> None:
        kept = await tx.get(self._words.Transfer, before.transfer_id, lock=True)
        if kept is None or (kept.version, kept.epoch) != (before.version, before.epoch):
            raise self._words.NotHeld(before.transfer_id, before.epoch)
        assert transfer.version == before.version + 1, transfer
        after = replace(kept, **{name: getattr(transfer, name) for name in _SAVED})
        await tx.put(after)
        await self._tell(tx, before, after, why)

    async def story(self, tx: Transaction, transfer_id: str) -> tuple[str, ...]:
        lines = await tx.find(MemoryLine, where={"transfer_id": transfer_id}, limit=_ALL)
        return tuple(line.text for line in lines)

    async def due(self, tx: Transaction, *, limit: int) -> Sequence[str]:
        now = await tx.now()
        waiting = await self._of_states(tx, [TransferState.RETRY_WAIT, *_HELD])
        return [one.transfer_id for one in waiting if _is_due(one, now)][:limit]

    async def load(self, tx: Transaction) -> Sequence[Any]:
        now = await tx.now()
        groups: dict[tuple[Any, ...], list[Any]] = defaultdict(list)
        for one in await self._of_states(tx, _LIVE):
            edge = _due_edge_s((one.order_at - now).total_seconds())
            groups[one.zone_id, one.work_class, one.state in _HELD, edge].append(one)
        return [self._load_line(key, members, now) for key, members in groups.items()]

    # --- inside -----------------------------------------------------------------------------------

    async def _of_states(self, tx: Transaction, states: Sequence[TransferState]) -> list[Any]:
        return await tx.find(self._words.Transfer, where={"state": list(states)}, limit=_ALL)

    async def _hold(self, tx: Transaction, transfer_id: str, epoch: int) -> Any:
        transfer = await tx.get(self._words.Transfer, transfer_id, lock=True)
        if transfer is None or transfer.epoch != epoch or transfer.state not in _HELD:
            raise self._words.NotHeld(transfer_id, epoch)
        return transfer

    async def _tell(self, tx: Transaction, before: Any, after: Any, why: str) -> None:
        text = self._words.line_of_story(
            at=await tx.now(), epoch=after.epoch, before=before.state, after=after.state, why=why
        )
        line = MemoryLine(
            line_id=f"{after.transfer_id}/{after.version:09}",
            transfer_id=after.transfer_id,
            epoch=after.epoch,
            text=text,
        )
        assert await tx.add(line), "history is append-only and numbered by version"

    def _candidate(self, one: Any) -> Any:
        return self._words.Candidate(
            transfer_id=one.transfer_id,
            account_id=one.account_id,
            work_class=one.work_class,
            order_at=one.order_at,
            size_bytes=one.size_bytes,
            zone_id=one.zone_id,
            store_ids=one.store_ids,
        )

    def _load_line(self, key: tuple[Any, ...], members: Sequence[Any], now: Any) -> Any:
        zone_id, work_class, held, due_in_s = key
        return self._words.LoadLine(
            zone_id=zone_id,
            work_class=work_class,
            held=held,
            due_in_s=due_in_s,
            count=len(members),
            remaining_bytes=sum(_remaining_bytes(one) for one in members),
            unknown_n=sum(one.size_bytes is None and one.bytes_total is None for one in members),
            oldest_wait_s=max(0.0, *((now - one.created_at).total_seconds() for one in members)),
        )


def _put_parts(
    kept: dict[int, MemoryPart], transfer_id: str, epoch: int, fresh: Iterable[PartRecord]
) -> int:
    """Bytes that were recorded before under another epoch or with another receipt."""
    resent_bytes = 0
    for record in {part.number: part for part in fresh}.values():
        old = kept.get(record.number)
        if old is not None and (old.epoch, old.record) != (epoch, record):
            resent_bytes += record.length
        kept[record.number] = MemoryPart(
            part_id=f"{transfer_id}/{record.number:06}",
            transfer_id=transfer_id,
            record=record,
            epoch=epoch,
        )
    return resent_bytes


def _claimable(one: Any, now: Any) -> bool:
    if one.cancel_requested or one.attempts >= one.attempts_max or not one.strategy:
        return False
    return one.state == TransferState.QUEUED or (one.state in _HELD and one.lease_until < now)


def _within(one: Any, reach: Any) -> bool:
    return set(one.needs) <= set(reach.has) and (
        not reach.zones or set(one.zones) <= set(reach.zones)
    )


def _is_full(one: Any, full: Any) -> bool:
    return (
        one.account_id in full.accounts
        or one.zone_id in full.zones
        or not full.stores.isdisjoint(one.store_ids)
    )


def _is_due(one: Any, now: Any) -> bool:
    if one.state == TransferState.RETRY_WAIT:
        return bool(one.not_before <= now)
    exhausted = one.attempts >= one.attempts_max or one.cancel_requested
    return bool(one.lease_until < now and exhausted)


def _remaining_bytes(one: Any) -> int:
    size_bytes = one.bytes_total if one.size_bytes is None else one.size_bytes
    return 0 if size_bytes is None else max(size_bytes - one.bytes_done, 0)


def _due_edge_s(due_in_s: float) -> float:
    return 2.0 ** min(max(math.ceil(math.log2(max(due_in_s, 1))), 0), 23)
