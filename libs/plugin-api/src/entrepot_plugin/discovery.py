"""Finding plugins by entry point: only enabled names are loaded; absent or doubled refuses."""

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from entrepot_plugin.plugin import API_VERSION, StorePlugin

STORES = "entrepot.stores"


class PluginProblem(Exception):
    """A plugin set that cannot be started with; the text says which name and what to do."""


def load_stores(enabled: Iterable[str]) -> dict[str, StorePlugin]:
    """Store plugins by name. Raises PluginProblem for an absent, doubled or foreign one."""
    found = {name: _load_one(STORES, name) for name in enabled}
    for name, plugin in found.items():
        if not isinstance(plugin, StorePlugin):
            raise PluginProblem(f"store plugin {name!r} exports no StorePlugin value")
        if plugin.api != API_VERSION:
            raise PluginProblem(
                f"store plugin {name!r} speaks api {plugin.api}, this mover {API_VERSION}: "
                "install a matching version"
            )
    return found


def installed(group: str) -> frozenset[str]:
    return frozenset(point.name for point in entry_points(group=group))


def load_named(group: str, name: str) -> Any:
    """One plugin value of any group (strategies, policies, provisioners)."""
    return _load_one(group, name)


def _load_one(group: str, name: str) -> Any:
    points: list[EntryPoint] = [p for p in entry_points(group=group) if p.name == name]
    if not points:
        raise PluginProblem(
            f"plugin {name!r} is enabled but not installed in group {group}; "
            f"installed: {', '.join(sorted(installed(group))) or 'none'}"
        )
    if len(points) > 1:
        owners = ", ".join(sorted(p.dist.name for p in points if p.dist))
        raise PluginProblem(f"plugin name {name!r} is claimed by {owners}: remove one")
    return points[0].load()
