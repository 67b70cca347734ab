"""What people ask about transfers. A user sees the own account's, an administrator all."""

from typing import Any

from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.motion import (
    CancelTransfer,
    GetTransfer,
    ListTransfers,
    Noted,
    TransferList,
    TransferView,
)
from entrepot_contracts.values import Actor, Role
from motion_engine.engine import Engine
from motion_engine.rows import Transfer
from motion_engine.stimuli import CancelAsked


async def list_transfers(engine: Engine, message: ListTransfers) -> TransferList:
    where: dict[str, Any] = {}
    if message.actor.role != Role.ADMIN:
        where["account_id"] = message.actor.account_id
    if message.job_id is not None:
        where["job_id"] = message.job_id
    async with engine.database.transaction() as tx:
        found = await tx.find(
            Transfer, where=where, after=message.before, descending=True, limit=message.limit
        )
    return TransferList(items=tuple(_view(transfer) for transfer in found))


async def get_transfer(engine: Engine, message: GetTransfer) -> TransferView:
    async with engine.database.transaction() as tx:
        transfer = await tx.get(Transfer, message.transfer_id)
        visible = _visible(transfer, message.actor, message.transfer_id)
        story = await engine.ledger.story(tx, message.transfer_id)
    return _view(visible, story)


async def cancel_transfer(engine: Engine, message: CancelTransfer) -> Noted:
    """Waiting work ends at once; a holder learns it at its next renewal."""
    async with engine.desk.open() as sitting:
        transfer = await sitting.take(message.transfer_id)
        visible = _visible(transfer, message.actor, message.transfer_id)
        who = "an administrator" if message.actor.role == Role.ADMIN else "its owner"
        stimulus = CancelAsked(reason=f"cancelled by {who}", now=await sitting.tx.now())
        await sitting.apply(visible, stimulus, why=stimulus.reason)
    return Noted()


def _visible(transfer: Transfer | None, actor: Actor, transfer_id: str) -> Transfer:
    own = transfer is not None and transfer.account_id == actor.account_id
    if transfer is None or not (own or actor.role == Role.ADMIN):
        raise Refused(
            Code.NOT_FOUND,
            f"there is no transfer {transfer_id}",
            field="transfer_id",
            hint="list the transfers you have",
        )
    return transfer


def _view(transfer: Transfer, story: tuple[str, ...] = ()) -> TransferView:
    return TransferView(
        transfer_id=transfer.transfer_id,
        account_id=transfer.account_id,
        job_id=transfer.job_id,
        kind=transfer.kind,
        state=transfer.state,
        strategy=transfer.strategy,
        bids=transfer.bids,
        epoch=transfer.epoch,
        attempts=transfer.attempts,
        attempts_max=transfer.attempts_max,
        created_at=transfer.created_at,
        mover_id=transfer.mover_id,
        bytes_done=transfer.bytes_done,
        bytes_total=transfer.bytes_total,
        parts_done=transfer.parts_done,
        bytes_resent=transfer.bytes_resent,
        finished_at=transfer.finished_at,
        problem=transfer.problem,
        story=story,
    )
