"""A gateway on real NATS and PostgreSQL with scripted owners behind it."""

import importlib.util
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

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


def pytest_collection_modifyitems(items):
    """The gateway of a module lives in the loop of the module, and so do its tests."""
    for item in items:
        here = Path(__file__).parent in item.path.parents
        if here and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="module"), append=False)


class Gateway:
    """The running thing and clients of four callers."""

    def __init__(self, *, url, database, nats, settings, behind):
        self.url = url
        self.database = database
        self.nats = nats
        self.settings = settings
        self.owners = behind
        self.ids = SystemIds()
        self.accounts = Accounts(
            database, entropy=lambda count: SystemIds().new().encode()[-count:]
        )
        self.account_ids = {}
        self.keys = {}
        self.clients = {}

    def __getattr__(self, name):
        try:
            return self.clients[name]
        except KeyError:
            raise AttributeError(name) from None

    async def add_callers(self, stack):
        self.clients["nobody"] = await stack.enter_async_context(self.client())
        await self.add_caller(stack, "admin", Role.ADMIN)
        await self.add_caller(stack, "alice", Role.USER)
        await self.add_caller(stack, "bob", Role.USER)

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
async def running_gateway(*, nats_url, database_url, folder, callers=False, **changes):
    settings = Settings(
        nats_url=nats_url,
        database_url=database_url,
        seal_key_file=str(folder / "seal.key"),
        **{"keep_alive_s": 0.2, "drain_s": 2, "ask_timeout_s": 0.5, **changes},
    )
    async with AsyncExitStack() as stack:
        await postgres.Migrations(package="api_gateway", schema="api_gateway").apply(database_url)
        database = await stack.enter_async_context(
            postgres.open_database(database_url, service="api-gateway", schema="api_gateway")
        )
        behind = owners.Owners()
        owner_bus = await stack.enter_async_context(bus.connect(nats_url, name="owners", drain_s=1))
        await stack.enter_async_context(behind.answering(owner_bus))
        nats = await stack.enter_async_context(bus.connect(nats_url, name="api-gateway", drain_s=1))
        port = await stack.enter_async_context(app.serving(settings, database=database, nats=nats))
        gateway = Gateway(
            url=f"http://127.0.0.1:{port}",
            database=database,
            nats=owner_bus,
            settings=settings,
            behind=behind,
        )
        if callers:
            await gateway.add_callers(stack)
        yield gateway


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(nats_url, postgres, tmp_path_factory, request):
    """One per module: starting takes longer than most tests."""
    name = f"gateway_{request.module.__name__.rsplit('.', 1)[-1]}"
    postgres.ensure_database(name)
    async with running_gateway(
        nats_url=nats_url,
        database_url=postgres.dsn(database=name),
        folder=tmp_path_factory.mktemp("gateway"),
    ) as one:
        yield one


@pytest.fixture
def start_gateway():
    """To start one of the test's own, with three callers."""
    return partial(running_gateway, callers=True)


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(running):
    """As new: no rows but those of three accounts, owners who know nothing."""
    running.owners.forget()
    async with running.database.transaction() as tx:
        await tx.connection.execute("TRUNCATE api_key, account, http_once")
    async with AsyncExitStack() as stack:
        await running.add_callers(stack)
        yield running
