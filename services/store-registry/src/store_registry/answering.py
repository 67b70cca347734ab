"""Answering commands: the handler, run again when the database says so."""

from msgspec import Struct

from entrepot_chassis.ports import DatabaseUnavailable, TransactionConflict
from entrepot_contracts.errors import Code, Refused
from store_registry.handlers import HANDLERS
from store_registry.registry import Registry

TRIES_MAX = 3


async def answer(registry: Registry, command: Struct) -> Struct:
    """The reply, or Refused. Commands are idempotent by their ids, so a repeat is safe."""
    handler = HANDLERS[type(command)]
    for _ in range(TRIES_MAX):
        try:
            return await handler(registry, command)
        except TransactionConflict:
            continue
        except DatabaseUnavailable as err:
            raise _unavailable("the database is not there") from err
    raise _unavailable("others changed the same things at the same time")


def _unavailable(why: str) -> Refused:
    return Refused(Code.UNAVAILABLE, why, hint="ask again with the same ids")
