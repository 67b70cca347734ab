"""What an operator writes to name an S3 bucket."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from entrepot_plugin.secret import Secret

Endpoint = Annotated[
    str,
    Meta(
        pattern=r"^https?://[A-Za-z0-9.\[\]:-]+(/[A-Za-z0-9._/-]*)?\Z",
        max_length=300,
        description="URL of the server, without bucket and without credentials.",
        extra_json_schema={"x-ui": {"order": 1, "placeholder": "https://s3.example.org"}},
    ),
]
Bucket = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z",
        description="Must exist, unless create_bucket is set.",
        extra_json_schema={"x-ui": {"order": 2}},
    ),
]
Prefix = Annotated[
    str,
    Meta(
        pattern=r"^([A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*)?\Z",
        max_length=300,
        description="Folder inside the bucket under which everything is kept.",
        extra_json_schema={"x-ui": {"order": 3}},
    ),
]
Seconds = Annotated[float, Meta(gt=0, le=3600)]


class S3Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The defaults are what real servers need: path addressing, checksums only when required.

    `part_rate_min_bps`: a part slower than this many bytes a second (over its whole length) has
    stalled. `sdk_attempts`: tries inside the SDK, for the race with a server that closes an idle
    connection; everything else is retried by the wrapper around the port.
    """

    endpoint: Endpoint
    bucket: Bucket
    access_key: Secret
    secret_key: Secret
    session_token: Secret | None = None
    region: Annotated[str, Meta(pattern=r"^[A-Za-z0-9-]{1,40}\Z")] = "us-east-1"
    prefix: Prefix = ""
    addressing_style: Literal["path", "virtual", "auto"] = "path"
    verify: bool = True
    ca_bundle: str | None = None
    create_bucket: bool = False
    list_page_max: Annotated[int, Meta(ge=1, le=1000)] = 1000
    part_concurrency: Annotated[int, Meta(ge=1, le=64)] = 8
    connect_timeout_s: Seconds = 5.0
    read_timeout_s: Seconds = 30.0
    part_rate_min_bps: Annotated[int, Meta(ge=1024)] = 256 << 10
    sdk_attempts: Annotated[int, Meta(ge=1, le=5)] = 2
