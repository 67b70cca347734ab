"""What tenants do in one run, and the bytes they expect of everything that succeeded."""

import hashlib

from clients import Client, Operator
from msgspec import Struct

from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.registry import (
    CreateSnapshot,
    CreateVolume,
    DeleteSnapshot,
    DeleteTemplate,
    DeleteVolume,
    ExtractTemplate,
    JobView,
)
from entrepot_contracts.values import Checksum, ChecksumAlgorithm, JobState


class Tenant(Client):
    """Registers, makes volumes, writes into them, snapshots, restores, deletes."""

    def __init__(self, operator: Operator, name: str) -> None:
        super().__init__(operator.installation, name)
        self.operator = operator
        self.bytes_of: dict[str, bytes] = {}  # of a template, snapshot or volume when made
        self.written: set[str] = set()  # volumes the guest changed since
        self.wrong: set[str] = set()  # templates that must not become ready
        self.random = self.world.fate.stream(f"tenant {name}")

    async def main_job(self) -> None:
        """Template, volume, guest writes, snapshot, restore in the other zone."""
        data = self._disk_bytes()
        url = self._publish(data)
        checksum = _sha256(data) if self.random.random() < 0.5 else None
        template_id = await self._until_it_works(self._template, url, data, checksum)
        here, there = self.random.sample((0, 1), 2)
        volume_id = await self._until_it_works(self._volume, here, template_id, None)
        self._write_into(volume_id, here)
        snapshot_id = await self._until_it_works(self._snapshot, volume_id, here)
        if self.random.random() < 0.4:
            command = DeleteVolume(actor=self.actor, volume_id=volume_id, job_id=self.ids.new())
            await self._may_fail(command)
        await self._until_it_works(self._volume, there, None, snapshot_id)
        if self.random.random() < 0.3:
            command = ExtractTemplate(
                actor=self.actor, template_id=template_id, job_id=self.ids.new(), seal_to="me"
            )
            await self._may_fail(command)

    async def wrong_inputs(self) -> None:
        """A checksum that lies, and a page that is not there: both must end failed."""
        lie = _sha256(b"something else")
        url = self._publish(self._disk_bytes())
        template_id, job = await self.register(url, checksum=lie)
        self.wrong.add(template_id)
        assert job.state is JobState.FAILED, "a wrong checksum was accepted"
        template_id, job = await self.register(f"{url}/missing")
        self.wrong.add(template_id)
        assert job.state is JobState.FAILED, "a page that is not there was registered"

    async def come_and_go(self) -> None:
        """Things that are deleted again leave nothing."""
        data = self._disk_bytes()
        template_id = await self._until_it_works(self._template, self._publish(data), data, None)
        volume_id = await self._until_it_works(self._volume, 0, template_id, None)
        snapshot_id = await self._until_it_works(self._snapshot, volume_id, 0)
        commands = [
            DeleteSnapshot(actor=self.actor, snapshot_id=snapshot_id, job_id=self.ids.new()),
            DeleteVolume(actor=self.actor, volume_id=volume_id, job_id=self.ids.new()),
            DeleteTemplate(actor=self.actor, template_id=template_id, job_id=self.ids.new()),
        ]
        for command in commands:
            await self._may_fail(command)

    # --- one thing each: (id, job) ------------------------------------------------------------

    async def _template(self, url: str, data: bytes, checksum) -> tuple[str, JobView]:
        options = {} if checksum is None else {"checksum": checksum}
        template_id, job = await self.register(url, **options)
        self.bytes_of[template_id] = data
        return template_id, job

    async def _volume(self, zone, template_id, snapshot_id) -> tuple[str, JobView]:
        volume_id = self.ids.new()
        command = CreateVolume(
            actor=self.actor,
            volume_id=volume_id,
            job_id=self.ids.new(),
            name="a volume",
            zone_id=self.operator.zones[zone],
            template_id=template_id,
            snapshot_id=snapshot_id,
        )
        self.bytes_of[volume_id] = self.bytes_of[template_id or snapshot_id]
        return volume_id, await self.done(command)

    async def _snapshot(self, volume_id: str, zone: int) -> tuple[str, JobView]:
        command = self.snapshot_of(volume_id)
        pool = self.installation.disks[f"pool-{zone + 1}"]
        self.bytes_of[command.snapshot_id] = pool.volumes[volume_id]
        return command.snapshot_id, await self.done(command)

    def snapshot_of(self, volume_id: str) -> CreateSnapshot:
        return CreateSnapshot(
            actor=self.actor,
            snapshot_id=self.ids.new(),
            job_id=self.ids.new(),
            volume_id=volume_id,
            name="a snapshot",
        )

    async def blank_volume(self, zone: int) -> tuple[str, JobView]:
        volume_id = self.ids.new()
        command = CreateVolume(
            actor=self.actor,
            volume_id=volume_id,
            job_id=self.ids.new(),
            name="a volume",
            zone_id=self.operator.zones[zone],
            size_bytes=1 << 20,
        )
        return volume_id, await self.done(command)

    # --- inside -------------------------------------------------------------------------------

    async def _until_it_works(self, make, *args) -> str:
        """A job may fail while everything breaks; asked anew, with fresh ids, one must work."""
        while True:
            resource_id, job = await make(*args)
            if job.state is JobState.SUCCEEDED:
                return resource_id
            assert job.error is not None
            await self.world.clock.sleep(5)

    async def _may_fail(self, command: Struct) -> None:
        try:
            await self.done(command)
        except Refused as refused:
            assert refused.problem.code in {Code.CONFLICT, Code.IN_USE}, refused

    def _disk_bytes(self) -> bytes:
        """A small raw disk: some blocks of data, some holes, an odd length."""
        blocks = [
            self.random.randbytes(1024) * 64 if self.random.random() < 0.6 else bytes(65536)
            for _block in range(self.random.randint(1, 6))
        ]
        return b"\x55" + b"".join(blocks)[1:] + bytes(512) + b"\xaa" * 512

    def _publish(self, data: bytes) -> str:
        url = f"http://web.example/{self.ids.new()}"
        self.installation.sources.pages[url] = data
        return url

    def _write_into(self, volume_id: str, zone: int) -> None:
        """What a guest does while nothing of ours touches the volume."""
        pool = self.installation.disks[f"pool-{zone + 1}"]
        held = bytearray(pool.volumes[volume_id])
        held[700:732] = self.random.randbytes(32)
        pool.volumes[volume_id] = bytes(held)
        self.written.add(volume_id)


def _sha256(data: bytes) -> Checksum:
    return Checksum(algorithm=ChecksumAlgorithm.SHA256, value=hashlib.sha256(data).hexdigest())
