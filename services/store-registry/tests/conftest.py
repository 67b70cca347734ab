"""The registry's desk: handlers over a database (memory or real), and the test as motion-engine."""

import random
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import msgspec
import pytest
from msgspec import Struct

from entrepot_chassis import inbox, postgres
from entrepot_chassis.clock import SystemClock, SystemIds
from entrepot_chassis.ports import Delivered
from entrepot_chassis.seal import AtRest, KeyPair, seal
from entrepot_contracts import motion as m
from entrepot_contracts import registry as r
from entrepot_contracts import values as v
from entrepot_contracts.errors import Code, Problem, Refused
from entrepot_plugin.plugin import StorePlugin
from entrepot_plugin.secret import Secret
from entrepot_plugin.traits import StoreTraits
from entrepot_testkit.memory_database import MemoryDatabase
from entrepot_testkit.memory_transaction import Unique
from store_registry import consumer
from store_registry.answering import answer
from store_registry.app import SERVICE
from store_registry.keys import ServiceKeys
from store_registry.registry import Registry

SCHEMA = "store_registry"

GIB = 1 << 30
CANARY = "canary-4f1c2d-secret"
ROOT = "ab" * 32


class BucketConfig(Struct, frozen=True, kw_only=True):
    endpoint: str
    bucket: str
    access_key: Secret
    secret_key: Secret
    prefix: str = ""
    attempts: int = 3


class FolderConfig(Struct, frozen=True, kw_only=True):
    path: str
    host: str = "local"
    format: v.ImageFormat = v.ImageFormat.QCOW2


def fact(name: str, config: type[Struct], traits: StoreTraits) -> m.ProviderFact:
    plugin = StorePlugin(name=name, version="1", config=config, traits=traits)
    return m.ProviderFact(
        name=name,
        version="1",
        roles=traits.roles,
        scopes=traits.scopes,
        traits=msgspec.to_builtins(traits),
        config_schema=plugin.schema(),
    )


BUCKET = fact(
    "bucket",
    BucketConfig,
    StoreTraits(scopes=(v.Scope.REGION,), roles=(v.StoreRole.IMAGE,), shares_links=True),
)
FOLDER = fact(
    "folder",
    FolderConfig,
    StoreTraits(
        scopes=(v.Scope.ZONE,),
        roles=(v.StoreRole.IMAGE, v.StoreRole.PRIMARY),
        volume_formats=("qcow2", "raw"),
        reports_capacity=True,
    ),
)
GOOD_PROBE = m.Probed(
    report=v.ProbeReport(
        checks=(v.ProbeCheck(name="write", ok=True),), capacity_bytes=100 * GIB, free_bytes=90 * GIB
    )
)


# The unique indexes of migrations/0001, for the memory database.
LIVE_STORES = [
    Unique(columns=(column,), where=lambda row: row.state not in {"refused", "removed"})
    for column in ("name", "place")
]
UNIQUE = {
    "zone": [Unique(columns=("name",))],
    "image_store": LIVE_STORES,
    "storage_pool": LIVE_STORES,
    "template_store_ref": [Unique(columns=("template_id", "store_id"))],
    "snapshot_store_ref": [Unique(columns=("snapshot_id", "store_id"))],
    "volume_store_ref": [Unique(columns=("volume_id", "store_id"))],
    "hold": [Unique(columns=("resource_id",), where=lambda row: row.exclusive)],
}


