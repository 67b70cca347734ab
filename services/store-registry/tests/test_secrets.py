"""A canary in every secret field never shows in a reply, an event, a row or a log line."""

import msgspec
import structlog

from entrepot_chassis.seal import KeyPair
from entrepot_contracts import registry as r
from entrepot_contracts import values as v


async def test_credentials_show_nowhere(desk, house, canary):
    await desk.template()
    replies = [
        await desk.ask(r.ListStores(actor=desk.admin, role=v.StoreRole.IMAGE)),
        await desk.ask(r.ListJobs(actor=desk.admin)),
        await desk.ask(r.ListTemplates(actor=desk.admin)),
        await desk.ask(
            r.SealCredentials(store_ids=(house.bucket,), recipient=KeyPair.new().public_key)
        ),
        await desk.refused(desk.add_bucket()),
        await desk.refused(desk.add_bucket(name="x", config={"access_key": 5, "bucket": "b"})),
    ]
    for reply in replies:
        assert canary.encode() not in msgspec.json.encode(reply)
    dump = await desk.dump()
    assert house.bucket.encode() in dump, "the dump sees the rows"
    assert canary.encode() not in dump


async def test_credentials_are_forgotten_with_a_failed_store(desk, canary):
    await desk.learn()
    command = desk.add_bucket()
    await desk.ask(command)
    (ask,) = await desk.asks(command.job_id)
    assert canary.encode() not in msgspec.json.encode(ask)
    await desk.fail(ask)
    assert canary.encode() not in await desk.dump()


async def test_logs_say_which_job_and_no_secret(memory, canary):
    with structlog.testing.capture_logs() as lines:
        await memory.furnish()
        command = memory.register(query=memory.sealed(f"sig={canary}"))
        clear = memory.register(url=f"https://x.example.org/a?sig={canary}")
        assert canary not in str(await memory.refused(clear))
        await memory.ask(command)
        (ask,) = await memory.asks(command.job_id)
        await memory.fail(ask)
        await memory.settle(command.job_id)
    assert any(line.get("job_id") == command.job_id for line in lines)
    assert canary not in str(lines)
