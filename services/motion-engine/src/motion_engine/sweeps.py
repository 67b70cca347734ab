"""Periodic work that makes lost messages and dead movers harmless."""

from entrepot_chassis import logs, metrics
from entrepot_contracts.motion import TransferState
from motion_engine import replanning
from motion_engine.engine import MOVERS_MAX, Engine
from motion_engine.planner import is_alive
from motion_engine.rows import Mover, Transfer
from motion_engine.stimuli import LeaseExpired, RetryDue

_log = logs.get("sweep")
_BATCH = 200
_ALIVE = metrics.gauge("entrepot_movers_alive", "Movers heard of lately")
_SILENT = metrics.gauge("entrepot_movers_silent", "Movers known but not heard of lately")


async def settle_due(engine: Engine) -> int:
    """Retries whose wait is over; expired leases of work that nobody may claim again."""
    async with engine.database.transaction() as tx:
        ids = await engine.ledger.due(tx, limit=_BATCH)
    for transfer_id in ids:
        async with engine.desk.open() as sitting:
            transfer = await sitting.take(transfer_id)
            if transfer is None:
                continue
            now = await sitting.tx.now()
            if transfer.state == TransferState.RETRY_WAIT:
                if transfer.not_before is None or transfer.not_before <= now:
                    await sitting.apply(transfer, RetryDue(), why="the wait is over")
            elif transfer.lease_until is not None and transfer.lease_until < now:
                await sitting.apply(transfer, LeaseExpired(now=now), why="its lease ran out")
    return len(ids)


async def announce_ready(engine: Engine) -> None:
    """Plan what has no plan, and ring again for work that lies ready."""
    await replanning.plan_the_unplanned(engine)
    async with engine.database.transaction() as tx:
        ready = await tx.find(Transfer, where={"state": TransferState.QUEUED}, limit=1)
    if ready:
        await engine.bell.ring()


class Roll:
    """Calls the roll of movers; when one falls silent, tells once and looks after its work."""

    def __init__(self) -> None:
        self._silent: frozenset[str] = frozenset()

    async def call(self, engine: Engine) -> None:
        async with engine.database.transaction() as tx:
            movers = await tx.find(Mover, limit=MOVERS_MAX)
            now = await tx.now()
        silent_s = engine.policy.mover_silent_s
        silent = frozenset(
            mover.mover_id for mover in movers if not is_alive(mover, now=now, silent_s=silent_s)
        )
        for mover_id in sorted(silent - self._silent):
            _log.warning("mover.silent", mover_id=mover_id, silent_s=silent_s)
        if silent - self._silent:
            await replanning.plan_the_stranded(engine)
        self._silent = silent
        _ALIVE.set(len(movers) - len(silent))
        _SILENT.set(len(silent))
