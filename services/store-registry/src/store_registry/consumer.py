"""What other services' events mean here: movers teach providers, transfers step sagas."""

from collections.abc import Sequence

import structlog

from entrepot_chassis.ports import BatchHandler, Delivered, Transaction
from entrepot_contracts.motion import MoverRegistered, TransferFailed, TransferSucceeded
from store_registry import figures
from store_registry.handlers.providers import learn
from store_registry.jobs.machine import Failed, Stimulus, Succeeded
from store_registry.jobs.runner import apply as apply_stimulus
from store_registry.registry import Registry
from store_registry.rows import Job

CONSUMER = "store-registry"
SUBJECTS = (
    "evt.motion.mover.*.registered",
    "evt.motion.transfer.*.succeeded",
    "evt.motion.transfer.*.failed",
)
MESSAGES = (MoverRegistered, TransferSucceeded, TransferFailed)

log = structlog.get_logger()


async def apply(tx: Transaction, event: Delivered) -> None:
    """One event, in the transaction that also records it as handled."""
    match event.message:
        case MoverRegistered() as registered:
            await learn(tx, registered)
        case TransferSucceeded(transfer_id=transfer_id, job_id=job_id, epoch=epoch, result=result):
            done = Succeeded(transfer_id=transfer_id, epoch=epoch, result=result)
            await _step(tx, job_id, done)
        case TransferFailed(transfer_id=transfer_id, job_id=job_id, problem=problem):
            await _step(tx, job_id, Failed(transfer_id=transfer_id, problem=problem))
        case other:
            raise TypeError(f"nobody here handles {type(other).__name__}")


def waking(registry: Registry, handler: BatchHandler) -> BatchHandler:
    """The handler, and after its commit a ring for who waits for the jobs in the batch."""

    async def handle(batch: Sequence[Delivered]) -> None:
        ended = [
            event.message
            for event in batch
            if isinstance(event.message, TransferSucceeded | TransferFailed)
        ]
        try:
            await handler(batch)
        finally:  # also when some failed: the others are committed
            registry.progress.forget(message.transfer_id for message in ended)
            registry.wakes.ring({message.job_id for message in ended})

    return handle


async def _step(tx: Transaction, job_id: str, stimulus: Stimulus) -> None:
    job = await tx.get(Job, job_id, lock=True)
    if job is None:
        # Cache fills and other services' own transfers end here too.
        figures.ORPHANED.inc()
        log.info("transfer.of_no_job", job_id=job_id)
        return
    await apply_stimulus(tx, job, stimulus)
