"""Settings of the service, read once from ENTREPOT_STORE_REGISTRY_*."""

from typing import Annotated

from msgspec import Meta, Struct


class Policy(Struct, frozen=True, kw_only=True):
    """What the simulation sets as well."""

    sweep_s: Annotated[float, Meta(ge=1, le=600)] = 15.0
    in_flight_max: Annotated[int, Meta(ge=1, le=1024)] = 64  # per command
    waits_max: Annotated[int, Meta(ge=1, le=10_000)] = 512  # GetJob calls that wait


class Settings(Policy, frozen=True, kw_only=True):
    nats_url: str
    database_url: str
    sealing_key_file: str  # X25519; made when absent, as the next; all instances share both
    at_rest_key_file: str  # AES-256, of the secrets in our tables
    nats_nkey_file: str | None = None
    health_host: str = "127.0.0.1"
    health_port: Annotated[int, Meta(ge=0, le=65535)] = 0
    pool_max: Annotated[int, Meta(ge=2, le=200)] = 8
    drain_s: Annotated[float, Meta(ge=0, le=25)] = 20.0
    log_level: str = "info"
