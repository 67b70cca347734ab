"""The service on real servers: over the bus, as a process, and its views."""

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack

import aiohttp
import asyncpg
import msgspec
import pytest

from entrepot_chassis import bus, outbox, postgres
from entrepot_chassis.ports import OutboxEvent
from entrepot_contracts import motion as m
from entrepot_contracts import registry as r
from entrepot_contracts import values as v
from entrepot_contracts.calls import ask
from entrepot_contracts.catalog import event_of
from entrepot_contracts.errors import Code, Refused
from store_registry.app import serving
from store_registry.settings import Policy

SCHEMA = "store_registry"


class Engine:
    """Motion-engine, played by the test: answers every request well, on the real stream."""

    def __init__(self, desk, client):
        self._desk = desk
        self._client = client

    async def say(self, message, msg_id):
        subject = event_of(type(message)).subject_for(message)
        event = OutboxEvent(msg_id=msg_id, subject=subject, data=msgspec.json.encode(message))
        await self._client.publish_events([event])

    async def hear(self, batch):
        for event in batch:
            work = event.message.ask
            done = m.TransferSucceeded(
                transfer_id=work.transfer_id,
                job_id=work.job_id,
                epoch=1,
                result=self._desk.result(work),
            )
            await self.say(done, f"motion-engine:{work.transfer_id}")


async def nothing(*_):
    raise AssertionError("an undecodable event")


@pytest.fixture
async def running(make_real_desk, own_nats):
    """The registry's `serving` with its relay, the played engine, and a client."""
    async with AsyncExitStack() as stack:
        desk = await make_real_desk(stack)
        server = await stack.enter_async_context(bus.connect(own_nats.url, name="store-registry"))
        client = await stack.enter_async_context(bus.connect(own_nats.url, name="client"))
        engine = Engine(desk, client)
        await client.stream_mark()  # makes the stream
        registry = desk.registry
        await stack.enter_async_context(
            outbox.relaying(registry.database, server, clock=registry.clock)
        )
        await stack.enter_async_context(serving(registry, server, Policy()))
        await stack.enter_async_context(
            client.consume(
                durable="motion-engine",
                subjects=["evt.registry.motion.*.requested"],
                messages=[r.MotionRequested],
                handler=engine.hear,
                undecodable=nothing,
            )
        )
        yield desk, client, engine


async def _until(look, satisfied):
    async with asyncio.timeout(20):
        while not satisfied(await look()):  # noqa: ASYNC110 - over the bus nothing rings
            await asyncio.sleep(0.02)


async def wait(client, desk, accepted):
    job = await ask(
        client,
        r.GetJob(actor=desk.admin, job_id=accepted.job_id, wait_s=20),
        timeout_s=25,
    )
    assert job.state is v.JobState.SUCCEEDED, job
    return job


async def test_the_whole_life_goes_over_the_bus(running, house_facts):
    desk, client, engine = running
    mover = m.MoverRegistered(mover_id=desk.new(), zone_ids=(), providers=house_facts)
    await engine.say(mover, "motion-engine:mover:1")
    zone = await ask(client, r.CreateZone(actor=desk.admin, zone_id=desk.new(), name="a"))
    await _until(lambda: ask(client, r.ListProviders(actor=desk.admin)), lambda p: p.items)
    await wait(client, desk, await ask(client, desk.add_bucket()))
    pool = desk.add_folder(zone.zone_id, role=v.StoreRole.PRIMARY)
    await wait(client, desk, await ask(client, pool))
    template = desk.register()
    await wait(client, desk, await ask(client, template))
    volume = desk.create_volume(zone_id=zone.zone_id, template_id=template.template_id)
    await wait(client, desk, await ask(client, volume))
    snapshot = desk.create_snapshot(volume.volume_id)
    await wait(client, desk, await ask(client, snapshot))
    view = await ask(client, r.GetSnapshot(actor=desk.user, snapshot_id=snapshot.snapshot_id))
    assert view.state is v.ResourceState.READY
    with pytest.raises(Refused) as caught:
        await ask(client, r.GetVolume(actor=desk.other, volume_id=volume.volume_id))
    assert caught.value.problem.code is Code.NOT_FOUND


