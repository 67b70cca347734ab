"""The harness proves itself on a toy: a shop and a packer on the real outbox and inbox.

What the real simulation (tests/sim) must catch is planted here first, so a checker that has gone
blind is noticed without the services.
"""

from contextlib import AsyncExitStack
from typing import ClassVar

import pytest
from msgspec import Struct

from entrepot_chassis import inbox, outbox
from entrepot_chassis.ports import DatabaseUnavailable, Delivered, Row, Table, Unanswered
from entrepot_testkit import planted
from entrepot_testkit.fate import CALM, Odds
from entrepot_testkit.memory_bus import BusDown
from entrepot_testkit.sim_world import World, caught_by, judge

ORDERS = 8
UNTIL_S = 4000.0
EXPECTED = (DatabaseUnavailable, BusDown)


class PlaceOrder(Struct, frozen=True, kw_only=True, tag="toy.order.place.v1"):
    order_id: str
    count: int


class Accepted(Struct, frozen=True, kw_only=True, tag="toy.accepted.v1"):
    order_id: str


class Trouble(Struct, frozen=True, kw_only=True, tag="toy.trouble.v1"):
    why: str


class Placed(Struct, frozen=True, kw_only=True, tag="toy.order.placed.v1"):
    order_id: str
    count: int


class Packed(Struct, frozen=True, kw_only=True, tag="toy.order.packed.v1"):
    order_id: str


class Order(Row, kw_only=True):
    TABLE: ClassVar[Table] = Table(name="order", key="order_id")
    order_id: str
    count: int
    packed: int = 0  # how often we were told


class Stock(Row, kw_only=True):
    TABLE: ClassVar[Table] = Table(name="stock", key="stock_id")
    stock_id: str
    taken: int = 0


def same(port):
    return port


