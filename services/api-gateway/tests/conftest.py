"""A gateway on real NATS and PostgreSQL with scripted owners behind it."""

import importlib.util
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from api_gateway import app
from api_gateway.accounts import Accounts
from api_gateway.settings import Settings
from entrepot_chassis import bus, postgres
from entrepot_chassis.clock import SystemIds
from entrepot_contracts.values import Role

_spec = importlib.util.spec_from_file_location(
    "gateway_owners", Path(__file__).parent / "owners.py"
)
owners = sys.modules["gateway_owners"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(owners)


class Gateway:
    """The running thing and clients of four callers."""

    def __init__(self, *, url, database, nats, settings, behind):
        self.url = url
        self.database = database
        self.nats = nats
        self.settings = settings
        self.owners = behind
        self.ids = SystemIds()
        self.accounts = Accounts(database, entropy=lambda count: SystemIds().new().encode()[-count:])
        self.account_ids = {}
        self.keys = {}
        self.clients = {}

    def __getattr__(self, name):
        try:
            return self.clients[name]
        except KeyError:
            raise AttributeError(name) from None

    async def add_caller(self, stack, name, role):
        account_id = self.ids.new()
        await self.accounts.create(account_id=account_id, name=name, role=role)
        _, minted = await self.accounts.create_key(
            account_id=account_id, key_id=self.ids.new(), name="test"
        )
        self.account_ids[name] = account_id
        self.keys[name] = minted.text
        self.clients[name] = await stack.enter_async_context(self.client(minted.text))

    def client(self, key=None):
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=20)


@asynccontextmanager
async def running_gateway(*, nats_url, database_url, folder, **changes):
    settings = Settings(
        nats_url=nats_url,
        database_url=database_url,
        seal_key_file=str(folder / "seal.key"),
        **{"keep_alive_s": 0.2, "drain_s": 2, **changes},
    )
    async with AsyncExitStack() as stack:
        await postgres.Migrations(package="api_gateway", schema="api_gateway").apply(database_url)
        database = await stack.enter_async_context(
            postgres.open_database(database_url, service="api-gateway", schema="api_gateway")
        )
        behind = owners.Owners()
        owner_bus = await stack.enter_async_context(bus.connect(nats_url, name="owners", drain_s=1))
        await stack.enter_async_context(behind.answering(owner_bus))
        nats = await stack.enter_async_context(
            bus.connect(nats_url, name="api-gateway", drain_s=1)
        )
        port = await stack.enter_async_context(app.serving(settings, database=database, nats=nats))
        gateway = Gateway(
            url=f"http://127.0.0.1:{port}",
            database=database,
            nats=owner_bus,
            settings=settings,
            behind=behind,
        )
        gateway.clients["nobody"] = await stack.enter_async_context(gateway.client())
        await gateway.add_caller(stack, "admin", Role.ADMIN)
        await gateway.add_caller(stack, "alice", Role.USER)
        await gateway.add_caller(stack, "bob", Role.USER)
        yield gateway


@pytest.fixture
async def gateway(nats_url, database_url, tmp_path):
    async with running_gateway(
        nats_url=nats_url, database_url=database_url, folder=tmp_path
    ) as running:
        yield running
