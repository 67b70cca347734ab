"""What an operator can set; read from ENTREPOT_CACHE_MANAGER_* once."""

from msgspec import Struct


class Settings(Struct, frozen=True, kw_only=True):
    nats_url: str
    nats_nkey_file: str | None = None
    database_url: str
    health_host: str = "127.0.0.1"
    health_port: int = 0
    pool_max: int = 4
    drain_s: float = 20.0
    log_level: str = "info"
    policy: str = "most-free"  # a name of the entry point group entrepot.cache_policies
    sweep_s: float = 5.0
