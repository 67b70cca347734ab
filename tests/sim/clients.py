"""Tenants and an operator: they ask with their own ids, and ask again with the same when unsure."""

import msgspec
from installation import BUCKET, Installation, SimKeys
from msgspec import Struct

from entrepot_chassis.ports import Unanswered
from entrepot_contracts.calls import ask
from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.registry import (
    Accepted,
    AddStore,
    CreateZone,
    GetJob,
    JobView,
    ListProviders,
    RegisterTemplate,
)
from entrepot_contracts.values import Actor, ImageFormat, JobState, Role, Sealed, StoreRole

ASK_S = 4.0
WAIT_S = 5.0
PAUSE_S = 0.5


class Client:
    """One caller. `accepted` is its log of what the registry said yes to (invariant I1)."""

    def __init__(self, installation: Installation, name: str, role: Role = Role.USER) -> None:
        self.installation = installation
        self.world = installation.world
        self.bus = self.world.broker.connection()
        self.ids = self.world.ids(name)
        self.actor = Actor(account_id=self.ids.new(), role=role)
        self.accepted: list[Accepted] = []

    async def ask(self, command: Struct) -> Struct:
        """Until somebody answers; raises Refused only for a no that repeating will not change."""
        while True:
            try:
                answer = await ask(self.bus, command, timeout_s=ASK_S)
            except Unanswered:
                continue
            except Refused as refused:
                if not refused.problem.retryable:
                    raise
                await self.world.clock.sleep(PAUSE_S)
                continue
            if isinstance(answer, Accepted):
                self.accepted.append(answer)
            return answer

    async def done(self, command: Struct) -> JobView:
        """Ask, then wait for the job's end."""
        accepted = await self.ask(command)
        assert isinstance(accepted, Accepted)
        while True:
            job = await self.job(accepted.job_id)
            if job.state is not JobState.RUNNING:
                return job

    async def job(self, job_id: str) -> JobView:
        command = GetJob(actor=self.actor, job_id=job_id, wait_s=WAIT_S)
        while True:
            try:
                answer = await ask(self.bus, command, timeout_s=WAIT_S + ASK_S)
            except Unanswered:
                continue
            except Refused as refused:
                assert refused.problem.code is not Code.NOT_FOUND, f"accepted and lost: {job_id}"
                await self.world.clock.sleep(PAUSE_S)
                continue
            assert isinstance(answer, JobView)
            return answer

    async def register(self, url: str, **options: object) -> tuple[str, JobView]:
        template_id = self.ids.new()
        command = RegisterTemplate(
            actor=self.actor,
            template_id=template_id,
            job_id=self.ids.new(),
            name="a template",
            url=url,
            format=ImageFormat.RAW,
            **options,
        )
        return template_id, await self.done(command)


class Operator(Client):
    """Builds the zones and stores, in calm, before anything goes wrong."""

    def __init__(self, installation: Installation) -> None:
        super().__init__(installation, "operator", Role.ADMIN)
        self.zones: list[str] = []
        self.pools: list[str] = []

    async def build(self) -> None:
        while not (await self.ask(ListProviders(actor=self.actor))).items:
            await self.world.clock.sleep(PAUSE_S)
        await self._add_store(StoreRole.IMAGE, BUCKET, None)
        for number in (1, 2):
            zone_id = self.ids.new()
            await self.ask(CreateZone(actor=self.actor, zone_id=zone_id, name=f"zone {number}"))
            self.zones.append(zone_id)
            self.pools.append(await self._add_store(StoreRole.PRIMARY, f"pool-{number}", zone_id))

    async def _add_store(self, role: StoreRole, bucket: str, zone_id: str | None) -> str:
        details = SimKeys("").seal("registry", msgspec.json.encode({"bucket": bucket}))
        store_id = self.ids.new()
        job = await self.done(
            AddStore(
                actor=self.actor,
                store_id=store_id,
                job_id=self.ids.new(),
                role=role,
                name=bucket,
                provider="sim",
                details=Sealed(recipient="registry", box=details),
                zone_id=zone_id,
            )
        )
        assert job.state is JobState.SUCCEEDED, job.error
        return store_id
