"""Load samples for the autoscaler: bytes with due times per zone, every few seconds."""

from collections import defaultdict
from collections.abc import Sequence

from entrepot_chassis import metrics
from entrepot_contracts.catalog import telemetry_of
from entrepot_contracts.fleet import ClassLoad, DueBucket, LoadSample, WorkerLoad
from entrepot_contracts.values import WorkClass
from motion_engine.engine import MOVERS_MAX, Engine
from motion_engine.ledger import LoadLine
from motion_engine.planner import is_alive
from motion_engine.rows import HELD, Mover, Transfer

_QUEUED = metrics.gauge("entrepot_transfers_queued", "Transfers waiting", ["work_class"])
_HELD = metrics.gauge("entrepot_transfers_held", "Transfers under a claim", ["work_class"])
_OLDEST_S = metrics.gauge(
    "entrepot_transfer_oldest_wait_seconds", "Age of the oldest waiting transfer", ["work_class"]
)


class LoadReporter:
    """`epoch` tells one run of one engine from another; `seq` shows gaps."""

    def __init__(self, engine: Engine, *, source: str) -> None:
        self._engine = engine
        self._source = source
        self._epoch = int(engine.clock.now().timestamp() * 1000)
        self._seq = 0

    async def report(self) -> None:
        engine = self._engine
        async with engine.database.transaction() as tx:
            now = await tx.now()
            lines = await engine.ledger.load(tx)
            movers = await tx.find(Mover, limit=MOVERS_MAX)
            held = await tx.find(Transfer, where={"state": list(HELD)}, limit=MOVERS_MAX)
        running = [one.mover_id for one in held if one.lease_until and one.lease_until >= now]
        alive = [
            mover
            for mover in movers
            if is_alive(mover, now=now, silent_s=engine.policy.mover_silent_s)
        ]
        _count(lines)
        self._seq += 1
        for zone_id in _zones(lines, alive):
            sample = LoadSample(
                zone_id=zone_id,
                source=self._source,
                epoch=self._epoch,
                seq=self._seq,
                observed_at=now,
                interval_s=engine.policy.load_s,
                complete=True,
                by_class=by_class([line for line in lines if line.zone_id == zone_id]),
                workers=tuple(
                    WorkerLoad(
                        mover_id=mover.mover_id,
                        slots=mover.slots,
                        running=running.count(mover.mover_id),
                        age_s=(now - mover.registered_at).total_seconds(),
                    )
                    for mover in alive
                    if not mover.zone_ids or zone_id in mover.zone_ids
                ),
            )
            await engine.bus.publish(telemetry_of(LoadSample).subject, sample)


def by_class(lines: Sequence[LoadLine]) -> tuple[ClassLoad, ...]:
    return tuple(
        _class_load(work_class, [line for line in lines if line.work_class == work_class])
        for work_class in WorkClass
        if any(line.work_class == work_class for line in lines)
    )


def _class_load(work_class: WorkClass, lines: Sequence[LoadLine]) -> ClassLoad:
    due: dict[float, int] = defaultdict(int)
    for line in lines:
        due[line.due_in_s] += line.remaining_bytes
    queued = [line for line in lines if not line.held]
    held = [line for line in lines if line.held]
    return ClassLoad(
        work_class=work_class,
        queued_n=sum(line.count for line in queued),
        queued_bytes=sum(line.remaining_bytes for line in queued),
        running_n=sum(line.count for line in held),
        remaining_bytes=sum(line.remaining_bytes for line in held),
        oldest_wait_s=max((line.oldest_wait_s for line in queued), default=0.0),
        unknown_n=sum(line.unknown_n for line in lines),
        due=tuple(DueBucket(due_in_s=edge, bytes=due[edge]) for edge in sorted(due)),
    )


def _zones(lines: Sequence[LoadLine], alive: Sequence[Mover]) -> list[str | None]:
    """Every zone with work or with a mover; None for work that any zone may do."""
    zones = {line.zone_id for line in lines} | {zone for one in alive for zone in one.zone_ids}
    return [*sorted(zone for zone in zones if zone), *([None] if None in zones else [])]


def _count(lines: Sequence[LoadLine]) -> None:
    for work_class in WorkClass:
        own = [line for line in lines if line.work_class == work_class]
        queued = [line for line in own if not line.held]
        _QUEUED.labels(work_class.value).set(sum(line.count for line in queued))
        _HELD.labels(work_class.value).set(sum(line.count for line in own if line.held))
        _OLDEST_S.labels(work_class.value).set(
            max((line.oldest_wait_s for line in queued), default=0.0)
        )