class Toy:
    """`bus` and `database` are seams: what the processes get is what these make of the fakes."""

    def __init__(self, world: World, *, bus=same, database=same) -> None:
        self.world = world
        self.wrap_bus, self.wrap_database = bus, database
        self.shop, self.packer = world.database("shop"), world.database("packer")
        self.accepted: list[str] = []

    def ports(self, store, life):
        return (
            self.wrap_database(store.connection(life)),
            self.wrap_bus(self.world.broker.connection(life)),
        )

    async def run_shop(self, life) -> None:
        database, bus = self.ports(self.shop, life)

        async def place(order: PlaceOrder) -> Accepted:
            async with database.transaction() as tx:
                if await tx.add(Order(order_id=order.order_id, count=order.count)):
                    placed = Placed(order_id=order.order_id, count=order.count)
                    await tx.emit(f"order:{order.order_id}", "evt.shop.order.x.placed", placed)
            return Accepted(order_id=order.order_id)

        async def packed(tx, event: Delivered) -> None:
            order = await tx.get(Order, event.message.order_id, lock=True)
            order.packed += 1
            await tx.put(order)

        async with AsyncExitStack() as stack:
            await stack.enter_async_context(outbox.relaying(database, bus, clock=self.world.clock))
            await stack.enter_async_context(
                bus.answer(
                    "cmd.shop.order.place",
                    PlaceOrder,
                    place,
                    queue="shop",
                    failure=lambda error: Trouble(why=repr(error)),
                )
            )
            await self.consuming(stack, bus, database, "shop", "evt.packer.>", Packed, packed)
            await self.world.clock.sleep(10**6)

    async def run_packer(self, life) -> None:
        database, bus = self.ports(self.packer, life)

        async def placed(tx, event: Delivered) -> None:
            stock = await tx.get(Stock, "all", lock=True) or Stock(stock_id="all")
            stock.taken += event.message.count
            await tx.put(stock)
            packed = Packed(order_id=event.message.order_id)
            await tx.emit(f"order:{packed.order_id}", "evt.packer.order.x.packed", packed)

        async with AsyncExitStack() as stack:
            await stack.enter_async_context(outbox.relaying(database, bus, clock=self.world.clock))
            await self.consuming(stack, bus, database, "packer", "evt.shop.>", Placed, placed)
            await self.world.clock.sleep(10**6)

    async def consuming(self, stack, bus, database, name, subject, message, apply) -> None:  # noqa: PLR0917
        await stack.enter_async_context(
            bus.consume(
                durable=name,
                subjects=[subject],
                messages=[message],
                handler=inbox.once(database, consumer=name, apply=apply),
                undecodable=inbox.parking(database, consumer=name),
            )
        )

    async def buy(self) -> None:
        bus, ids = self.world.broker.connection(), self.world.ids("client")
        for number in range(ORDERS):
            order = PlaceOrder(order_id=ids.new(), count=number + 1)
            answer: object = None
            while not isinstance(answer, Accepted):
                try:
                    answer = await bus.request(
                        "cmd.shop.order.place", order, reply=Accepted | Trouble, timeout_s=2
                    )
                except Unanswered:
                    continue
            self.accepted.append(order.order_id)
            await self.world.clock.sleep(self.world.fate.about("client", 1))

    def unfinished(self) -> str | None:
        orders = {order.order_id: order for order in self.shop.rows(Order)}
        missing = [order_id for order_id in self.accepted if order_id not in orders]
        assert not missing, f"accepted and lost: {missing}"
        waiting = [order_id for order_id, order in orders.items() if not order.packed]
        return f"orders never packed: {waiting}" if waiting else self.world.unpublished()

    async def scenario(self) -> None:
        self.world.process("shop", self.run_shop)
        for name in ("packer-1", "packer-2"):
            self.world.process(name, self.run_packer)
        self.world.unleash()
        await self.buy()
        await self.world.heal()
        await self.world.settle(self.unfinished, within_s=300)
        await self.world.clock.sleep(120)  # late repeats would show now
        self.world.check(expected=EXPECTED)
        taken = [stock.taken for stock in self.packer.rows(Stock)]
        assert taken == [ORDERS * (ORDERS + 1) // 2], f"taken {taken}"
        assert [order.packed for order in self.shop.rows(Order)] == [1] * ORDERS


def toy(**seams):
    async def scenario(world: World) -> None:
        await Toy(world, **seams).scenario()

    return scenario


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_the_toy_holds_under_every_fault(first):
    for seed in range(first, first + 20):
        judge(toy(), seed, until_s=UNTIL_S)


def test_a_seed_takes_the_same_steps_twice():
    for seed in range(8):
        assert judge(toy(), seed, until_s=UNTIL_S) == judge(toy(), seed, until_s=UNTIL_S)


def test_a_calm_world_meets_no_fault_and_ends_soon():
    verdict = judge(toy(), 1, until_s=UNTIL_S, odds=CALM)
    assert verdict.struck == {}


def test_every_fault_strikes_somewhere():
    struck: set[str] = set()
    for seed in range(60):
        struck |= set(judge(toy(), seed, until_s=UNTIL_S).struck)
    assert struck >= set(Odds.__struct_fields__) - {
        "delay_s_max",
        "delay_long_s",
        "crash_every_steps",
        "pause_every_s",
        "wipe_every_s",
        "store_fails",
        "store_unsaid",
        "crash_at_effect",
        "pause_at_effect",
        "write_rots",
    } | {"crash", "wipe"}  # fmt: skip


BUGS = {
    "acks before commit": {"bus": planted.AcksBeforeCommit},
    "no repair after a wipe": {"bus": planted.BlindToWipes},
    "marks before publishing": {"database": planted.MarksBeforePublishing},
    "no inbox": {"database": planted.ForgetsItsInbox},
    "event outside the transaction": {"database": planted.EmitsAfterCommit},
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught(bug, capsys):
    caught, tried = caught_by(toy(**BUGS[bug]), range(60), until_s=UNTIL_S, enough=3)
    with capsys.disabled():
        print(f"\n{bug}: caught by {len(caught)} of {tried} seeds", end="")
    assert caught, f"{bug} was not caught by {tried} seeds"


def test_a_failing_seed_tells_its_options_and_its_replay_line():
    bug = BUGS["no inbox"]
    (seed, *_), _tried = caught_by(toy(**bug), range(60), until_s=UNTIL_S, enough=1)
    with pytest.raises(Exception) as caught:
        judge(toy(**bug), seed, until_s=UNTIL_S, replay="pytest here --seed {seed}")
    notes = "\n".join(caught.value.__notes__)
    assert "options: " in notes
    assert f"replay: pytest here --seed {seed}" in notes
