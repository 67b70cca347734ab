"""Movers announce themselves; a new boot under an old name ends the claims of the one before."""

from datetime import datetime

from entrepot_chassis import logs
from entrepot_chassis.ports import Transaction
from entrepot_contracts.catalog import event_of
from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.motion import (
    ListMovers,
    MoverList,
    MoverRegistered,
    MoverView,
    MoverWelcome,
    RegisterMover,
)
from motion_engine import replanning
from motion_engine.desk import Sitting
from motion_engine.engine import MOVERS_MAX, Engine, admin_only
from motion_engine.planner import is_alive
from motion_engine.rows import HELD, Mover, Transfer
from motion_engine.stimuli import Evicted

_log = logs.get("mover")
_HELD_MAX = 1_000
_TIME_CHARS = len("01890a5d-ac96")  # of a UUIDv7


async def register(engine: Engine, message: RegisterMover) -> MoverWelcome:
    """Known facts are only noted; the registry hears of new ones; what waited is planned again."""
    async with engine.desk.open() as sitting:
        tx = sitting.tx
        before = await tx.get(Mover, message.mover_id, lock=True)
        after = _row(message, before, now=await tx.now())
        appeared = before is None or not is_alive(
            before, now=after.seen_at, silent_s=engine.policy.mover_silent_s
        )
        if before is not None and before.boot_id != message.boot_id:
            if not appeared and _began_earlier(message.boot_id, before.boot_id):
                raise _outlived(message, before)
            await _evict(sitting, before)
        await tx.put(after)
        if before is None or _announced(before) != _announced(after):
            await _announce(tx, after)
    if appeared or _reach(before) != _reach(after):
        _log.info("mover.appeared", mover_id=message.mover_id, labels=message.labels)
        await replanning.plan_the_unplanned(engine)
        await engine.bell.ring()
    return MoverWelcome(lease_s=engine.policy.lease_s, renew_s=engine.policy.renew_s)


async def list_movers(engine: Engine, message: ListMovers) -> MoverList:
    admin_only(message.actor)
    async with engine.database.transaction() as tx:
        now = await tx.now()
        movers = await tx.find(Mover, limit=MOVERS_MAX)
        held = await tx.find(Transfer, where={"state": list(HELD)}, limit=MOVERS_MAX)
    running = [one.mover_id for one in held if one.lease_until and one.lease_until >= now]
    return MoverList(
        items=tuple(
            MoverView(
                mover_id=mover.mover_id,
                zone_ids=mover.zone_ids,
                labels=mover.labels,
                slots=mover.slots,
                running=running.count(mover.mover_id),
                seen_at=mover.seen_at,
                alive=is_alive(mover, now=now, silent_s=engine.policy.mover_silent_s),
            )
            for mover in movers
        )
    )


async def _evict(sitting: Sitting, gone: Mover) -> None:
    held = await sitting.tx.find(
        Transfer,
        where={"mover_id": gone.mover_id, "boot_id": gone.boot_id, "state": list(HELD)},
        limit=_HELD_MAX,
        lock=True,
    )
    now = await sitting.tx.now()
    for transfer in held:
        await sitting.apply(
            transfer,
            Evicted(boot_id=gone.boot_id, now=now),
            why=f"mover {gone.mover_id} was started anew",
        )
    _log.info("mover.booted_anew", mover_id=gone.mover_id, evicted=len(held))


async def _announce(tx: Transaction, mover: Mover) -> None:
    event = MoverRegistered(
        mover_id=mover.mover_id, zone_ids=mover.zone_ids, providers=mover.providers
    )
    await tx.emit(f"mover.{mover.mover_id}", event_of(MoverRegistered).subject_for(event), event)


def _began_earlier(boot_id: str, other: str) -> bool:
    """Boots are UUIDv7: their first 48 bits are the time they began."""
    return boot_id[:_TIME_CHARS] < other[:_TIME_CHARS]


def _outlived(message: RegisterMover, living: Mover) -> Refused:
    return Refused(
        Code.FENCED,
        f"mover {message.mover_id} was started anew as boot {living.boot_id}",
        field="boot_id",
        hint="stop this process, or give it a mover_id of its own",
    )


def _row(message: RegisterMover, before: Mover | None, *, now: datetime) -> Mover:
    same_boot = before is not None and before.boot_id == message.boot_id
    return Mover(
        mover_id=message.mover_id,
        boot_id=message.boot_id,
        zone_ids=message.zone_ids,
        labels=message.labels,
        slots=message.slots,
        public_key=message.public_key,
        providers=message.providers,
        version=message.version,
        registered_at=before.registered_at if before is not None and same_boot else now,
        seen_at=now,
    )


def _announced(mover: Mover) -> object:
    return (mover.zone_ids, mover.providers)


def _reach(mover: Mover | None) -> object:
    return mover and (mover.zone_ids, mover.providers, mover.labels)
