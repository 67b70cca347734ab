"""Settings of motion-engine, read once from ENTREPOT_MOTION_ENGINE_*."""

from typing import Annotated

from msgspec import Meta, Struct

Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]


class Policy(Struct, frozen=True, kw_only=True):
    """What the engine decides by; the simulation sets these without a database URL."""

    lease_s: Seconds = 30
    renew_s: Seconds = 10
    retry_base_s: Seconds = 5
    retry_cap_s: Seconds = 600
    mover_silent_s: Seconds = 45  # three missed announcements
    account_running_max: Positive = 8
    store_running_max: Positive = 16
    zone_running_max: Positive = 256
    claims_waiting_max: Positive = 1024
    recheck_s: Seconds = 1
    sweep_s: Seconds = 1
    announce_s: Seconds = 30
    load_s: Seconds = 5
    seal_timeout_s: Seconds = 2
    strategies: tuple[str, ...] = ("direct",)


class Settings(Policy, frozen=True, kw_only=True):
    nats_url: str
    database_url: str
    nats_nkey_file: str | None = None
    health_host: str = "127.0.0.1"
    health_port: int = 0
    pool_max: int = 8
    drain_s: float = 20.0
    log_level: str = "info"
