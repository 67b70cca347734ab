"""The parts every handler works with, put together once in app.py."""

import asyncio
from collections.abc import Mapping, Sequence

from entrepot_chassis.ports import Bus, Clock, Database, Transaction
from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.values import Actor, Role
from entrepot_plugin.ports import MotionStrategy
from motion_engine.bell import Doorbell
from motion_engine.desk import Desk
from motion_engine.ledger import Ledger
from motion_engine.planner import Topology, topology
from motion_engine.rows import Mover, Rate
from motion_engine.sealing import Sealing
from motion_engine.settings import Policy

MOVERS_MAX = 10_000
RATES_MAX = 1_000


class Engine:
    def __init__(
        self,
        *,
        database: Database,
        bus: Bus,
        ledger: Ledger,
        clock: Clock,
        policy: Policy,
        strategies: Sequence[MotionStrategy],
    ) -> None:
        self.database = database
        self.bus = bus
        self.ledger = ledger
        self.clock = clock
        self.policy = policy
        self.strategies = tuple(strategies)
        self.bell = Doorbell(bus)
        self.desk = Desk(database, ledger, self.bell)
        # Claims of one engine queue here rather than on connections of the pool.
        self.round_of_claims = asyncio.Lock()
        self.sealing = Sealing(bus, clock, timeout_s=policy.seal_timeout_s)

    async def topology(self, tx: Transaction) -> Topology:
        movers = await tx.find(Mover, limit=MOVERS_MAX)
        rates: Mapping[str, float] = {
            rate.pair: rate.rate_bps for rate in await tx.find(Rate, limit=RATES_MAX)
        }
        return topology(movers, rates, now=await tx.now(), silent_s=self.policy.mover_silent_s)


def admin_only(actor: Actor) -> None:
    if actor.role != Role.ADMIN:
        raise Refused(
            Code.FORBIDDEN,
            "only an administrator may see the movers",
            hint="ask with an administrator's key",
        )