class Desk:
    """What tests say and see. `ask` goes the way of the bus, without the bus."""

    def __init__(self, registry: Registry, dump: Any) -> None:
        self.registry = registry
        self.dump = dump
        self.url = ""
        self.ids = SystemIds()
        self.admin = v.Actor(account_id=self.ids.new(), role=v.Role.ADMIN)
        self.user = v.Actor(account_id=self.ids.new(), role=v.Role.USER)
        self.other = v.Actor(account_id=self.ids.new(), role=v.Role.USER)
        self.once = inbox.once(registry.database, consumer=consumer.CONSUMER, apply=consumer.apply)
        self.hear = consumer.waking(registry, self.once)
        self._deliveries = 0

    def new(self) -> str:
        return self.ids.new()

    async def ask(self, command: Struct) -> Any:
        return await answer(self.registry, command)

    async def refused(self, command: Struct) -> Problem:
        with pytest.raises(Refused) as caught:
            await self.ask(command)
        return caught.value.problem

    async def tell(self, message: Struct, msg_id: str | None = None) -> None:
        self._deliveries += 1
        event = Delivered(
            subject="evt.test", msg_id=msg_id or f"motion:{self._deliveries}", message=message
        )
        await self.hear([event])

    # --- the outbox -----------------------------------------------------------------------------

    async def events(self, kind: type[Struct]) -> list[Any]:
        tag = kind.__struct_config__.tag
        found = []
        for _, event in await self.registry.database.events.unpublished(10_000):
            if msgspec.json.decode(event.data).get("type") == tag:
                found.append(msgspec.json.decode(event.data, type=kind))
        return found

    async def asks(self, job_id: str) -> list[m.TransferAsk]:
        """What motion-engine was asked for this job, each once, in order."""
        seen = {e.ask.transfer_id: e.ask for e in await self.events(r.MotionRequested)}
        return [ask for ask in seen.values() if ask.job_id == job_id]

    # --- the test as motion-engine ----------------------------------------------------------------

    async def succeed(self, ask: m.TransferAsk, result: Any = None, *, epoch: int = 1) -> None:
        await self.tell(
            m.TransferSucceeded(
                transfer_id=ask.transfer_id,
                job_id=ask.job_id,
                epoch=epoch,
                result=self.result(ask, epoch) if result is None else result,
            )
        )

    async def fail(self, ask: m.TransferAsk, code: Code = Code.STORE_ERROR, **facts: str) -> None:
        await self.tell(
            m.TransferFailed(
                transfer_id=ask.transfer_id,
                job_id=ask.job_id,
                state=m.TransferState.FAILED,
                problem=Problem(code=code, message="it broke", facts=facts),
            )
        )

    def result(self, ask: m.TransferAsk, epoch: int = 1, root: str = ROOT) -> Any:
        """What a good mover would answer."""
        digest = v.ContentDigest(root=root, size_bytes=GIB)
        match ask.work:
            case m.ProbeWork():
                return GOOD_PROBE
            case m.CopyWork(target=m.ObjectEnd() as target, source=source):
                checksum = source.checksum if isinstance(source, m.UrlEnd) else None
                stored = v.StoredObject(
                    key=f"{target.prefix}{ask.transfer_id}.{epoch}/data",
                    digest=digest,
                    stored_bytes=GIB // 2,
                    format=getattr(source, "format", v.ImageFormat.QCOW2),
                    virtual_size_bytes=4 * GIB,
                    checksum=checksum,
                )
                return m.Copied(
                    digest=digest,
                    virtual_size_bytes=4 * GIB,
                    bytes_read=GIB,
                    bytes_sent=GIB // 2,
                    stored=stored,
                )
            case m.CopyWork(target=m.VolumeEnd() as target):
                return m.Copied(
                    digest=digest,
                    virtual_size_bytes=4 * GIB,
                    bytes_read=GIB,
                    bytes_sent=GIB,
                    path=f"/pool/{target.volume_id}",
                )
            case m.CreateVolumeWork(volume_id=volume_id, size_bytes=size_bytes):
                return m.VolumeMade(path=f"/pool/{volume_id}", size_bytes=size_bytes)
            case m.SnapshotWork():
                return m.Pinned(size_bytes=4 * GIB)
            case m.LinkWork(seal_to=seal_to):
                return m.Linked(link=v.Sealed(recipient=seal_to, box=b"a link"))
            case _:
                return m.Deleted(count=1)

    async def settle(self, job_id: str) -> r.JobView:
        """Answer every open transfer of the job well, until it ends."""
        for _ in range(10):
            job = await self.job(job_id)
            if job.state is not v.JobState.RUNNING:
                return job
            async with self.registry.database.transaction() as tx:
                row = await tx.get(consumer.Job, job_id)
            for ask in row.saga.open_asks:
                await self.succeed(ask)
        raise AssertionError(f"job {job_id} does not end")

    async def done(self, command: Struct) -> r.JobView:
        accepted = await self.ask(command)
        job = await self.settle(accepted.job_id)
        assert job.state is v.JobState.SUCCEEDED, job.error
        return job

    async def job(self, job_id: str) -> r.JobView:
        return await self.ask(r.GetJob(actor=self.admin, job_id=job_id))

    # --- a furnished house --------------------------------------------------------------------------

    async def learn(self, *facts: m.ProviderFact) -> None:
        await self.tell(
            m.MoverRegistered(mover_id=self.new(), zone_ids=(), providers=facts or (BUCKET, FOLDER))
        )

    async def zone(self, name: str) -> str:
        zone_id = self.new()
        await self.ask(r.CreateZone(actor=self.admin, zone_id=zone_id, name=name))
        return zone_id

    async def mixing(self, value: str = "any") -> None:
        await self.ask(r.PutSetting(actor=self.admin, name="image-store.mixing", value=value))

    def details(self, config: dict[str, Any]) -> v.Sealed:
        key = self.registry.keys.public_key
        return v.Sealed(recipient=key, box=seal(key, msgspec.json.encode(config)))

    def bucket_config(self, **changes: Any) -> dict[str, Any]:
        return {
            "endpoint": "https://s3.example.org",
            "bucket": "images",
            "access_key": "AK-" + CANARY,
            "secret_key": "SK-" + CANARY,
            **changes,
        }

    def add_bucket(self, **changes: Any) -> r.AddStore:
        config = self.bucket_config(**changes.pop("config", {}))
        fields: dict[str, Any] = {
            "actor": self.admin,
            "store_id": self.new(),
            "job_id": self.new(),
            "role": v.StoreRole.IMAGE,
            "name": "s3",
            "provider": "bucket",
            "details": self.details(config),
        }
        return r.AddStore(**{**fields, **changes})

    def add_folder(self, zone_id: str | None, **changes: Any) -> r.AddStore:
        name = changes.get("name", "nfs")
        fields: dict[str, Any] = {
            "actor": self.admin,
            "store_id": self.new(),
            "job_id": self.new(),
            "role": v.StoreRole.IMAGE,
            "name": name,
            "provider": "folder",
            "zone_id": zone_id,
            "details": self.details(changes.pop("config", {"path": f"/srv/{name}"})),
        }
        return r.AddStore(**{**fields, **changes})

    async def store(self, command: r.AddStore) -> str:
        await self.done(command)
        return command.store_id

    def register(self, **changes: Any) -> r.RegisterTemplate:
        fields: dict[str, Any] = {
            "actor": self.user,
            "template_id": self.new(),
            "job_id": self.new(),
            "name": "debian",
            "url": "https://images.example.org/debian.qcow2",
            "format": v.ImageFormat.QCOW2,
        }
        return r.RegisterTemplate(**{**fields, **changes})

    def sealed(self, text: str) -> v.Sealed:
        key = self.registry.keys.public_key
        return v.Sealed(recipient=key, box=seal(key, text.encode()))

    async def template(self, **changes: Any) -> str:
        command = self.register(**changes)
        await self.done(command)
        return command.template_id

    def create_volume(self, **changes: Any) -> r.CreateVolume:
        fields: dict[str, Any] = {
            "actor": self.user,
            "volume_id": self.new(),
            "job_id": self.new(),
            "name": "disk",
        }
        return r.CreateVolume(**{**fields, **changes})

    async def volume(self, zone_id: str, **changes: Any) -> str:
        command = self.create_volume(
            zone_id=zone_id,
            **({"size_bytes": GIB} | changes if "template_id" not in changes else changes),
        )
        await self.done(command)
        return command.volume_id

    def create_snapshot(self, volume_id: str, **changes: Any) -> r.CreateSnapshot:
        fields: dict[str, Any] = {
            "actor": self.user,
            "snapshot_id": self.new(),
            "job_id": self.new(),
            "volume_id": volume_id,
            "name": "nightly",
        }
        return r.CreateSnapshot(**{**fields, **changes})

    async def snapshot(self, volume_id: str, **changes: Any) -> str:
        command = self.create_snapshot(volume_id, **changes)
        await self.done(command)
        return command.snapshot_id

    async def furnish(self) -> "House":
        """Two zones, a region-wide bucket, a zone-wide folder in zone a, a pool in each zone."""
        await self.learn()
        await self.mixing()
        zone_a, zone_b = await self.zone("a"), await self.zone("b")
        pool = {"role": v.StoreRole.PRIMARY}
        return House(
            zone_a=zone_a,
            zone_b=zone_b,
            bucket=await self.store(self.add_bucket()),
            folder=await self.store(self.add_folder(zone_a, name="nfs-a")),
            pool_a=await self.store(self.add_folder(zone_a, name="pool-a", **pool)),
            pool_b=await self.store(self.add_folder(zone_b, name="pool-b", **pool)),
        )


