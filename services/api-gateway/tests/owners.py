"""Scripted owners behind the gateway: they answer on the real bus and remember what was asked."""

from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime

import structlog

from entrepot_chassis import seal
from entrepot_contracts import cache, fleet, motion, registry
from entrepot_contracts.catalog import ASKS, GATEWAY, command_of
from entrepot_contracts.errors import Code, Refused, problem_of
from entrepot_contracts.values import (
    CopyState,
    ImageFormat,
    JobState,
    ResourceState,
    Role,
    Scope,
    Sealed,
    StoreRole,
    StoreState,
)

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
ID = "01890a5d-ac96-774b-bcce-b302099a8057"
LINK_URL = "http://store.example/bucket/key?X-Amz-Signature=link-canary"


class Owners:
    """Keeps who owns which id; the things of others do not exist for a user."""

    def __init__(self):
        self.forget()

    def forget(self):
        self.asked = []
        self.corrs = []  # correlation ids as they came over the bus
        self.owner_of = {}
        self.refusals = {}  # command type -> Refused to answer with
        self.held = {}  # command type -> asyncio.Event to wait for before answering
        self.pair = seal.KeyPair.new()
        self.settings = {"image-store.mixing": "same-provider"}
        self.links = {}  # job id -> the key the link is to be sealed to

    def asked_of(self, kind):
        return [command for command in self.asked if type(command) is kind]

    async def answer(self, command):
        self.asked.append(command)
        self.corrs.append(structlog.contextvars.get_contextvars().get("corr"))
        if (held := self.held.get(type(command))) is not None:
            await held.wait()
        if (refused := self.refusals.get(type(command))) is not None:
            raise refused
        return getattr(self, _method(type(command)))(command)

    @asynccontextmanager
    async def answering(self, bus):
        async with AsyncExitStack() as stack:
            for kind in ASKS[GATEWAY]:
                entry = command_of(kind)
                await stack.enter_async_context(
                    bus.answer(
                        entry.subject, kind, self.answer, queue=entry.owner, failure=problem_of
                    )
                )
            yield

    # --- ownership ---

    def _own(self, command, thing_id):
        account_id = self.owner_of.setdefault(thing_id, command.actor.account_id)
        assert account_id == command.actor.account_id

    def _seen(self, command, thing_id):
        owner = self.owner_of.get(thing_id)
        if owner is None or (
            owner != command.actor.account_id and command.actor.role is not Role.ADMIN
        ):
            raise Refused(Code.NOT_FOUND, "there is no such thing")
        return owner

    def _mine(self, command, kind):
        own = command.actor.account_id
        return tuple(
            make(thing_id, account)
            for thing_id, account in sorted(self.owner_of.items())
            if account == own
            for make in [kind]
        )

    def _started(self, command, thing_id, *, new=False):
        self._own(command, thing_id) if new else self._seen(command, thing_id)
        self._own(command, command.job_id)
        return registry.Accepted(job_id=command.job_id, resource_id=thing_id)

    # --- registry ---

    def create_zone(self, command):
        return registry.ZoneView(zone_id=command.zone_id, name=command.name, region=command.region)

    def list_zones(self, command):
        return registry.ZoneList(
            items=(registry.ZoneView(zone_id=ID, name="z1", region="default"),)
        )

    def list_providers(self, command):
        provider = registry.ProviderView(
            name="dir",
            version="1",
            roles=(StoreRole.IMAGE,),
            scopes=(Scope.ZONE,),
            traits={},
            config_schema={"type": "object", "properties": {"path": {"type": "string"}}},
        )
        return registry.ProviderList(items=(provider,))

    def add_store(self, command):
        return self._started(command, command.store_id, new=True)

    def list_stores(self, command):
        store = registry.StoreView(
            store_id=ID,
            role=command.role,
            name="main",
            provider="dir",
            scope=Scope.ZONE,
            zone_id=ID,
            region="default",
            state=StoreState.UP,
            config={"path": "/x"},
        )
        return registry.StoreList(items=(store,))

    def delete_store(self, command):
        return registry.Done()

    def get_sealing_key(self, command):
        return registry.SealingKey(public_key=self.pair.public_key)

    def register_template(self, command):
        return self._started(command, command.template_id, new=True)

    def get_template(self, command):
        return _template(command.template_id, self._seen(command, command.template_id))

    def list_templates(self, command):
        return registry.TemplateList(items=self._mine(command, _template)[: command.page.limit])

    def delete_template(self, command):
        return self._started(command, command.template_id)

    def extract_template(self, command):
        self.links[command.job_id] = command.seal_to
        return self._started(command, command.template_id)

    def create_volume(self, command):
        return self._started(command, command.volume_id, new=True)

    def get_volume(self, command):
        return _volume(command.volume_id, self._seen(command, command.volume_id))

    def list_volumes(self, command):
        return registry.VolumeList(items=self._mine(command, _volume))

    def delete_volume(self, command):
        return self._started(command, command.volume_id)

    def create_snapshot(self, command):
        self._seen(command, command.volume_id)
        return self._started(command, command.snapshot_id, new=True)

    def get_snapshot(self, command):
        return _snapshot(command.snapshot_id, self._seen(command, command.snapshot_id))

    def list_snapshots(self, command):
        return registry.SnapshotList(items=self._mine(command, _snapshot))

    def delete_snapshot(self, command):
        return self._started(command, command.snapshot_id)

    def get_job(self, command):
        job = _job(command.job_id, self._seen(command, command.job_id))
        if command.job_id not in self.links:
            return job
        seal_to = self.links[command.job_id]
        link = Sealed(recipient=seal_to, box=seal.seal(seal_to, LINK_URL.encode()))
        return _job(command.job_id, self.owner_of[command.job_id], link=link)

    def list_jobs(self, command):
        return registry.JobList(items=self._mine(command, _job))

    def get_settings(self, command):
        return registry.SettingList(
            items=tuple(
                registry.SettingView(name=name, value=value, default="same-provider", help="")
                for name, value in self.settings.items()
            )
        )

    def put_setting(self, command):
        self.settings[command.name] = command.value
        return self.get_settings(command)

    # --- motion, cache, fleet ---

    def list_movers(self, command):
        mover = motion.MoverView(
            mover_id=ID, zone_ids=(), labels={}, slots=4, running=1, seen_at=NOW, alive=True
        )
        return motion.MoverList(items=(mover,))

    def list_transfers(self, command):
        return motion.TransferList(items=self._mine(command, _transfer))

    def get_transfer(self, command):
        return _transfer(command.transfer_id, self._seen(command, command.transfer_id))

    def cancel_transfer(self, command):
        self._seen(command, command.transfer_id)
        return motion.Noted()

    def add_cache_pool(self, command):
        return cache.PoolView(
            pool_id=command.pool_id,
            name=command.name,
            scope=command.scope,
            zone_id=command.zone_id,
            store=command.store,
            capacity_bytes=command.capacity_bytes,
            used_bytes=0,
            leases=0,
        )

    def list_cache_pools(self, command):
        return cache.PoolList(items=())

    def remove_cache_pool(self, command):
        return cache.PoolGone(pool_id=command.pool_id)

    def put_fleet_pool(self, command):
        return fleet.PoolView(
            pool_id=command.pool_id,
            zone_id=command.zone_id,
            strategy=command.strategy,
            mode=command.mode,
            vms_min=command.vms_min,
            vms_max=command.vms_max,
            desired=0,
            ready=0,
            last_reason="",
            sampled_at=None,
        )

    def list_fleet_pools(self, command):
        return fleet.PoolList(items=())


