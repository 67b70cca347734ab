"""The runner of the machine: takes a stimulus to a transfer and carries out what follows from it.

State, history and announcement are one transaction; the bell rings after it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from entrepot_chassis import logs, metrics
from entrepot_chassis.ports import Database, Transaction
from entrepot_contracts.catalog import event_of
from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.motion import TransferFailed, TransferSucceeded
from motion_engine.bell import Doorbell
from motion_engine.ledger import Ledger
from motion_engine.machine import Fenced, IllegalTransition, step
from motion_engine.rows import TERMINAL, Transfer
from motion_engine.stimuli import Announce, Instruction, Park, Ring, Stimulus

SERVICE = "motion-engine"
_log = logs.get("transfer")
_FINISHED = metrics.counter(
    "entrepot_transfers_finished_total", "Transfers that reached an end", ["kind", "state"]
)
_TRANSITIONS = metrics.counter(
    "entrepot_transfer_transitions_total", "Transitions of the transfer machine", ["stimulus"]
)


class Sitting:
    """One transaction at the desk."""

    def __init__(self, tx: Transaction, ledger: Ledger) -> None:
        self.tx = tx
        self._ledger = ledger
        self.rung = False

    async def take(self, transfer_id: str) -> Transfer | None:
        """The transfer, locked until the sitting ends."""
        return await self.tx.get(Transfer, transfer_id, lock=True)

    async def apply(self, before: Transfer, stimulus: Stimulus, *, why: str = "") -> Transfer:
        """Raises Refused(fenced) for a speaker who does not hold it."""
        after, instructions = await self._step(before, stimulus)
        if after is before:
            return before
        await self._ledger.save(self.tx, after, before=before, why=why or _name(stimulus))
        for instruction in instructions:
            await self._carry_out(after, instruction)
        _TRANSITIONS.labels(_name(stimulus)).inc()
        _log.info(
            "transfer.moved",
            transfer_id=after.transfer_id,
            job_id=after.job_id,
            stimulus=_name(stimulus),
            before=before.state.value,
            after=after.state.value,
            epoch=after.epoch,
            attempts=after.attempts,
            problem=after.problem.code.value if after.problem else None,
        )
        if after.state in TERMINAL:
            _FINISHED.labels(after.kind, after.state.value).inc()
        return after

    async def _step(
        self, before: Transfer, stimulus: Stimulus
    ) -> tuple[Transfer, tuple[Instruction, ...]]:
        try:
            return step(before, stimulus)
        except Fenced as err:
            raise refused_as_fenced(before.transfer_id, err.claimed_epoch) from err
        except IllegalTransition as err:
            story = await self._ledger.story(self.tx, before.transfer_id)
            raise IllegalTransition(before, stimulus, story) from err

    async def _carry_out(self, transfer: Transfer, instruction: Instruction) -> None:
        match instruction:
            case Announce(event=event):
                await self.announce(transfer, event)
            case Park(why=why):
                await self.tx.park(
                    consumer=SERVICE,
                    msg_id=f"quarantined:{transfer.transfer_id}",
                    subject=f"transfer.{transfer.transfer_id}.quarantined",
                    body=await self._whole_story(transfer),
                    why=why,
                )
            case Ring():
                self.rung = True

    async def announce(self, transfer: Transfer, event: TransferSucceeded | TransferFailed) -> None:
        subject = event_of(type(event)).subject_for(event)
        await self.tx.emit(f"transfer.{transfer.transfer_id}", subject, event)

    async def _whole_story(self, transfer: Transfer) -> bytes:
        """Enough to judge the case; no URL and no store config, which may hold secrets."""
        return msgspec.json.encode(
            {
                "transfer_id": transfer.transfer_id,
                "job_id": transfer.job_id,
                "kind": transfer.kind,
                "attempts": transfer.attempts,
                "problem": transfer.problem,
                "story": await self._ledger.story(self.tx, transfer.transfer_id),
            }
        )


class Desk:
    """Opens sittings: a transaction, and a ring after it if anything became claimable."""

    def __init__(self, database: Database, ledger: Ledger, bell: Doorbell) -> None:
        self._database = database
        self.ledger = ledger
        self.bell = bell

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Sitting]:
        async with self._database.transaction() as tx:
            sitting = Sitting(tx, self.ledger)
            yield sitting
        if sitting.rung:
            await self.bell.ring()


def refused_as_fenced(transfer_id: str, epoch: int) -> Refused:
    return Refused(
        Code.FENCED,
        f"transfer {transfer_id} is not held under epoch {epoch}",
        field="epoch",
        hint="stop at once and touch nothing more: somebody else holds it, or it has ended",
        facts={"transfer_id": transfer_id, "epoch": str(epoch)},
    )


def _name(stimulus: Stimulus) -> str:
    return type(stimulus).__name__.lower()
