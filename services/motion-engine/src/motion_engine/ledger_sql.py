"""The ledger on PostgreSQL. Claims are one statement; all times are the database's clock."""

from collections.abc import Sequence
from typing import Any, cast

import msgspec

from entrepot_chassis.ports import Transaction
from entrepot_chassis.postgres import PostgresTransaction
from entrepot_contracts.motion import PartRecord, TransferState
from entrepot_contracts.values import WorkClass
from motion_engine import statements
from motion_engine.dispatch import Candidate, Full, Held
from motion_engine.ledger import (
    Holder,
    LoadLine,
    NotHeld,
    Progress,
    Reach,
    line_of_story,
)
from motion_engine.rows import Transfer


class PostgresLedger:
    async def held(self, tx: Transaction) -> Sequence[Held]:
        connection = _connection(tx)
        await connection.execute(statements.LOCK_ROUND)
        rows = await connection.fetch(statements.LIVE_LEASES)
        return [msgspec.convert(_with_stores(row), Held) for row in rows]

    async def ready(
        self, tx: Transaction, reach: Reach, *, full: Full, per_account: int
    ) -> Sequence[Candidate]:
        rows = await _connection(tx).fetch(
            statements.READY,
            _json(reach.has),
            not reach.zones,
            _json(reach.zones),
            list(full.accounts),
            list(full.stores),
            list(full.zones),
            per_account,
        )
        return [msgspec.convert(_with_stores(row), Candidate) for row in rows]

    async def claim(
        self, tx: Transaction, transfer_ids: Sequence[str], holder: Holder
    ) -> Sequence[Transfer]:
        rows = await _connection(tx).fetch(
            statements.CLAIM, list(transfer_ids), holder.mover_id, holder.boot_id, holder.lease_s
        )
        claimed = {row["transfer_id"] for row in rows}
        if not claimed:
            return []
        found = await tx.find(Transfer, where={"transfer_id": sorted(claimed)}, limit=len(claimed))
        by_id = {transfer.transfer_id: transfer for transfer in found}
        return [by_id[one] for one in transfer_ids if one in claimed]

    async def enqueue(self, tx: Transaction, transfer: Transfer) -> bool:
        return await tx.add(transfer)

    async def renew(self, tx: Transaction, transfer_id: str, epoch: int, *, lease_s: float) -> bool:
        row = await _connection(tx).fetchrow(statements.RENEW, transfer_id, epoch, lease_s)
        if row is None:
            raise NotHeld(transfer_id, epoch)
        return bool(row["cancel_requested"])

    async def checkpoint(
        self, tx: Transaction, transfer_id: str, epoch: int, progress: Progress
    ) -> None:
        connection = _connection(tx)
        before = await connection.fetchrow(statements.HOLD, transfer_id, epoch)
        if before is None:
            raise NotHeld(transfer_id, epoch)
        upload = (progress.key, progress.resume)
        kept = (before["upload_key"], before["resume"])
        if upload == ("", None):
            upload = kept  # a note without an upload, such as a change of phase
        another = kept not in {upload, ("", None)}
        if another:
            await connection.execute(statements.OTHER_UPLOAD, transfer_id)
        resent_bytes = await self._put_parts(tx, transfer_id, epoch, progress.parts)
        await connection.execute(
            statements.PROGRESS,
            transfer_id,
            *upload,
            _json(progress.facts),
            progress.bytes_done,
            progress.bytes_total,
            resent_bytes,
            another,
        )

    async def _put_parts(
        self, tx: Transaction, transfer_id: str, epoch: int, parts: Sequence[PartRecord]
    ) -> int:
        if not parts:
            return 0
        fresh = {part.number: part for part in parts}.values()
        resent: int = await _connection(tx).fetchval(
            statements.PUT_PARTS,
            transfer_id,
            epoch,
            [part.number for part in fresh],
            [part.offset for part in fresh],
            [part.length for part in fresh],
            [part.receipt for part in fresh],
            [part.leaves for part in fresh],
        )
        return resent

    async def parts(
        self, tx: Transaction, transfer_ids: Sequence[str]
    ) -> dict[str, tuple[PartRecord, ...]]:
        found: dict[str, list[PartRecord]] = {}
        for row in await _connection(tx).fetch(statements.PARTS, list(transfer_ids)):
            fields = dict(row)
            found.setdefault(fields.pop("transfer_id"), []).append(PartRecord(**fields))
        return {transfer_id: tuple(parts) for transfer_id, parts in found.items()}

    async def save(
        self, tx: Transaction, transfer: Transfer, *, before: Transfer, why: str
    ) -> None:
        written = await _connection(tx).fetchval(
            statements.SAVE,
            before.transfer_id,
            before.version,
            before.epoch,
            transfer.state.value,
            transfer.attempts,
            transfer.strategy,
            _json(transfer.bids),
            _json(transfer.legs),
            _json(transfer.needs),
            _json(transfer.zones),
            transfer.mover_id,
            transfer.boot_id,
            transfer.lease_until,
            transfer.not_before,
            transfer.cancel_requested,
            transfer.finished_at,
            _json_or_null(transfer.result),
            _json_or_null(transfer.problem),
            before.state.value,
            why,
        )
        if written is None:
            raise NotHeld(before.transfer_id, before.epoch)

    async def story(self, tx: Transaction, transfer_id: str) -> tuple[str, ...]:
        rows = await _connection(tx).fetch(statements.STORY, transfer_id)
        return tuple(
            line_of_story(
                at=row["at"],
                epoch=row["epoch"],
                before=TransferState(row["from_state"]) if row["from_state"] else None,
                after=TransferState(row["to_state"]),
                why=row["why"],
            )
            for row in rows
        )

    async def due(self, tx: Transaction, *, limit: int) -> Sequence[str]:
        return [row["transfer_id"] for row in await _connection(tx).fetch(statements.DUE, limit)]

    async def load(self, tx: Transaction) -> Sequence[LoadLine]:
        rows = await _connection(tx).fetch(statements.LOAD)
        return [
            LoadLine(**{**dict(row), "work_class": WorkClass(row["work_class"])}) for row in rows
        ]


def _connection(tx: Transaction) -> Any:
    return cast(PostgresTransaction, tx).connection


def _with_stores(row: Any) -> dict[str, Any]:
    return {**dict(row), "store_ids": msgspec.json.decode(row["store_ids"])}


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _json_or_null(value: object | None) -> str | None:
    return None if value is None else _json(value)
