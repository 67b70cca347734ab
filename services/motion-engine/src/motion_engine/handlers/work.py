"""What a holder says about its work: renewals, checkpoints, the end. All fenced by the epoch."""

import hashlib
from datetime import datetime

from entrepot_chassis import logs, metrics
from entrepot_chassis.ports import Transaction
from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.motion import (
    Checkpoint,
    Copied,
    FinishWork,
    Noted,
    PartsOnRecord,
    ReadParts,
    ReleaseWork,
    Renewed,
    RenewLease,
    TransferState,
)
from motion_engine.desk import refused_as_fenced
from motion_engine.engine import Engine
from motion_engine.ledger import NotHeld, Progress
from motion_engine.part_pages import first_page
from motion_engine.rows import HELD, Rate, Transfer
from motion_engine.settings import Policy
from motion_engine.stimuli import Faltered, Released, Succeeded, Verifying

_log = logs.get("work")
_FENCED = metrics.counter(
    "entrepot_transfers_fenced_total", "Words of movers that no longer held the work", ["command"]
)
_RESENT = metrics.counter("entrepot_transfer_finished_resent_bytes_total", "Bytes sent again")
_MOVED = metrics.counter("entrepot_transfer_finished_bytes_total", "Bytes of finished copies")
_EWMA_WEIGHT = 0.3
_RATE_BYTES_MIN = 16 << 20  # shorter copies measure latency, not rate


async def renew(engine: Engine, message: RenewLease) -> Renewed:
    async with engine.database.transaction() as tx:
        try:
            cancel = await engine.ledger.renew(
                tx, message.transfer_id, message.epoch, lease_s=engine.policy.lease_s
            )
        except NotHeld as err:
            raise _fenced("renew", message.transfer_id, message.epoch) from err
    return Renewed(cancel=cancel)


async def checkpoint(engine: Engine, message: Checkpoint) -> Noted:
    progress = Progress(
        key=message.key,
        resume=message.resume,
        parts=message.parts,
        bytes_done=message.bytes_done,
        bytes_total=message.bytes_total,
        facts=message.facts,
    )
    async with engine.desk.open() as sitting:
        try:
            await engine.ledger.checkpoint(sitting.tx, message.transfer_id, message.epoch, progress)
        except NotHeld as err:
            raise _fenced("checkpoint", message.transfer_id, message.epoch) from err
        if message.facts.get("phase") == TransferState.VERIFYING.value:
            held = await sitting.take(message.transfer_id)
            assert held is not None
            await sitting.apply(held, Verifying(epoch=message.epoch))
    return Noted()


async def read_parts(engine: Engine, message: ReadParts) -> PartsOnRecord:
    async with engine.database.transaction() as tx:
        held = await tx.get(Transfer, message.transfer_id)
        if held is None or held.epoch != message.epoch or held.state not in HELD:
            raise _fenced("read_parts", message.transfer_id, message.epoch)
        found = await engine.ledger.parts(tx, [message.transfer_id])
    left = [one for one in found.get(message.transfer_id, ()) if one.number > message.after]
    page = first_page(left)
    return PartsOnRecord(parts=page, more=len(page) < len(left))


async def finish(engine: Engine, message: FinishWork) -> Noted:
    """The first word of an epoch counts; the same said again is noted and changes nothing."""
    if (message.result is None) == (message.problem is None):
        raise Refused(
            Code.INVALID,
            "exactly one of result and problem must be given",
            field="result",
            hint="docs/wire.md names the shape of every command",
        )
    async with engine.desk.open() as sitting:
        held = await sitting.take(message.transfer_id)
        if held is None:
            raise _fenced("finish", message.transfer_id, message.epoch)
        stimulus = _outcome(engine.policy, held, message, now=await sitting.tx.now())
        try:
            after = await sitting.apply(held, stimulus, why=_why(message))
        except Refused:
            _FENCED.labels("finish").inc()
            raise
        if after is not held and after.state == TransferState.DONE:
            await _measure(sitting.tx, after)
    return Noted()


async def release(engine: Engine, message: ReleaseWork) -> Noted:
    async with engine.desk.open() as sitting:
        held = await sitting.take(message.transfer_id)
        if held is None:
            raise _fenced("release", message.transfer_id, message.epoch)
        stimulus = Released(epoch=message.epoch, now=await sitting.tx.now())
        await sitting.apply(held, stimulus, why="handed back by its mover")
    return Noted()


def retry_delay_s(policy: Policy, *, transfer_id: str, attempts: int) -> float:
    """Doubling with every attempt, ±50 % that differ by transfer and attempt, never random."""
    grown_s = policy.retry_base_s * 2.0 ** min(max(attempts - 1, 0), 30)
    digest = hashlib.blake2b(f"{transfer_id}/{attempts}".encode(), digest_size=4).digest()
    jitter = 0.5 + int.from_bytes(digest, "big") / 0xFFFFFFFF
    return min(grown_s * jitter, policy.retry_cap_s)


def _outcome(
    policy: Policy, held: Transfer, message: FinishWork, *, now: datetime
) -> Succeeded | Faltered:
    if message.result is not None:
        return Succeeded(epoch=message.epoch, result=message.result, now=now)
    assert message.problem is not None
    delay_s = retry_delay_s(policy, transfer_id=held.transfer_id, attempts=held.attempts)
    return Faltered(epoch=message.epoch, problem=message.problem, now=now, delay_s=delay_s)


def _why(message: FinishWork) -> str:
    if message.problem is None:
        return "done"
    return f"{message.problem.code.value}: {message.problem.message}"


async def _measure(tx: Transaction, done: Transfer) -> None:
    """The planner's rates are what transfers really achieved."""
    result = done.result
    _RESENT.inc(done.bytes_resent)
    if not isinstance(result, Copied):
        return
    _MOVED.inc(result.bytes_read)
    if done.claimed_at is None or done.finished_at is None or not done.rate_pair:
        return
    seconds = (done.finished_at - done.claimed_at).total_seconds()
    if seconds <= 0 or result.bytes_read < _RATE_BYTES_MIN:
        return
    seen_bps = result.bytes_read / seconds
    rate = await tx.get(Rate, done.rate_pair, lock=True)
    if rate is None:
        await tx.add(Rate(pair=done.rate_pair, rate_bps=seen_bps, samples=1))
        return
    rate.rate_bps += _EWMA_WEIGHT * (seen_bps - rate.rate_bps)
    rate.samples += 1
    await tx.put(rate)


def _fenced(command: str, transfer_id: str, epoch: int) -> Refused:
    _FENCED.labels(command).inc()
    _log.warning("work.fenced", command=command, transfer_id=transfer_id, epoch=epoch)
    return refused_as_fenced(transfer_id, epoch)
