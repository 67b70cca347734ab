"""What the requests for templates and volumes must say, before anything is looked up."""

from enum import StrEnum

from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.registry import CreateVolume, RegisterTemplate
from entrepot_contracts.values import Checksum, ChecksumAlgorithm, ImageFormat, Scope
from store_registry.rules.limits import Limits

ZONES_MAX = 100
SECTOR_BYTES = 512

_HEX_DIGITS = {
    ChecksumAlgorithm.MD5: 32,
    ChecksumAlgorithm.SHA1: 40,
    ChecksumAlgorithm.SHA256: 64,
    ChecksumAlgorithm.SHA512: 128,
}


class Origin(StrEnum):
    TEMPLATE = "template"
    SNAPSHOT = "snapshot"
    BLANK = "blank"


def check_zones(command: RegisterTemplate) -> None:
    """Scope region names no zones; scope zone names each once."""
    zone_ids = command.zone_ids
    if command.scope not in {Scope.REGION, Scope.ZONE}:
        raise _invalid("scope", f"a template has no scope {command.scope}", "use region or zone")
    if command.scope is Scope.REGION and zone_ids:
        raise _invalid(
            "zone_ids",
            "a region-wide template is for all zones",
            "leave zone_ids out, or use scope zone",
        )
    if command.scope is Scope.ZONE and not zone_ids:
        raise _invalid("zone_ids", "scope zone needs zones", "name one or more zones")
    if len(set(zone_ids)) != len(zone_ids):
        raise _invalid("zone_ids", "a zone is named twice", "name each zone once")
    if len(zone_ids) > ZONES_MAX:
        raise _invalid(
            "zone_ids", f"more than {ZONES_MAX} zones", "register several templates, or region-wide"
        )


def check_checksum(checksum: Checksum | None) -> None:
    if checksum is None:
        return
    digits = _HEX_DIGITS[checksum.algorithm]
    if len(checksum.value) != digits:
        raise _invalid(
            "checksum",
            f"a {checksum.algorithm} has {digits} hex digits, this one {len(checksum.value)}",
            "check the algorithm and the value",
        )


def origin_of(command: CreateVolume) -> Origin:
    """The one thing the volume is made from."""
    given = {
        Origin.TEMPLATE: command.template_id,
        Origin.SNAPSHOT: command.snapshot_id,
        Origin.BLANK: command.size_bytes,
    }
    named = [origin for origin, value in given.items() if value is not None]
    if len(named) != 1:
        raise _invalid(
            "template_id",
            "a volume is made from a template, from a snapshot, or blank with a size",
            "give exactly one of template_id, snapshot_id and size_bytes",
        )
    return named[0]


def check_size(size_bytes: int, limits: Limits) -> None:
    if size_bytes % SECTOR_BYTES:
        raise _invalid(
            "size_bytes",
            "a disk is made of whole sectors",
            f"give a multiple of {SECTOR_BYTES} bytes",
        )
    if size_bytes > limits.volume_size_bytes_max:
        raise Refused(
            Code.QUOTA_EXCEEDED,
            f"a volume may have at most {limits.volume_size_bytes_max} bytes",
            field="size_bytes",
            hint="ask for less, or let an administrator raise volume.size.max",
            facts={"setting": "volume.size.max"},
        )


def check_disk(image_format: ImageFormat, field: str) -> None:
    if image_format is ImageFormat.ISO:
        raise _invalid(field, "an ISO image is not a disk", "choose a qcow2 or raw template")


def _invalid(field: str, message: str, hint: str) -> Refused:
    return Refused(Code.INVALID, message, field=field, hint=hint)