_NAMES = {
    cache.AddPool: "add_cache_pool",
    cache.ListPools: "list_cache_pools",
    cache.RemovePool: "remove_cache_pool",
    fleet.PutPool: "put_fleet_pool",
    fleet.ListPools: "list_fleet_pools",
}


def _method(kind):
    if kind in _NAMES:
        return _NAMES[kind]
    return "".join(f"_{char.lower()}" if char.isupper() else char for char in kind.__name__)[1:]


def _template(template_id, account_id):
    return registry.TemplateView(
        template_id=template_id,
        account_id=account_id,
        name="u24",
        url="http://x/u24.qcow2",
        format=ImageFormat.QCOW2,
        scope=Scope.REGION,
        public=False,
        state=ResourceState.READY,
        created_at=NOW,
        copies=(
            registry.CopyView(
                store_id=ID,
                zone_id=None,
                state=CopyState.FAILED,
                error=Refused(Code.STORE_FULL, "full").problem,
            ),
        ),
    )


def _volume(volume_id, account_id):
    return registry.VolumeView(
        volume_id=volume_id,
        account_id=account_id,
        name="v",
        zone_id=ID,
        store_id=ID,
        format=ImageFormat.RAW,
        size_bytes=1 << 20,
        state=ResourceState.READY,
        created_at=NOW,
    )


def _snapshot(snapshot_id, account_id):
    return registry.SnapshotView(
        snapshot_id=snapshot_id,
        account_id=account_id,
        name="s",
        volume_id=ID,
        format=ImageFormat.RAW,
        size_bytes=1 << 20,
        state=ResourceState.READY,
        created_at=NOW,
        copies=(),
    )


def _job(job_id, account_id, link=None):
    return registry.JobView(
        job_id=job_id,
        account_id=account_id,
        kind="template.register",
        resource_id=ID,
        state=JobState.SUCCEEDED,
        created_at=NOW,
        link=link,
    )


def _transfer(transfer_id, account_id):
    return motion.TransferView(
        transfer_id=transfer_id,
        account_id=account_id,
        job_id=ID,
        kind="copy",
        state=motion.TransferState.RUNNING,
        strategy="direct",
        bids=(),
        epoch=1,
        attempts=1,
        attempts_max=5,
        created_at=NOW,
    )
