"""Protocol bugs to plant: each breaks one rule by wrapping what a composition root hands out."""

from contextlib import AbstractAsyncContextManager
from typing import Any

from installation import Seams
from msgspec import json
from msgspec.structs import replace

from entrepot_contracts.errors import Problem
from entrepot_contracts.motion import (
    Checkpoint,
    FinishWork,
    Noted,
    Renewed,
    RenewLease,
    TransferState,
)
from entrepot_testkit import planted
from entrepot_testkit.memory_ledger import MemoryLedger
from motion_engine.mover.copying import Tools
from motion_engine.mover.threads import run_inline
from motion_engine.rows import HELD, Transfer


class ClaimKeepsEpoch(MemoryLedger):
    """A taken-over transfer goes on under the epoch of the holder before."""

    async def claim(self, tx: Any, transfer_ids: Any, holder: Any) -> Any:
        claimed = await super().claim(tx, transfer_ids, holder)
        kept = [replace(one, epoch=max(one.epoch - 1, 1)) for one in claimed]
        for one in kept:
            await _put_unguarded(tx, one)
        return kept


class LeasesNeverExpire(MemoryLedger):
    """Only queued work is claimed: what a dead mover held stays with it."""

    async def ready(self, tx: Any, reach: Any, **options: Any) -> Any:
        found = await super().ready(tx, reach, **options)
        held = {one.transfer_id for one in await self._of_states(tx, list(HELD))}
        return [one for one in found if one.transfer_id not in held]

    async def due(self, tx: Any, *, limit: int) -> Any:
        due = await super().due(tx, limit=limit)
        held = {one.transfer_id for one in await self._of_states(tx, list(HELD))}
        return [one for one in due if one not in held]


class HoldsUnfenced(MemoryLedger):
    """Renewals and checkpoints of any epoch are taken as the holder's."""

    async def _hold(self, tx: Any, transfer_id: str, epoch: int) -> Any:
        row = await tx.get(Transfer, transfer_id, lock=True)
        held = row is not None and row.state in HELD
        return await super()._hold(tx, transfer_id, row.epoch if held else epoch)


class FinishNotFenced(planted.Around):
    """Bus of the engine: the last word of any mover counts, whatever its epoch."""

    def answer(
        self, subject: str, message: Any, handler: Any, **options: Any
    ) -> AbstractAsyncContextManager[None]:
        if message is FinishWork:
            handler = self._as_the_holder(handler)
        context: AbstractAsyncContextManager[None] = self.inner.answer(
            subject, message, handler, **options
        )
        return context

    def _as_the_holder(self, handler: Any) -> Any:
        engine = handler.args[0]

        async def answer(finish: FinishWork) -> Any:
            async with engine.database.transaction() as tx:
                row = await tx.get(Transfer, finish.transfer_id)
            if row is not None and row.state is TransferState.RUNNING:
                finish = replace(finish, epoch=row.epoch)
            return await handler(finish)

        return answer


class TrustsItsLease(planted.Around):
    """Bus of a mover that hears no refusal of renewals and checkpoints. No protocol bug: what the
    ledger keeps must hold against such movers too. What it does to volumes on a pool may not, as a
    pool cannot fence: `seeds.py --weather zombies --bug "movers that trust their lease" --seed 4`.
    """

    async def request(self, subject: str, message: Any, **options: Any) -> Any:
        answer = await self.inner.request(subject, message, **options)
        if isinstance(message, RenewLease) and isinstance(answer, Problem):
            return Renewed()
        if isinstance(message, Checkpoint) and isinstance(answer, Problem):
            return Noted()
        return answer


async def _put_unguarded(tx: Any, row: Transfer) -> None:
    tx.writes[row.TABLE.name, row.transfer_id] = json.encode(row)


def both(bus: Any = None, database: Any = None) -> Seams:
    options: dict[str, Any] = {}
    if bus is not None:
        options |= {"registry_bus": bus, "engine_bus": bus}
    if database is not None:
        options |= {"registry_database": database, "engine_database": database}
    return Seams(**options)


CONTROLS: dict[str, Seams] = {"movers that trust their lease": Seams(mover_bus=TrustsItsLease)}

# Not here: a forgotten inbox. These services survive it, because a repeated event finds its row or a
# saga that is past it; the harness' own toy (libs/testkit/tests/test_sim_model.py) catches it.
BUGS: dict[str, Seams] = {
    "acks before commit": both(bus=planted.AcksBeforeCommit),
    "no repair after a wipe": both(bus=planted.BlindToWipes),
    "marks before publishing": both(database=planted.MarksBeforePublishing),
    "event outside the transaction": both(database=planted.EmitsAfterCommit),
    "locks nothing": both(database=planted.LocksNothing),
    "claim keeps the epoch": Seams(ledger=ClaimKeepsEpoch),
    "leases never expire": Seams(ledger=LeasesNeverExpire),
    "checkpoints are not fenced": Seams(ledger=HoldsUnfenced),
    "finish is not fenced": Seams(engine_bus=FinishNotFenced, mover_bus=TrustsItsLease),
    "ready without verification": Seams(
        mover_tools=Tools(run_blocking=run_inline, parts_in_flight=2, reread=False)
    ),
}
