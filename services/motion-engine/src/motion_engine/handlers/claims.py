"""A mover asks for work: choose by class, fairness and caps, claim, add credentials and parts."""

from collections.abc import Sequence

from entrepot_chassis import logs, metrics
from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.motion import Checkpointed, ClaimWork, Grant, Granted, PartRecord
from motion_engine.desk import Sitting
from motion_engine.dispatch import Caps, choose, full, share_ids
from motion_engine.engine import Engine
from motion_engine.ledger import Holder
from motion_engine.part_pages import MESSAGE_BYTES_MAX, first_page
from motion_engine.reach import reach_of
from motion_engine.rows import Mover, Share, Transfer
from motion_engine.sealing import RegistrySilent, Verdict, secret_ids
from motion_engine.stimuli import Faltered, Released

_log = logs.get("claim")
_CLAIMED = metrics.counter("entrepot_transfers_claimed_total", "Claims granted", ["kind"])
_HANDED_BACK = metrics.counter(
    "entrepot_claims_handed_back_total", "Claims undone because the registry was silent"
)
_QUEUED_S = metrics.histogram(
    "entrepot_transfer_queued_seconds",
    "From request to first claim",
    ["work_class"],
    buckets=(0.01, 0.05, 0.2, 1, 5, 20, 60, 300, 1800, 7200),
)


async def claim(engine: Engine, message: ClaimWork) -> Granted:
    """Answers as soon as there is something, or empty when `wait_s` is over."""
    until = engine.clock.monotonic() + message.wait_s
    while True:
        heard = engine.bell.count
        grants = () if engine.sealing.resting else await _grants(engine, message)
        left_s = until - engine.clock.monotonic()
        if grants or left_s <= 0 or engine.bell.closed:
            return Granted(grants=grants)
        if engine.sealing.resting:
            await engine.clock.sleep(min(engine.policy.recheck_s, left_s))
        else:
            await engine.bell.wait(heard, at_most_s=min(engine.policy.recheck_s, left_s))


async def _grants(engine: Engine, message: ClaimWork) -> tuple[Grant, ...]:
    async with engine.round_of_claims, engine.desk.open() as sitting:
        mover = await _mover(sitting, message)
        claimed = await _claim_best(engine, sitting, mover, message.free_slots)
    if not claimed:
        return ()
    try:
        verdicts = await engine.sealing.seal(
            {one.transfer_id: secret_ids(one.ask) for one in claimed}, recipient=mover.public_key
        )
    except RegistrySilent:
        await _hand_back(engine, claimed)
        return ()
    refused = [one for one in claimed if verdicts[one.transfer_id].problem]
    await _fail(engine, refused, verdicts)
    granted = [one for one in claimed if one not in refused]
    async with engine.database.transaction() as tx:
        parts = await engine.ledger.parts(tx, [one.transfer_id for one in granted])
    room_bytes = MESSAGE_BYTES_MAX // max(len(granted), 1)
    return tuple(
        _grant(one, verdicts, parts.get(one.transfer_id, ()), room_bytes) for one in granted
    )


async def _mover(sitting: Sitting, message: ClaimWork) -> Mover:
    mover = await sitting.tx.get(Mover, message.mover_id)
    if mover is None:
        raise Refused(
            Code.NOT_FOUND,
            f"mover {message.mover_id} is not registered",
            field="mover_id",
            hint="register before asking for work",
        )
    if mover.boot_id != message.boot_id:
        raise Refused(
            Code.FENCED,
            f"mover {message.mover_id} was started anew as boot {mover.boot_id}",
            field="boot_id",
            hint="stop: another process runs under this mover id",
        )
    return mover


async def _claim_best(
    engine: Engine, sitting: Sitting, mover: Mover, free_slots: int
) -> Sequence[Transfer]:
    tx, ledger, policy = sitting.tx, engine.ledger, engine.policy
    caps = Caps(
        account=policy.account_running_max,
        store=policy.store_running_max,
        zone=policy.zone_running_max,
    )
    held = await ledger.held(tx)
    candidates = await ledger.ready(
        tx, reach_of(mover), full=full(held, caps), per_account=free_slots
    )
    if not candidates:
        return ()
    ids = sorted(share_ids(candidates))
    shares = await tx.find(Share, where={"share_id": ids}, limit=len(ids))
    choice = choose(
        candidates,
        held,
        {share.share_id: share.served_bytes for share in shares},
        mover_id=mover.mover_id,
        slots=mover.slots,
        free_slots=free_slots,
        caps=caps,
    )
    if not choice.transfer_ids:
        return ()
    for share_id, served_bytes in sorted(choice.shares.items()):
        await tx.put(Share(share_id=share_id, served_bytes=served_bytes))
    holder = Holder(mover_id=mover.mover_id, boot_id=mover.boot_id, lease_s=policy.lease_s)
    return await ledger.claim(tx, choice.transfer_ids, holder)


def _grant(
    transfer: Transfer,
    verdicts: dict[str, Verdict],
    parts: tuple[PartRecord, ...],
    room_bytes: int,
) -> Grant:
    page = first_page(parts, room_bytes)
    _CLAIMED.labels(transfer.kind).inc()
    if transfer.claimed_at is not None and transfer.epoch == 1:
        waited = transfer.claimed_at - transfer.created_at
        _QUEUED_S.labels(transfer.work_class.value).observe(max(waited.total_seconds(), 0))
    _log.info(
        "transfer.claimed",
        transfer_id=transfer.transfer_id,
        job_id=transfer.job_id,
        mover_id=transfer.mover_id,
        epoch=transfer.epoch,
        attempt=transfer.attempts,
        parts=len(parts),
    )
    return Grant(
        ask=transfer.ask,
        epoch=transfer.epoch,
        attempt=transfer.attempts,
        strategy=transfer.strategy,
        credentials=verdicts[transfer.transfer_id].credentials,
        checkpoint=Checkpointed(
            key=transfer.upload_key,
            resume=transfer.resume,
            parts=page,
            facts=transfer.facts,
            more=len(page) < len(parts),
        ),
    )


async def _hand_back(engine: Engine, claimed: Sequence[Transfer]) -> None:
    """Nobody began: the attempts are not counted. No ring, or the same mover would come again."""
    async with engine.database.transaction() as tx:
        sitting = Sitting(tx, engine.ledger)
        for one in claimed:
            held = await sitting.take(one.transfer_id)
            if held is not None and held.epoch == one.epoch:
                stimulus = Released(epoch=one.epoch, now=await tx.now())
                await sitting.apply(held, stimulus, why="the registry gave no credentials in time")
    _HANDED_BACK.inc(len(claimed))


async def _fail(engine: Engine, refused: Sequence[Transfer], verdicts: dict[str, Verdict]) -> None:
    if not refused:
        return
    async with engine.desk.open() as sitting:
        for one in refused:
            held = await sitting.take(one.transfer_id)
            problem = verdicts[one.transfer_id].problem
            if held is None or problem is None or held.epoch != one.epoch:
                continue
            stimulus = Faltered(
                epoch=one.epoch, problem=problem, now=await sitting.tx.now(), delay_s=0
            )
            await sitting.apply(held, stimulus, why="the registry refused the credentials")
