"""What an operator can set; read from ENTREPOT_API_GATEWAY_* once."""

from typing import Annotated

from msgspec import Meta, Struct


class Settings(Struct, frozen=True, kw_only=True):
    nats_url: str
    nats_nkey_file: str | None = None
    database_url: str
    health_host: str = "127.0.0.1"
    health_port: int = 0
    pool_max: int = 8
    drain_s: float = 20.0
    log_level: str = "info"
    http_host: str = "127.0.0.1"
    http_port: Annotated[int, Meta(ge=0, le=65535)] = 0
    # Private key that extract links are sealed to; gateways behind one address share the file.
    seal_key_file: str
    # Where the first administrator's key goes when there is no account yet; None: none is made.
    admin_key_file: str | None = None
    ask_timeout_s: Annotated[float, Meta(gt=0)] = 5.0  # for an owner to answer a command
    connections_max: Annotated[int, Meta(ge=1)] = 1000
    watchers_max: Annotated[int, Meta(ge=1)] = 500  # open event streams, all accounts
    keep_alive_s: Annotated[float, Meta(gt=0)] = 10.0  # between two comments of an event stream
