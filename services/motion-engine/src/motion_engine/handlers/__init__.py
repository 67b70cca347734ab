"""One function per command; HANDLERS maps the message to it."""

from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct

from entrepot_contracts import motion
from motion_engine.engine import Engine
from motion_engine.handlers import claims, movers, operators, work

HANDLERS: dict[type[Struct], Callable[[Engine, Any], Awaitable[Struct]]] = {
    motion.RegisterMover: movers.register,
    motion.ListMovers: movers.list_movers,
    motion.ClaimWork: claims.claim,
    motion.ReadParts: work.read_parts,
    motion.RenewLease: work.renew,
    motion.Checkpoint: work.checkpoint,
    motion.FinishWork: work.finish,
    motion.ReleaseWork: work.release,
    motion.ListTransfers: operators.list_transfers,
    motion.GetTransfer: operators.get_transfer,
    motion.CancelTransfer: operators.cancel_transfer,
}
