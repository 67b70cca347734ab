"""Hears what the registry wants: motion requested, motion cancelled; each event counts once."""

from collections.abc import Sequence

from entrepot_chassis import inbox, logs
from entrepot_chassis.ports import BatchHandler, Delivered, Transaction
from entrepot_contracts.motion import TransferAsk
from entrepot_contracts.registry import MotionCancelled, MotionRequested
from motion_engine.desk import SERVICE, Sitting
from motion_engine.engine import Engine
from motion_engine.machine import outcome
from motion_engine.planner import new_transfer
from motion_engine.replanning import plan_one
from motion_engine.rows import TERMINAL, EarlyCancel, Transfer
from motion_engine.stimuli import CancelAsked

SUBJECTS = ("evt.registry.motion.*.requested", "evt.registry.motion.*.cancelled")
MESSAGES = (MotionRequested, MotionCancelled)
_log = logs.get("intake")


def handler(engine: Engine) -> BatchHandler:
    """Apply a batch through the inbox, then ring for all of it."""

    async def apply(tx: Transaction, event: Delivered) -> None:
        match event.message:
            case MotionRequested(ask=ask):
                await _requested(engine, tx, ask)
            case MotionCancelled(transfer_id=transfer_id, reason=reason):
                await _cancelled(engine, tx, transfer_id, reason)

    once = inbox.once(engine.database, consumer=SERVICE, apply=apply)

    async def handle(batch: Sequence[Delivered]) -> None:
        try:
            await once(batch)
        finally:
            await engine.bell.ring()

    return handle


async def _requested(engine: Engine, tx: Transaction, ask: TransferAsk) -> None:
    transfer = new_transfer(ask, now=await tx.now())
    sitting = Sitting(tx, engine.ledger)
    if not await engine.ledger.enqueue(tx, transfer):
        await _asked_again(sitting, ask)
        return
    early = await tx.get(EarlyCancel, ask.transfer_id, lock=True)
    if early is not None:
        stimulus = CancelAsked(reason=early.reason, now=early.at)
        await sitting.apply(transfer, stimulus, why="cancelled before it was requested")
        return
    await plan_one(engine, sitting, transfer, await engine.topology(tx))
    _log.info(
        "transfer.queued",
        transfer_id=ask.transfer_id,
        job_id=ask.job_id,
        kind=transfer.kind,
        work_class=ask.work_class.value,
    )


async def _asked_again(sitting: Sitting, ask: TransferAsk) -> None:
    """The registry asks again when it has heard nothing for long: an end it missed is repeated."""
    known = await sitting.take(ask.transfer_id)
    if known is not None and known.state in TERMINAL:
        await sitting.announce(known, outcome(known))


async def _cancelled(engine: Engine, tx: Transaction, transfer_id: str, reason: str) -> None:
    transfer = await tx.get(Transfer, transfer_id, lock=True)
    now = await tx.now()
    if transfer is None:
        await tx.add(EarlyCancel(transfer_id=transfer_id, reason=reason, at=now))
        return
    stimulus = CancelAsked(reason=reason or "cancelled by the registry", now=now)
    await Sitting(tx, engine.ledger).apply(transfer, stimulus, why=stimulus.reason)
