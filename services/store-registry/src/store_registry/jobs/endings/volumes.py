"""Ends of volume.create and volume.delete, and the pool's books: reserved once, freed once."""

from entrepot_chassis.ports import Transaction
from entrepot_contracts.errors import Problem
from entrepot_contracts.motion import Copied, VolumeMade
from entrepot_contracts.registry import VolumeChanged
from entrepot_contracts.values import ResourceState
from store_registry.announce import announce
from store_registry.inventory import lock_stores
from store_registry.rows import Job, Volume


async def created(tx: Transaction, job: Job) -> None:
    volume = await _volume(tx, job)
    (outcome,) = job.saga.outcomes.values()
    volume.epoch = outcome.epoch
    match outcome.result:
        case Copied() as copied:
            volume.path = copied.path
            volume.digest_root = copied.digest.root
            volume.size_bytes = copied.virtual_size_bytes
        case VolumeMade(path=path, size_bytes=size_bytes):
            volume.path = path
            volume.size_bytes = size_bytes
        case other:
            raise AssertionError(f"a volume is not made by {type(other).__name__}")
    await _reserve(tx, volume, volume.size_bytes)
    await _put(tx, volume, ResourceState.READY)


async def not_created(tx: Transaction, job: Job, problem: Problem) -> None:
    volume = await _volume(tx, job)
    volume.error = problem
    await _reserve(tx, volume, 0)
    await _put(tx, volume, ResourceState.FAILED)


async def deleted(tx: Transaction, job: Job) -> None:
    volume = await _volume(tx, job)
    await _reserve(tx, volume, 0)
    await _put(tx, volume, ResourceState.DELETED)


async def not_deleted(tx: Transaction, job: Job, problem: Problem) -> None:
    """It may be gone or not: of no use any more, its room not free yet, to be deleted again."""
    volume = await _volume(tx, job)
    volume.error = problem
    await _put(tx, volume, ResourceState.FAILED)


async def announce_volume(tx: Transaction, volume: Volume) -> None:
    await announce(
        tx,
        VolumeChanged(
            volume_id=volume.volume_id,
            account_id=volume.account_id,
            state=volume.state,
            at=await tx.now(),
        ),
    )


async def _reserve(tx: Transaction, volume: Volume, size_bytes: int) -> None:
    """Make the volume's reservation on its pool this large."""
    stores = await lock_stores(tx, [volume.store_id])
    pool = stores.get(volume.store_id)
    if pool is not None:
        pool.used_bytes = max(0, pool.used_bytes + size_bytes - volume.reserved_bytes)
        await tx.put(pool)
    volume.reserved_bytes = size_bytes


async def _put(tx: Transaction, volume: Volume, state: ResourceState) -> None:
    volume.state = state
    await tx.put(volume)
    await announce_volume(tx, volume)


async def _volume(tx: Transaction, job: Job) -> Volume:
    volume = await tx.get(Volume, job.resource_id, lock=True)
    assert volume is not None, "volumes are marked deleted, never removed"
    return volume
