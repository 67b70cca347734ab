"""All or nothing at every statement, and one winner when commands race."""

import asyncio
from contextlib import asynccontextmanager

import msgspec
import pytest

from entrepot_contracts import registry as r
from entrepot_contracts import values as v
from entrepot_contracts.errors import Code, Refused
from store_registry import rows

GIB = 1 << 30


class Killed(BaseException):
    """The process is gone: nobody handles this."""


class DyingDatabase:
    """Dies at the n-th statement of all its transactions."""

    def __init__(self, database, statements):
        self._database = database
        self._left = statements

    @property
    def events(self):
        return self._database.events

    @asynccontextmanager
    async def transaction(self):
        async with self._database.transaction() as tx:
            yield DyingTransaction(tx, self)

    def statement(self):
        self._left -= 1
        if self._left < 0:
            raise Killed


class DyingTransaction:
    def __init__(self, tx, database):
        self._tx = tx
        self._database = database

    def __getattr__(self, name):
        self._database.statement()
        return getattr(self._tx, name)


async def commands(desk, house):
    template_id = await desk.template()
    volume_id = await desk.volume(house.zone_a)
    snapshot_id = await desk.snapshot(volume_id)
    return {
        "store": desk.add_bucket(name="s3-2", config={"bucket": "more"}),
        "template": desk.register(),
        "volume": desk.create_volume(zone_id=house.zone_a, template_id=template_id),
        "snapshot": desk.create_snapshot(volume_id),
        "delete-template": r.DeleteTemplate(
            actor=desk.user, template_id=template_id, job_id=desk.new()
        ),
        "delete-volume": r.DeleteVolume(actor=desk.user, volume_id=volume_id, job_id=desk.new()),
        "delete-snapshot": r.DeleteSnapshot(
            actor=desk.user, snapshot_id=snapshot_id, job_id=desk.new()
        ),
        "extract": r.ExtractTemplate(
            actor=desk.user, template_id=template_id, job_id=desk.new(), seal_to="k"
        ),
    }


KINDS = [
    *("store", "template", "volume", "snapshot"),
    *("delete-template", "delete-volume", "delete-snapshot", "extract"),
]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_crash_at_any_statement_of_a_command_leaves_nothing(memory, kind):
    house = await memory.furnish()
    command = (await commands(memory, house))[kind]
    sound = memory.registry
    before = await memory.dump()
    deaths = 0
    while True:
        memory.registry = msgspec.structs.replace(
            sound, database=DyingDatabase(sound.database, deaths)
        )
        try:
            await memory.ask(command)
        except Killed:
            # AddStore compares its details after the commit: then all of it is there.
            if kind == "store" and await memory.dump() != before:
                break
            assert await memory.dump() == before, f"half-made after {deaths} statements"
            deaths += 1
        else:
            break
    memory.registry = sound
    assert deaths > 5
    accepted = await memory.ask(command)
    assert accepted.job_id == command.job_id
    assert len(await memory.asks(command.job_id)) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_crash_at_any_statement_of_an_answer_leaves_the_job_as_it_was(memory, kind):
    house = await memory.furnish()
    command = (await commands(memory, house))[kind]
    await memory.ask(command)
    sound = memory.registry
    for ask in await memory.asks(command.job_id):
        before = await memory.dump()
        deaths = 0
        while True:
            dying = DyingDatabase(sound.database, deaths)

            async def apply(database=dying, ask=ask):
                from entrepot_chassis.ports import Delivered
                from entrepot_contracts.motion import TransferSucceeded
                from store_registry import consumer

                done = TransferSucceeded(
                    transfer_id=ask.transfer_id,
                    job_id=ask.job_id,
                    epoch=1,
                    result=memory.result(ask),
                )
                event = Delivered(subject="evt.test", msg_id=ask.transfer_id, message=done)
                async with database.transaction() as tx:
                    if await tx.first_sight("store-registry", event.msg_id):
                        await consumer.apply(tx, event)

            try:
                await apply()
            except Killed:
                assert await memory.dump() == before, f"half-made after {deaths} statements"
                deaths += 1
            else:
                break
        assert deaths > 3
    assert (await memory.settle(command.job_id)).state is v.JobState.SUCCEEDED


async def outcomes(desk, *commands):
    """Each command's reply or refusal, all at once."""

    async def one(command):
        try:
            return await desk.ask(command)
        except Refused as refused:
            return refused.problem

    return await asyncio.gather(*map(one, commands))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_command_delivered_four_times_at_once_is_accepted_each_time(desk, house, kind):
    """The later ones wait for the first one's locks and then meet its own job in the way."""
    command = (await commands(desk, house))[kind]
    first, *rest = await outcomes(desk, *[command] * 4)
    assert isinstance(first, r.Accepted), first
    assert rest == [first] * 3


async def test_the_same_command_many_times_at_once_is_one_job(desk, house):
    for command in (
        desk.register(),
        desk.create_volume(zone_id=house.zone_a, size_bytes=GIB),
        desk.add_bucket(name="s3-2", config={"bucket": "more"}),
    ):
        replies = await outcomes(desk, *[command] * 6)
        assert (
            replies == [r.Accepted(job_id=command.job_id, resource_id=replies[0].resource_id)] * 6
        )
        assert len(await desk.asks(command.job_id)) == 1


async def test_two_first_stores_of_different_providers_do_not_both_come_in(desk):
    await desk.learn()
    zone_id = await desk.zone("a")
    one, two = await outcomes(desk, desk.add_bucket(), desk.add_folder(zone_id))
    refused = [reply for reply in (one, two) if not isinstance(reply, r.Accepted)]
    assert [problem.code for problem in refused] == [Code.PROVIDER_MIXING]


async def test_a_template_is_read_or_deleted_never_both(desk, house):
    for _ in range(4):
        template_id = await desk.template()
        read, gone = await outcomes(
            desk,
            desk.create_volume(zone_id=house.zone_a, template_id=template_id),
            r.DeleteTemplate(actor=desk.user, template_id=template_id, job_id=desk.new()),
        )
        assert isinstance(read, r.Accepted) != isinstance(gone, r.Accepted), (read, gone)


async def test_a_store_is_used_or_removed_never_both(desk, house):
    used, gone = await outcomes(
        desk, desk.register(), r.DeleteStore(actor=desk.admin, store_id=house.bucket)
    )
    assert isinstance(used, r.Accepted) != isinstance(gone, r.Done), (used, gone)


async def test_a_volume_has_one_exclusive_job_at_a_time(desk, house):
    volume_id = await desk.volume(house.zone_a)
    replies = await outcomes(
        desk,
        *[desk.create_snapshot(volume_id) for _ in range(4)],
        r.DeleteVolume(actor=desk.user, volume_id=volume_id, job_id=desk.new()),
    )
    accepted = [reply for reply in replies if isinstance(reply, r.Accepted)]
    assert len(accepted) == 1, replies
    async with desk.registry.database.transaction() as tx:
        holds = await tx.find(rows.Hold, where={"resource_id": volume_id})
    assert [hold.job_id for hold in holds] == [accepted[0].job_id]


async def test_volumes_made_at_once_never_promise_a_pool_away_twice(desk, house):
    put = r.PutSetting(actor=desk.admin, name="primary-store.overprovisioning", value="1")
    await desk.ask(put)
    replies = await outcomes(
        desk, *[desk.create_volume(zone_id=house.zone_a, size_bytes=40 * GIB) for _ in range(4)]
    )
    accepted = [reply for reply in replies if isinstance(reply, r.Accepted)]
    assert len(accepted) == 2, "the pool has 90 GiB"
