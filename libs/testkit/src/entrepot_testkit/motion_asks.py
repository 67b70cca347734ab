"""Builders for tests of motion: stores, asks of every kind, movers' announcements, parts."""

import hashlib
from datetime import datetime
from typing import Any

from entrepot_chassis.clock import uuid7
from entrepot_contracts.motion import (
    Copied,
    CopyWork,
    ObjectEnd,
    PartRecord,
    ProbeWork,
    ProviderFact,
    RegisterMover,
    TransferAsk,
    UrlEnd,
    VolumeEnd,
    Work,
)
from entrepot_contracts.values import (
    ContentDigest,
    ImageFormat,
    Scope,
    StoredObject,
    StoreRole,
    StoreSpec,
    WorkClass,
)

LEAF = b"\x07" * 32


class OrderedIds:
    """Ids that rise in the order they were made, one millisecond apart, the same in every run."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._made = 0

    def new(self) -> str:
        self._made += 1
        entropy = hashlib.sha256(f"{self._seed}/{self._made}".encode()).digest()[:10]
        return uuid7(1_767_225_600_000 + self._made, entropy)


class Asks:
    """Everything with ids of one seeded sequence, so a test reads the same in every run."""

    def __init__(self, seed: int = 7) -> None:
        self.ids = OrderedIds(seed)

    def s3(self, *, zone_id: str | None = None) -> StoreSpec:
        return StoreSpec(
            store_id=self.ids.new(),
            role=StoreRole.IMAGE,
            provider="s3",
            config={"bucket": "images"},
            zone_id=zone_id,
        )

    def pool(self, *, zone_id: str, host: str | None = None) -> StoreSpec:
        config = {"path": "/pool"} | ({"host": host} if host else {})
        return StoreSpec(
            store_id=self.ids.new(),
            role=StoreRole.PRIMARY,
            provider="file",
            config=config,
            zone_id=zone_id,
        )

    def download(self, store: StoreSpec, **ask: Any) -> TransferAsk:
        source = UrlEnd(
            url="http://images.example/a.qcow2",
            format=ImageFormat.QCOW2,
            size_bytes_max=1 << 40,
            virtual_size_bytes_max=1 << 40,
        )
        return self.ask(CopyWork(source=source, target=ObjectEnd(store=store, prefix="t/")), **ask)

    def restore(
        self, source: StoreSpec, target: StoreSpec, *, size_bytes: int = 1 << 30, **ask: Any
    ) -> TransferAsk:
        work = CopyWork(
            source=ObjectEnd(store=source, prefix="t/", stored=stored(size_bytes)),
            target=VolumeEnd(store=target, volume_id=self.ids.new(), format=ImageFormat.QCOW2),
        )
        return self.ask(work, **ask)

    def probe(self, store: StoreSpec, **ask: Any) -> TransferAsk:
        return self.ask(ProbeWork(store=store), **ask)

    def ask(
        self,
        work: Work,
        *,
        account_id: str | None = None,
        work_class: WorkClass = WorkClass.INTERACTIVE,
        zone_id: str | None = None,
        due_at: datetime | None = None,
        attempts_max: int = 5,
    ) -> TransferAsk:
        return TransferAsk(
            transfer_id=self.ids.new(),
            account_id=account_id or self.ids.new(),
            job_id=self.ids.new(),
            work=work,
            work_class=work_class,
            zone_id=zone_id,
            due_at=due_at,
            attempts_max=attempts_max,
        )

    def mover(
        self,
        *,
        mover_id: str | None = None,
        zone_ids: tuple[str, ...] = (),
        labels: dict[str, str] | None = None,
        slots: int = 4,
        providers: tuple[str, ...] = ("s3", "file"),
        public_key: str = "key",
    ) -> RegisterMover:
        return RegisterMover(
            mover_id=mover_id or self.ids.new(),
            boot_id=self.ids.new(),
            zone_ids=zone_ids,
            labels={"path-host": "local"} if labels is None else labels,
            slots=slots,
            public_key=public_key,
            providers=tuple(provider(name) for name in providers),
        )


def provider(name: str) -> ProviderFact:
    """`file` is reached by host label, anything else over the network."""
    reach = {"reach_label": "path-host", "reach_config": "host"} if name == "file" else {}
    return ProviderFact(
        name=name,
        version="1",
        roles=(StoreRole.IMAGE, StoreRole.PRIMARY),
        scopes=(Scope.ZONE,),
        traits=reach,
        config_schema={"properties": {"host": {"type": "string", "default": "local"}}},
    )


def stored(size_bytes: int, key: str = "t/a/data") -> StoredObject:
    return StoredObject(
        key=key,
        digest=ContentDigest(root="ab" * 32, size_bytes=size_bytes),
        stored_bytes=size_bytes,
        format=ImageFormat.QCOW2,
        virtual_size_bytes=size_bytes,
    )


def copied(size_bytes: int) -> Copied:
    return Copied(
        digest=ContentDigest(root="ab" * 32, size_bytes=size_bytes),
        virtual_size_bytes=size_bytes,
        bytes_read=size_bytes,
        bytes_sent=size_bytes,
        stored=stored(size_bytes),
    )


def part(number: int, *, length: int = 16 << 20, receipt: str = "etag") -> PartRecord:
    return PartRecord(
        number=number,
        offset=(number - 1) * (16 << 20),
        length=length,
        receipt=receipt,
        leaves=LEAF * 4,
    )
