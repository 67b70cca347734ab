"""Facts about a provider as data: read by planners, shown to operators, never code paths."""

from msgspec import Struct

from entrepot_contracts.values import Scope, StoreRole


class StoreTraits(Struct, frozen=True, kw_only=True):
    """What a store provider can do. Sizes in bytes.

    `reach_label`: a mover needs a label `<reach_label>:<config value>` to use the store, because
    it is a path of one host; None means any mover with a network route can use it.
    """

    scopes: tuple[Scope, ...]  # of an image store; the first one is the default
    roles: tuple[StoreRole, ...]
    part_bytes_min: int = 1
    part_bytes_max: int = 5 << 30
    parts_max: int = 10_000
    lists_parts: bool = False  # PartWriter.parts() tells what the store holds
    parts_equal: bool = False  # all parts but the last must have one length
    shares_links: bool = False
    copies_inside: bool = False
    reports_capacity: bool = False
    part_receipts_checksum: bool = False  # a part is acknowledged only if its checksum matched
    volume_formats: tuple[str, ...] = ()
    reach_label: str | None = None
    reach_config: str | None = None  # config field whose value completes the label
