"""Plans transfers: when they come, and again when the movers that could or could not change."""

from collections.abc import Callable, Mapping

from entrepot_chassis import metrics
from entrepot_contracts.motion import TransferState
from motion_engine.desk import Sitting
from motion_engine.engine import Engine
from motion_engine.planner import Topology, plan
from motion_engine.reach import within_reach
from motion_engine.rows import Transfer

_PAGE = 200
_UNPLANNED = metrics.gauge(
    "entrepot_transfers_unplanned", "Queued transfers that no mover can do at present"
)


async def plan_one(
    engine: Engine, sitting: Sitting, transfer: Transfer, known: Topology
) -> Transfer:
    stimulus = plan(transfer.ask, known, engine.strategies)
    return await sitting.apply(transfer, stimulus)


async def plan_the_unplanned(engine: Engine) -> None:
    """Somebody appeared or learned something: what had no plan may get one."""
    where = {"state": TransferState.QUEUED, "strategy": ""}
    _UNPLANNED.set(await _plan_again(engine, where, lambda _, __: True))


async def plan_the_stranded(engine: Engine) -> None:
    """Somebody fell silent: what only they could do shows that it waits for a mover."""

    def stranded(transfer: Transfer, known: Topology) -> bool:
        return not any(within_reach(transfer, mover) for mover in known.movers)

    _UNPLANNED.set(await _plan_again(engine, {"state": TransferState.QUEUED}, stranded))


async def _plan_again(
    engine: Engine, where: Mapping[str, object], wanted: Callable[[Transfer, Topology], bool]
) -> int:
    """Page by page, each in its own transaction; returns how many are left without a plan."""
    left, after = 0, None
    while True:
        async with engine.desk.open() as sitting:
            page = await sitting.tx.find(Transfer, where=where, after=after, limit=_PAGE, lock=True)
            known = await engine.topology(sitting.tx)
            for transfer in page:
                if wanted(transfer, known):
                    planned = await plan_one(engine, sitting, transfer, known)
                    left += not planned.strategy
        if len(page) < _PAGE:
            return left
        after = page[-1].transfer_id
