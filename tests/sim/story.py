"""One run: build in calm, let tenants work while everything breaks, heal, wait, check."""

import asyncio

import invariants
from clients import Operator
from installation import Installation, Seams
from tenants import Tenant

from entrepot_chassis.ports import DatabaseUnavailable, TransactionConflict, Unanswered
from entrepot_contracts.errors import Refused
from entrepot_testkit.memory_bus import BusDown
from entrepot_testkit.sim_world import Scenario, Unsettled, World

UNTIL_S = 20_000.0
TENANTS_S = 900.0  # virtual time for the tenants to get everything done after healing
QUIET_S = 600.0  # and then for the system to come to rest
LATE_S = 60.0  # longer than a redelivery: late repeats would show
EXPECTED = (Refused, Unanswered, DatabaseUnavailable, TransactionConflict, BusDown)


def story(seams: Seams | None = None) -> Scenario:
    async def scenario(world: World) -> None:
        await Story(world, seams or Seams()).run()

    return scenario


class Story:
    def __init__(self, world: World, seams: Seams) -> None:
        self.world = world
        self.installation = Installation(world, seams)
        self.random = world.fate.stream("story")

    async def run(self) -> None:
        self.installation.start()
        operator = Operator(self.installation)
        await operator.build()
        tenants = [Tenant(operator, name) for name in ("ann", "bob", "cid")]
        ann, bob, cid = tenants
        self.world.unleash()
        work = [ann.main_job(), bob.wrong_inputs(), cid.come_and_go()]
        tasks = [asyncio.ensure_future(one) for one in self.random.sample(work, len(work))]
        tasks.append(asyncio.ensure_future(self._second_mover()))
        await self.world.clock.sleep(self.random.uniform(5, 45))
        await self.world.heal()
        await self._finished(tasks)
        await self.world.settle(lambda: invariants.unfinished(self.installation), within_s=QUIET_S)
        await self.world.clock.sleep(LATE_S)
        self.world.check(expected=EXPECTED, may_park=invariants.is_quarantine)
        invariants.check(self.installation, tenants)

    async def _second_mover(self) -> None:
        """In some runs another mover joins, and in some of those one of the two goes for good."""
        if self.random.random() < 0.3:
            return
        await self.world.clock.sleep(self.random.uniform(0, 20))
        self.installation.add_mover("mover-2")
        if self.random.random() < 0.5:
            await self.world.clock.sleep(self.random.uniform(0, 10))
            leaver = self.world.processes[self.random.choice(("mover-1", "mover-2"))]
            leaver.restarts = False
            leaver.kill("gone for good")

    async def _finished(self, tasks: list["asyncio.Future[None]"]) -> None:
        done, pending = await asyncio.wait(
            tasks, timeout=TENANTS_S, return_when=asyncio.FIRST_EXCEPTION
        )
        for task in sorted(done, key=hash):
            task.result()
        if pending:
            complaint = invariants.unfinished(self.installation)
            raise Unsettled(f"tenants wait {TENANTS_S} s after healing: {complaint}")
