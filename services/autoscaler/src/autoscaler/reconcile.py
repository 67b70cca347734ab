"""One tick: sample -> strategy -> guardrails -> decision row and event, in one transaction."""

import structlog

from autoscaler.context import Scaler
from autoscaler.guardrails import Verdict, clamp
from autoscaler.rows import DecisionRow, PoolRow
from autoscaler.window import snapshot_of
from entrepot_chassis.ports import Transaction
from entrepot_contracts.catalog import event_of
from entrepot_contracts.fleet import Decided
from entrepot_plugin.ports import PoolSnapshot, Proposal

log = structlog.get_logger()


async def tick(scaler: Scaler) -> None:
    """Decide for every pool; rows are locked, so two instances never decide at once."""
    async with scaler.database.transaction() as tx:
        for pool in await tx.find(PoolRow, lock=True):
            await _decide(scaler, tx, pool)


async def _decide(scaler: Scaler, tx: Transaction, pool: PoolRow) -> None:
    sample = scaler.window.trusted(pool.zone_id, now_s=scaler.clock.monotonic())
    if isinstance(sample, str):
        pool.last_reason = f"hold: {sample}"
        await tx.put(pool)
        return
    proposal = _proposal(
        scaler, pool, snapshot_of(sample, vms_min=pool.vms_min, vms_max=pool.vms_max)
    )
    verdict = clamp(
        proposal.desired,
        current=pool.desired,
        vms_min=pool.vms_min,
        vms_max=pool.vms_max,
        mode=pool.mode,
    )
    changed = verdict.desired != pool.desired
    pool.desired, pool.ready = verdict.desired, len(sample.workers)
    pool.last_reason, pool.state = proposal.reason, proposal.state
    pool.sampled_at = sample.observed_at
    await tx.put(pool)
    if changed:
        await _record(scaler, tx, pool, proposal, verdict)


def _proposal(scaler: Scaler, pool: PoolRow, snapshot: PoolSnapshot) -> Proposal:
    """A strategy that raises holds: somebody else's bug must not move the fleet."""
    try:
        return scaler.strategies[pool.strategy].decide(snapshot, pool.state)
    except Exception as err:
        log.exception("strategy_failed", pool_id=pool.pool_id, strategy=pool.strategy)
        reason = f"hold: strategy {pool.strategy} raised {type(err).__name__}"
        return Proposal(desired=pool.desired, reason=reason, state=pool.state)


async def _record(
    scaler: Scaler, tx: Transaction, pool: PoolRow, proposal: Proposal, verdict: Verdict
) -> None:
    at = await tx.now()
    await tx.put(
        DecisionRow(
            decision_id=scaler.ids.new(),
            pool_id=pool.pool_id,
            at=at,
            strategy=pool.strategy,
            proposed=proposal.desired,
            desired=verdict.desired,
            clamps=verdict.clamps,
            reason=proposal.reason,
        )
    )
    event = Decided(
        pool_id=pool.pool_id,
        zone_id=pool.zone_id,
        at=at,
        strategy=pool.strategy,
        proposed=proposal.desired,
        desired=verdict.desired,
        clamps=verdict.clamps,
        reason=proposal.reason,
    )
    await tx.emit(f"pool:{pool.pool_id}", event_of(Decided).subject_for(event), event)
