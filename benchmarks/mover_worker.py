"""One transfer by the mover's own code in a process of its own; prints what it cost as JSON.

Everything is the product's: copier, pipeline, digest, stores, retrying layer. Only the ledger is
replaced by an answer of `Noted`, and the lease by none.
"""

import asyncio
import resource
import sys
from pathlib import Path
from typing import Any

import msgspec

from entrepot_chassis.clock import SystemClock, SystemIds
from entrepot_chassis.seal import KeyPair, seal
from entrepot_contracts import motion
from entrepot_contracts.values import ImageFormat, Sealed, StoredObject, StoreRole, StoreSpec
from entrepot_plugin.discovery import load_stores
from entrepot_plugin.wrappers import Retrying, RetryPolicy, wrap_objects
from motion_engine.mover import malloc
from motion_engine.mover.copy import Copier
from motion_engine.mover.copying import Tools
from motion_engine.mover.lease import Hold
from motion_engine.mover.progress import Progress
from motion_engine.mover.stores import Stores
from motion_engine.mover.threads import thread_pool


class Agreeable:
    """A bus on which the ledger notes everything."""

    async def request(self, *_: Any, **__: Any) -> motion.Noted:
        return motion.Noted()


class Marked(Progress):
    """Remembers what had been spent when each phase began."""

    def __init__(self) -> None:
        super().__init__()
        self.marks: dict[str, tuple[float, float]] = {}

    def enter(self, phase: str, *, total: int | None, done: int = 0) -> None:
        self.marks[phase] = spent()
        super().enter(phase, total=total, done=done)


def spent() -> tuple[float, float]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime, SystemClock().monotonic()


def peak_bytes(pid: str) -> int:
    """Peak resident memory; ru_maxrss would count the process that this one was forked from."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM")), 0)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What the parent writes as the one argument."""

    direction: str  # up, down
    endpoint: str
    bucket: str
    access_key: str
    secret_key: str
    pool: str
    volume_id: str
    prefix: str = ""
    stored: StoredObject | None = None
    parts_in_flight: int = 4


async def run(plan: Plan) -> dict[str, Any]:
    keys, ids, clock = KeyPair.new(), SystemIds(), SystemClock()
    objects = StoreSpec(
        store_id=ids.new(),
        role=StoreRole.IMAGE,
        provider="s3",
        config={"endpoint": plan.endpoint, "bucket": plan.bucket, "create_bucket": True},
    )
    pool = StoreSpec(
        store_id=ids.new(),
        role=StoreRole.PRIMARY,
        provider="file",
        config={"path": plan.pool, "fsync": False},  # the peers flush nothing either
    )
    volume = motion.VolumeEnd(store=pool, volume_id=plan.volume_id, format=ImageFormat.RAW)
    if plan.direction == "up":
        work = motion.CopyWork(
            source=volume, target=motion.ObjectEnd(store=objects, prefix=plan.prefix)
        )
    else:
        source = motion.ObjectEnd(store=objects, prefix="", stored=plan.stored)
        work = motion.CopyWork(source=source, target=volume)
    secrets = msgspec.json.encode({"access_key": plan.access_key, "secret_key": plan.secret_key})
    box = Sealed(recipient=keys.public_key, box=seal(keys.public_key, secrets))
    grant = motion.Grant(
        ask=motion.TransferAsk(
            transfer_id=ids.new(), account_id=ids.new(), job_id=ids.new(), work=work
        ),
        epoch=1,
        attempt=1,
        strategy="direct",
        credentials={objects.store_id: box},
        checkpoint=motion.Checkpointed(),
    )
    stores = Stores(
        load_stores(["file", "s3"]),
        keys,
        wrap_objects=lambda store: wrap_objects(store, Retrying(RetryPolicy())),
    )
    bus: Any = Agreeable()
    progress = Marked()
    async with thread_pool(2) as run_blocking:
        copier = Copier(
            work,
            Hold(grant, bus, clock),
            stores=stores,
            fetch=None,  # type: ignore[arg-type]  # no URL here
            bus=bus,
            clock=clock,
            tools=Tools(run_blocking=run_blocking, parts_in_flight=plan.parts_in_flight),
            progress=progress,
        )
        copied = await copier.run()
    end, begun, verifying = spent(), progress.marks["copying"], progress.marks["verifying"]
    return {
        "cpu_s": verifying[0] - begun[0],
        "wall_s": verifying[1] - begun[1],
        "verify_cpu_s": end[0] - verifying[0],
        "verify_wall_s": end[1] - verifying[1],
        "rss_bytes": peak_bytes("self"),
        "stored": msgspec.to_builtins(copied.stored),
        "root": copied.digest.root,
    }


def main() -> None:
    malloc.tune()
    plan = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Plan)
    sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(run(plan))) + b"\n")


if __name__ == "__main__":
    main()