async def test_the_process_migrates_serves_and_ends_when_told(
    own_nats, database_url, tmp_path, unused_tcp_port
):
    env = {
        **os.environ,
        "ENTREPOT_STORE_REGISTRY_NATS_URL": own_nats.url,
        "ENTREPOT_STORE_REGISTRY_DATABASE_URL": database_url,
        "ENTREPOT_STORE_REGISTRY_SEALING_KEY_FILE": str(tmp_path / "sealing.key"),
        "ENTREPOT_STORE_REGISTRY_AT_REST_KEY_FILE": str(tmp_path / "at-rest.key"),
        "ENTREPOT_STORE_REGISTRY_HEALTH_PORT": str(unused_tcp_port),
    }
    argv = [sys.executable, "-m", "store_registry"]
    for _ in range(2):  # the second time there is nothing left to do
        migrate = await asyncio.create_subprocess_exec(*argv, "migrate", env=env)
        assert await migrate.wait() == 0
    process = await asyncio.create_subprocess_exec(*argv, env=env)
    try:
        await _ready(unused_tcp_port)
        async with bus.connect(own_nats.url, name="client") as client:
            key = await ask(client, r.GetSealingKey())
            assert key.public_key
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (tmp_path / "at-rest.key").stat().st_mode & 0o077 == 0


async def _ready(port):
    async with asyncio.timeout(30), aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(f"http://127.0.0.1:{port}/readyz") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.05)


async def test_missing_settings_are_all_named_and_the_exit_code_is_78():
    env = {k: x for k, x in os.environ.items() if not k.startswith("ENTREPOT_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "store_registry"), env=env, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    assert process.returncode == 78
    for name in ("NATS_URL", "DATABASE_URL", "SEALING_KEY_FILE", "AT_REST_KEY_FILE"):
        assert f"ENTREPOT_STORE_REGISTRY_{name}".encode() in said


async def test_the_views_show_templates_and_isos_with_their_copies(make_real_desk):
    async with AsyncExitStack() as stack:
        desk = await make_real_desk(stack)
        house = await desk.furnish()
        template_id = await desk.template()
        iso_id = await desk.template(format=v.ImageFormat.ISO)
        connection = await asyncpg.connect(desk.url, server_settings={"search_path": SCHEMA})
        try:
            (template,) = await connection.fetch("SELECT * FROM template_view")
            (iso,) = await connection.fetch("SELECT * FROM iso_view")
        finally:
            await connection.close()
    assert (template["template_id"], template["store_id"]) == (template_id, house.bucket)
    assert (template["copy_state"], template["store_name"]) == ("Ready", "s3")
    assert (iso["iso_id"], iso["copy_state"]) == (iso_id, "Ready")


async def test_the_database_itself_refuses_to_change_an_ended_job(make_real_desk):
    async with AsyncExitStack() as stack:
        desk = await make_real_desk(stack)
        await desk.furnish()
        command = desk.register()
        await desk.done(command)
        connection = await asyncpg.connect(desk.url, server_settings={"search_path": SCHEMA})
        try:
            with pytest.raises(asyncpg.RaiseError, match="has ended"):
                await connection.execute(
                    "UPDATE job SET state = 'running', finished_at = NULL WHERE job_id = $1",
                    command.job_id,
                )
            with pytest.raises(asyncpg.CheckViolationError):
                await connection.execute("UPDATE template_store_ref SET digest_root = NULL")
        finally:
            await connection.close()


def test_every_row_struct_fits_its_table_column_by_column(database_url):
    """A field without a column, or a column without a field, is found here and not at night."""
    from store_registry import rows

    async def check():
        await postgres.Migrations(package="store_registry", schema=SCHEMA).apply(database_url)
        connection = await asyncpg.connect(database_url)
        try:
            records = await connection.fetch(
                "SELECT table_name, column_name FROM information_schema.columns"
                " WHERE table_schema = $1",
                SCHEMA,
            )
        finally:
            await connection.close()
        return {(record["table_name"], record["column_name"]) for record in records}

    there = asyncio.run(check())
    kinds = [kind for kind in vars(rows).values() if hasattr(kind, "TABLE")]
    assert len(kinds) == 16
    for kind in kinds:
        table = kind.TABLE.name
        columns = {column for name, column in there if name == table}
        assert columns == set(kind.__struct_fields__), table
