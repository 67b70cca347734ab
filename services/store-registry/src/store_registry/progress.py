"""The latest word on running transfers, heard by telemetry and kept in memory only."""

from collections import OrderedDict
from collections.abc import Iterable

from msgspec import Struct

from entrepot_chassis.ports import Clock
from entrepot_contracts.motion import TransferProgress

TRANSFERS_MAX = 10_000


class Heard(Struct, frozen=True, kw_only=True):
    progress: TransferProgress
    at_s: float  # monotonic


class Progress:
    """Forgets what it heard longest ago when more transfers speak than it keeps."""

    def __init__(self, clock: Clock, *, transfers_max: int = TRANSFERS_MAX) -> None:
        self._clock = clock
        self._transfers_max = transfers_max
        self._heard: OrderedDict[str, Heard] = OrderedDict()

    async def hear(self, progress: TransferProgress) -> None:
        before = self._heard.get(progress.transfer_id)
        if before is not None and before.progress.epoch > progress.epoch:
            return  # a zombie still talks
        self._heard[progress.transfer_id] = Heard(progress=progress, at_s=self._clock.monotonic())
        self._heard.move_to_end(progress.transfer_id)
        while len(self._heard) > self._transfers_max:
            self._heard.popitem(last=False)

    def of(self, transfer_id: str) -> TransferProgress | None:
        heard = self._heard.get(transfer_id)
        return heard.progress if heard else None

    def all_heard_within(self, transfer_ids: Iterable[str], seconds: float) -> bool:
        """Whether every one of them gave a sign of life so lately."""
        since_s = self._clock.monotonic() - seconds
        heard = [self._heard.get(transfer_id) for transfer_id in transfer_ids]
        return all(item is not None and item.at_s >= since_s for item in heard)

    def forget(self, transfer_ids: Iterable[str]) -> None:
        for transfer_id in transfer_ids:
            self._heard.pop(transfer_id, None)
