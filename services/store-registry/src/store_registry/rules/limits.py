"""The settings an administrator may change: name, default, what it means, which values it takes."""

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from entrepot_contracts.errors import Code, Refused
from store_registry.rules.scope import Mixing

_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_SIZE_MAX = 1 << 46


class Known(Struct, frozen=True, kw_only=True):
    name: str
    default: str
    help: str
    parse: Callable[[str], Any]
    takes: str  # the allowed values, in words


class Limits(Struct, frozen=True, kw_only=True):
    """All settings, parsed."""

    mixing: Mixing
    template_size_bytes_max: int
    template_virtual_size_bytes_max: int
    url_schemes: frozenset[str]
    volume_size_bytes_max: int
    overprovision: float


def parse_size(text: str) -> int:
    """Bytes, of a whole number with an optional KiB, MiB, GiB or TiB."""
    digits = text.rstrip("KMGTiB ")
    size = int(digits) * _UNITS[text[len(digits) :].strip()]
    if not 1 <= size <= _SIZE_MAX:
        raise ValueError(text)
    return size


def _parse_schemes(text: str) -> frozenset[str]:
    schemes = frozenset(part.strip() for part in text.split(","))
    if not schemes or not schemes <= {"http", "https"}:
        raise ValueError(text)
    return schemes


def _parse_factor(text: str) -> float:
    factor = float(text)
    if not 1 <= factor <= 100:  # noqa: PLR2004 - said in the setting's own words below
        raise ValueError(text)
    return factor


_SIZE = "a size such as 500GiB: a whole number, then KiB, MiB, GiB, TiB or nothing; at most 64TiB"

KNOWN: Mapping[str, Known] = {
    known.name: known
    for known in (
        Known(
            name="image-store.mixing",
            default=Mixing.SAME_PROVIDER,
            help="whether image stores of several providers may stand side by side",
            parse=Mixing,
            takes=f"{Mixing.SAME_PROVIDER} or {Mixing.ANY}",
        ),
        Known(
            name="primary-store.overprovisioning",
            default="2",
            help="how many times its capacity a primary store may promise to volumes",
            parse=_parse_factor,
            takes="a number from 1 to 100",
        ),
        Known(
            name="template.size.max",
            default="500GiB",
            help="the most bytes a registered template may have",
            parse=parse_size,
            takes=_SIZE,
        ),
        Known(
            name="template.url.schemes",
            default="http,https",
            help="schemes a template's URL may have",
            parse=_parse_schemes,
            takes="https, http, or both with a comma",
        ),
        Known(
            name="template.virtual-size.max",
            default="2TiB",
            help="the largest disk a registered template may describe",
            parse=parse_size,
            takes=_SIZE,
        ),
        Known(
            name="volume.size.max",
            default="2TiB",
            help="the largest volume that may be created blank",
            parse=parse_size,
            takes=_SIZE,
        ),
    )
}


def check_setting(name: str, value: str) -> None:
    """Raises Refused naming the allowed names or values."""
    known = KNOWN.get(name)
    if known is None:
        raise Refused(
            Code.INVALID,
            f"there is no setting {name}",
            field="name",
            hint=f"settings: {', '.join(sorted(KNOWN))}",
        )
    try:
        known.parse(value)
    except (ValueError, KeyError):
        raise Refused(
            Code.INVALID,
            f"the setting {name} can't have this value",
            field="value",
            hint=f"it takes {known.takes}",
        ) from None


def limits_of(values: Mapping[str, str]) -> Limits:
    """The settings in force: `values` where set, defaults elsewhere."""

    def parsed(name: str) -> Any:
        return KNOWN[name].parse(values.get(name, KNOWN[name].default))

    return Limits(
        mixing=parsed("image-store.mixing"),
        template_size_bytes_max=parsed("template.size.max"),
        template_virtual_size_bytes_max=parsed("template.virtual-size.max"),
        url_schemes=parsed("template.url.schemes"),
        volume_size_bytes_max=parsed("volume.size.max"),
        overprovision=parsed("primary-store.overprovisioning"),
    )
