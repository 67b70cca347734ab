"""Plans transfers: when they come, and again when the movers that could not do them change."""

from entrepot_chassis import metrics
from entrepot_contracts.motion import TransferState
from motion_engine.desk import Sitting
from motion_engine.engine import Engine
from motion_engine.planner import Topology, plan
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


async def replan(engine: Engine) -> int:
    """Plan everything that has no plan; returns how many are left without one."""
    left, after = 0, None
    while True:
        async with engine.desk.open() as sitting:
            page = await sitting.tx.find(
                Transfer,
                where={"state": TransferState.QUEUED, "strategy": ""},
                after=after,
                limit=_PAGE,
                lock=True,
            )
            known = await engine.topology(sitting.tx) if page else None
            for transfer in page:
                assert known is not None
                planned = await plan_one(engine, sitting, transfer, known)
                left += not planned.strategy
        if len(page) < _PAGE:
            break
        after = page[-1].transfer_id
    _UNPLANNED.set(left)
    return left
