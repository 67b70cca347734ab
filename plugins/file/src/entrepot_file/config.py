"""What an operator writes to name a directory store."""

from typing import Annotated

from msgspec import Meta, Struct

from entrepot_contracts.values import ImageFormat

AbsolutePath = Annotated[
    str,
    Meta(
        pattern=r"^/[^\x00-\x1f\x7f]*\Z",
        max_length=3000,
        description="Absolute path of a directory that exists; Entrepot never makes it itself, "
        "so an unmounted mount point is noticed.",
        extra_json_schema={"x-ui": {"order": 1, "placeholder": "/srv/entrepot"}},
    ),
]
HostLabel = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9._-]+\Z",
        max_length=128,
        description="Movers announcing the label path-host=<this> can reach the directory.",
        extra_json_schema={"x-ui": {"order": 2, "placeholder": "local"}},
    ),
]


class FileConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`format` is the format of blank volumes for which nobody names one."""

    path: AbsolutePath
    host: HostLabel = "local"
    format: ImageFormat = ImageFormat.QCOW2
    fsync: bool = True
    io_threads: Annotated[int, Meta(ge=1, le=64)] = 8
