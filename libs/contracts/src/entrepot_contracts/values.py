"""Value types shared by the messages of all owners: enums, scopes, checksums, stores."""

from enum import StrEnum
from typing import Annotated, Any

from msgspec import Meta, Struct

from entrepot_contracts.ids import Id

# Control characters and the Unicode line/paragraph separators never enter a name.
Name = Annotated[
    str, Meta(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]+\Z")
]
Hex = Annotated[str, Meta(pattern=r"^[0-9a-f]+\Z", max_length=256)]
Bytes = Annotated[int, Meta(ge=0, description="A size or offset in bytes.")]


class Role(StrEnum):
    ADMIN = "admin"
    USER = "user"


class Actor(Struct, frozen=True, kw_only=True):
    """Who asks: taken from the credential by the gateway, never from a request body."""

    account_id: Id
    role: Role


class Scope(StrEnum):
    REGION = "region"
    ZONE = "zone"
    POD = "pod"
    CLUSTER = "cluster"


class StoreRole(StrEnum):
    IMAGE = "image"
    PRIMARY = "primary"
    CACHE = "cache"


class StoreState(StrEnum):
    """A store is `probing` until a mover has confirmed it."""

    PROBING = "probing"
    UP = "up"
    DEGRADED = "degraded"
    REFUSED = "refused"
    REMOVED = "removed"


class ImageFormat(StrEnum):
    """A database fact: declared once, checked by inspection, never probed again."""

    QCOW2 = "qcow2"
    RAW = "raw"
    ISO = "iso"


class CopyState(StrEnum):
    """State of one copy (a row of a `*_store_ref` table); names follow the CloudStack design."""

    ALLOCATED = "Allocated"
    CREATING = "Creating"
    READY = "Ready"
    FAILED = "Failed"
    DESTROYING = "Destroying"
    DESTROYED = "Destroyed"


class ResourceState(StrEnum):
    """State of a template, volume or snapshot as a tenant sees it."""

    CREATING = "creating"
    READY = "ready"
    FAILED = "failed"
    DELETING = "deleting"
    DELETED = "deleted"


class JobState(StrEnum):
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class WorkClass(StrEnum):
    """Order of claims: interactive before template before batch."""

    INTERACTIVE = "interactive"
    TEMPLATE = "template"
    BATCH = "batch"


class ChecksumAlgorithm(StrEnum):
    SHA256 = "sha256"
    SHA512 = "sha512"
    SHA1 = "sha1"
    MD5 = "md5"


class Checksum(Struct, frozen=True, kw_only=True):
    """A flat checksum over the bytes as published by the user."""

    algorithm: ChecksumAlgorithm
    value: Hex


class Layout(StrEnum):
    """How logical bytes lie in a stored object (docs/format/stored-object.md).

    `plain`: byte n of the object is logical byte n. `extents`: only the extents of the manifest
    are stored, one after the other; everything between them is zeros.
    """

    PLAIN = "plain"
    EXTENTS = "extents"


class ContentDigest(Struct, frozen=True, kw_only=True):
    """BLAKE3 tree over 4 MiB leaves of the logical bytes (docs/format/content-digest.md)."""

    root: Hex
    size_bytes: Bytes


class StoredObject(Struct, frozen=True, kw_only=True):
    """What a finished copy left in an object store; the catalogue keeps it in the store ref."""

    key: str  # of the data object; its manifest lies at `<key>.manifest`
    digest: ContentDigest  # of the logical bytes
    stored_bytes: Bytes  # length of the data object
    format: ImageFormat
    virtual_size_bytes: Bytes
    layout: Layout = Layout.PLAIN
    checksum: Checksum | None = None


class StoreSpec(Struct, frozen=True, kw_only=True):
    """A store as a mover needs it. `config` holds no secret; secrets come sealed with a claim."""

    store_id: Id
    role: StoreRole
    provider: str
    config: dict[str, Any]
    zone_id: Id | None = None  # None: region-wide


class Sealed(Struct, frozen=True, kw_only=True):
    """Bytes only the holder of the recipient's private key can open (chassis.seal)."""

    recipient: str
    box: bytes


class ProbeCheck(Struct, frozen=True, kw_only=True):
    name: str
    ok: bool
    detail: str = ""
    hint: str = ""


class ProbeReport(Struct, frozen=True, kw_only=True):
    """Outcome of a store probe; `ok` only when every check is."""

    checks: tuple[ProbeCheck, ...]
    capacity_bytes: int | None = None
    free_bytes: int | None = None

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)

    @property
    def first_failure(self) -> ProbeCheck | None:
        return next((check for check in self.checks if not check.ok), None)
