"""Telling the world in the same transaction: an event of the catalogue, through the outbox."""

from msgspec import Struct

from entrepot_chassis.ports import Transaction
from entrepot_contracts.catalog import event_of


async def announce(tx: Transaction, message: Struct) -> None:
    """Emit an event on its subject; the aggregate is `<noun>.<id>` of it."""
    subject = event_of(type(message)).subject_for(message)
    noun, aggregate_id = subject.split(".")[2:4]
    await tx.emit(f"{noun}.{aggregate_id}", subject, message)