class House(Struct, frozen=True, kw_only=True):
    zone_a: str
    zone_b: str
    bucket: str
    folder: str
    pool_a: str
    pool_b: str


def _keys() -> ServiceKeys:
    return ServiceKeys(KeyPair.new(), AtRest(random.Random(7).randbytes(32)))


def make_memory_desk(clock: Any = None) -> Desk:
    store = MemoryDatabase(service=SERVICE, unique=UNIQUE)
    registry = Registry.over(
        store.connection(), clock=clock or SystemClock(), ids=SystemIds(), keys=_keys()
    )

    async def dump() -> bytes:
        rows = [body for table in store.tables.values() for body in table.values()]
        events = [entry.event.data for entry in store.log.values()]
        return b"\n".join([*rows, *events])

    return Desk(registry, dump)


async def real_desk(url: str, stack: AsyncExitStack) -> Desk:
    """A desk over an emptied database."""
    await postgres.Migrations(package="store_registry", schema=SCHEMA).apply(url)
    connection = await asyncpg.connect(url, server_settings={"search_path": SCHEMA})
    stack.push_async_callback(connection.close)
    await connection.execute("ALTER DATABASE registry_tests SET synchronous_commit = off")
    found = await connection.fetch(
        "SELECT table_name FROM information_schema.tables"
        " WHERE table_schema = $1 AND table_type = 'BASE TABLE'",
        SCHEMA,
    )
    tables = sorted(record["table_name"] for record in found)
    async with connection.transaction():
        # Without foreign keys and triggers, in any order; much faster than TRUNCATE.
        await connection.execute("SET LOCAL session_replication_role = replica")
        for table in tables:
            if table != "migration":
                await connection.execute(f'DELETE FROM "{table}"')
    database = await stack.enter_async_context(
        postgres.open_database(url, service=SERVICE, schema=SCHEMA, pool_max=8)
    )
    registry = Registry.over(database, clock=SystemClock(), ids=SystemIds(), keys=_keys())

    async def dump() -> bytes:
        bodies = []
        for table in tables:
            for record in await connection.fetch(f'SELECT t::text AS body FROM "{table}" t'):
                bodies.append(record["body"].encode())
        return b"\n".join(sorted(bodies))

    desk = Desk(registry, dump)
    desk.url = url
    return desk


@pytest.fixture(scope="session")
def registry_database_url(postgres):
    """One database for all tests of the registry, emptied before each."""
    postgres.ensure_database("registry_tests")
    return postgres.dsn(database="registry_tests")


@pytest.fixture
def make_real_desk(registry_database_url):
    async def make(stack: AsyncExitStack) -> Desk:
        return await real_desk(registry_database_url, stack)

    return make


@pytest.fixture(params=["memory", "real"])
async def desk(request):
    """Both databases: what passes on one only is a difference in the port."""
    if request.param == "memory":
        yield make_memory_desk()
        return
    async with AsyncExitStack() as stack:
        yield await real_desk(request.getfixturevalue("registry_database_url"), stack)


@pytest.fixture
def memory():
    return make_memory_desk()


@pytest.fixture
def memory_desk():
    """Makes desks over a memory database."""
    return make_memory_desk


@pytest.fixture
async def house(desk):
    return await desk.furnish()


@pytest.fixture
def house_facts():
    return (BUCKET, FOLDER)


@pytest.fixture
def canary():
    return CANARY
