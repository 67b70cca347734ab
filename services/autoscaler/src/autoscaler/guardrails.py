"""The engine's own limits on what a strategy proposes; every clamp is recorded by name."""

from msgspec import Struct

from entrepot_contracts.fleet import Mode


class Verdict(Struct, frozen=True, kw_only=True):
    desired: int
    clamps: tuple[str, ...]


def clamp(proposed: int, *, current: int, vms_min: int, vms_max: int, mode: Mode) -> Verdict:
    """In order: mode, velocity up (at most double, or four more), bounds."""
    desired, clamps = proposed, list[str]()
    if mode is Mode.FROZEN and desired != current:
        desired, clamps = current, [*clamps, "frozen"]
    if mode is Mode.PAUSED_IN and desired < current:
        desired, clamps = current, [*clamps, "paused-in"]
    if mode is Mode.PAUSED_OUT and desired > current:
        desired, clamps = current, [*clamps, "paused-out"]
    fastest = max(2 * current, current + 4)
    if desired > fastest:
        desired, clamps = fastest, [*clamps, "velocity"]
    bounded = min(max(desired, vms_min), vms_max)
    if bounded != desired:
        desired, clamps = bounded, [*clamps, "bounds"]
    return Verdict(desired=desired, clamps=tuple(clamps))
