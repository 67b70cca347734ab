"""What autoscaler keeps: the scaling pool of a zone and every decision about it."""

from datetime import datetime
from typing import ClassVar

from entrepot_chassis.ports import Row, Table
from entrepot_contracts.fleet import Mode


class PoolRow(Row, kw_only=True):
    TABLE: ClassVar[Table] = Table(name="pool", key="pool_id")

    pool_id: str
    zone_id: str
    strategy: str
    mode: Mode
    vms_min: int
    vms_max: int
    desired: int = 0
    ready: int = 0
    last_reason: str = "no sample yet"
    sampled_at: datetime | None = None
    state: bytes = b""  # the strategy's own memory


class DecisionRow(Row, kw_only=True):
    """Only decisions that changed something are kept."""

    TABLE: ClassVar[Table] = Table(name="decision", key="decision_id")

    decision_id: str
    pool_id: str
    at: datetime
    strategy: str
    proposed: int
    desired: int
    clamps: tuple[str, ...]
    reason: str
