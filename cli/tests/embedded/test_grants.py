"""NATS grants of the embedded stack, asked of a real nats-server."""

import asyncio
import socket
from contextlib import asynccontextmanager

import nats
import pytest

from entrepot_cli.embedded import grants, nkeys
from entrepot_cli.embedded.nats_server import NatsServer
from entrepot_contracts import catalog

ALL = (*grants.SERVICES, grants.MOVER, grants.ADMIN)


@pytest.fixture(scope="module")
def seeds():
    return {name: nkeys.new_seed() for name in ALL}


@pytest.fixture(scope="module")
def server(tmp_path_factory, seeds):
    public = {name: nkeys.public_key(seed) for name, seed in seeds.items()}
    server = NatsServer(
        tmp_path_factory.mktemp("nats"),
        extra_config=grants.authorization(public),
        die_with_parent=True,
    )
    server.start()
    yield server
    server.kill()


@asynccontextmanager
async def connected(server, seeds, name):
    refused = []

    async def note(error):
        refused.append(str(error))

    client = await nats.connect(
        server.url,
        nkeys_seed_str=seeds[name],
        inbox_prefix=f"_INBOX_{name}".encode(),
        error_cb=note,
        allow_reconnect=False,
        connect_timeout=5,
    )
    client.refused = refused
    try:
        yield client
    finally:
        await client.close()


async def settled(client):
    """The client sends a flush's PING ahead of what its flusher task still holds: give it a turn."""
    await asyncio.sleep(0.05)
    await client.flush()


async def refusals(client):
    """What the server said about everything sent so far."""
    await settled(client)
    return [text.lower() for text in client.refused if "permissions violation" in text.lower()]


def test_a_seed_and_its_public_key_are_what_the_client_library_makes_of_them():
    import nkeys as library

    seed = nkeys.new_seed()
    pair = library.from_seed(bytearray(seed.encode()))
    assert pair.public_key.decode() == nkeys.public_key(seed)


def test_nobody_enters_without_a_key(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(b'CONNECT {"verbose":false}\r\nPING\r\n')
        said = b""
        while chunk := connection.recv(4096):
            said += chunk
    assert b"Authorization Violation" in said
    assert b"PONG" not in said


@pytest.mark.parametrize("name", (*grants.SERVICES, grants.MOVER))
async def test_each_may_do_all_that_the_catalogue_gives_it(server, seeds, name):
    async with connected(server, seeds, name) as client:
        for entry in catalog.commands_of_owner(name):
            await client.subscribe(entry.subject, queue=name)
        for message in catalog.HEARS.get(name, ()):
            await client.subscribe(catalog.telemetry_of(message).subject)
        for message in catalog.WATCHES.get(name, ()):
            await client.subscribe(catalog.event_of(message).pattern)
        for message in catalog.WATCHES.get(name, ()):
            await client.subscribe(catalog.event_of(message).pattern)
        for message in catalog.ASKS[name]:
            await client.publish(catalog.command_of(message).subject, b"")
        for entry in catalog.EVENTS:
            if entry.owner == name:
                await client.publish(entry.subject.replace("{id}", "x"), b"")
        assert await refusals(client) == []


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("api-gateway", "cmd.registry.credentials.seal"),
        ("api-gateway", "cmd.motion.claim"),
        ("api-gateway", "evt.registry.job.x.changed"),
        ("store-registry", "evt.motion.transfer.x.succeeded"),
        ("motion-engine", "evt.registry.motion.x.requested"),
        ("mover", "cmd.registry.credentials.seal"),
        ("mover", "evt.motion.transfer.x.succeeded"),
        ("cache-manager", "cmd.registry.store.add"),
        ("autoscaler", "$JS.API.STREAM.PURGE.EVT"),
        ("store-registry", "$JS.API.STREAM.DELETE.EVT"),
        ("store-registry", "$JS.API.CONSUMER.DELETE.EVT.store-registry"),
        ("store-registry", "$JS.API.CONSUMER.MSG.NEXT.EVT.motion-engine"),
    ],
)
async def test_what_is_not_granted_may_not_be_published(server, seeds, name, subject):
    async with connected(server, seeds, name) as client:
        await client.publish(subject, b"{}")
        assert len(await refusals(client)) == 1


@pytest.mark.parametrize(
    ("name", "subject", "queue"),
    [
        ("mover", "cmd.registry.template.register", ""),
        ("mover", "evt.>", ""),
        ("api-gateway", "cmd.registry.template.register", "store-registry"),
        ("store-registry", "cmd.registry.template.register", ""),  # outside of its own group
        ("mover", "_INBOX_api-gateway.>", ""),
        ("admin", "cmd.>", ""),
    ],
)
async def test_what_is_not_granted_may_not_be_heard(server, seeds, name, subject, queue):
    async with connected(server, seeds, name) as client:
        await client.subscribe(subject, queue=queue)
        assert len(await refusals(client)) == 1


async def test_an_owner_may_answer_whoever_asked_and_nobody_else(server, seeds):
    async with (
        connected(server, seeds, "store-registry") as registry,
        connected(server, seeds, "api-gateway") as gateway,
    ):

        async def answer(message):
            await message.respond(b"yes")
            await registry.publish("_INBOX_motion-engine.stray", b"unasked")

        await registry.subscribe("cmd.registry.zone.list", queue="store-registry", cb=answer)
        await settled(registry)
        reply = await gateway.request("cmd.registry.zone.list", b"{}", timeout=5)
        assert reply.data == b"yes"
        assert len(await refusals(registry)) == 1
