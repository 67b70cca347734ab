"""The load window: the latest sample per zone and whether it may be trusted."""

from msgspec import Struct

from entrepot_contracts.fleet import LoadSample
from entrepot_plugin.ports import PoolSnapshot

# A sample older than this many of its own intervals says nothing about now.
INTERVALS_TRUSTED = 3
VM_RATE_BPS = 500e6  # until measured: one transfer VM's throughput
BOOT_S = 90.0  # until measured: p95 of a VM's boot


class Heard(Struct, frozen=True, kw_only=True):
    sample: LoadSample
    at_s: float  # monotonic, ours: senders' clocks decide nothing


class LoadWindow:
    """Keeps one sample per zone. A sample of an older epoch or a repeated seq is not newer."""

    def __init__(self) -> None:
        self._heard: dict[str, Heard] = {}

    def hear(self, sample: LoadSample, *, at_s: float) -> None:
        if sample.zone_id is None:
            return
        known = self._heard.get(sample.zone_id)
        if known is None or (sample.epoch, sample.seq) > (known.sample.epoch, known.sample.seq):
            self._heard[sample.zone_id] = Heard(sample=sample, at_s=at_s)

    def trusted(self, zone_id: str, *, now_s: float) -> LoadSample | str:
        """The sample, or the reason why there is none to act on: unknown is never zero."""
        heard = self._heard.get(zone_id)
        if heard is None:
            return "no load sample yet"
        age_s = now_s - heard.at_s
        if age_s > INTERVALS_TRUSTED * heard.sample.interval_s:
            return f"last load sample is {age_s:.0f} s old"
        if not heard.sample.complete:
            return "last load sample is incomplete"
        return heard.sample


def snapshot_of(sample: LoadSample, *, vms_min: int, vms_max: int) -> PoolSnapshot:
    """What a strategy may look at."""
    classes = sample.by_class
    return PoolSnapshot(
        now=sample.observed_at,
        ready=len(sample.workers),
        booting=0,
        vms_min=vms_min,
        vms_max=vms_max,
        queued_bytes=sum(load.queued_bytes for load in classes),
        remaining_bytes=sum(load.remaining_bytes for load in classes),
        queued_n=sum(load.queued_n for load in classes),
        running_n=sum(load.running_n for load in classes),
        unknown_n=sum(load.unknown_n for load in classes),
        due=tuple((bucket.due_in_s, bucket.bytes) for load in classes for bucket in load.due),
        vm_rate_bps=VM_RATE_BPS,
        boot_s=BOOT_S,
    )
