"""Settings of a mover: environment `ENTREPOT_MOVER_*`, read once."""

from typing import Annotated

from msgspec import Meta, Struct

from motion_engine.mover.addresses import parse_cidrs


class Settings(Struct, frozen=True, kw_only=True):
    nats_url: str
    nats_nkey_file: str | None = None
    data_dir: str | None = None  # remembers the mover's id; without it, `mover_id` or a fresh one
    mover_id: str | None = None
    zone_ids: tuple[str, ...] = ()  # empty: serves every zone
    labels: tuple[str, ...] = ("path-host=local",)  # name=value
    plugins: tuple[str, ...] = ()  # store plugins to enable; empty: every one that is installed
    slots: Annotated[int, Meta(ge=1, le=64)] = 4
    parts_in_flight: Annotated[int, Meta(ge=1, le=32)] = 4
    threads: Annotated[int, Meta(ge=0, le=64)] = 0  # 0: one per core
    source_allow_cidrs: tuple[str, ...] = ()  # addresses users' URLs may lead to all the same
    source_stall_s: Annotated[float, Meta(gt=0)] = 30.0
    stall_s: Annotated[float, Meta(gt=0)] = 60.0
    health_host: str = "127.0.0.1"
    health_port: int = 0
    drain_s: float = 20.0
    log_level: str = "info"

    def __post_init__(self) -> None:
        """Raises ValueError: settings that read well but mean nothing."""
        parse_cidrs(self.source_allow_cidrs)
        self.label_map()

    def label_map(self) -> dict[str, str]:
        pairs = [label.partition("=") for label in self.labels]
        if not all(name and equals and value for name, equals, value in pairs):
            msg = "labels are name=value, separated by commas"
            raise ValueError(msg)
        return {name: value for name, _, value in pairs}
