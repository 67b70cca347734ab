"""How answers look in `/v1`: no wire tags, the resource's own id is `id`, links to follow."""

from typing import Any

import msgspec
from msgspec import Struct

from api_gateway.operations import access, work
from api_gateway.rest.routes import Route
from entrepot_contracts import cache, fleet, motion, registry
from entrepot_contracts.registry import Accepted

# The id field of each view. References to other things keep their long names.
OWN_ID: dict[type[Struct], str] = {
    access.AccountView: "account_id",
    access.KeyView: "key_id",
    registry.ZoneView: "zone_id",
    registry.StoreView: "store_id",
    registry.TemplateView: "template_id",
    registry.VolumeView: "volume_id",
    registry.SnapshotView: "snapshot_id",
    work.Job: "job_id",
    motion.TransferView: "transfer_id",
    motion.MoverView: "mover_id",
    cache.PoolView: "pool_id",
    fleet.PoolView: "pool_id",
}
NEXT = "next"  # in a list: cursor of the next page, null on the last


def present(route: Route, answer: Struct, *, want: Struct) -> dict[str, Any]:
    if isinstance(answer, Accepted):
        return _accepted(route, answer)
    if "items" in answer.__struct_fields__:
        return _listed(answer, want=want)
    said = view(answer)
    if route.home and "id" in said:
        said["links"] = {"self": f"{_filled(route.home, want)}/{said['id']}"}
    return said


def view(thing: Struct) -> dict[str, Any]:
    """One view as JSON data: its own id first, tags of the wire left out at every depth."""
    said: dict[str, Any] = _untagged(thing)
    own = OWN_ID.get(type(thing))
    if own is None:
        return said
    return {"id": said.pop(own), **said}


def _accepted(route: Route, answer: Accepted) -> dict[str, Any]:
    return {
        "id": answer.resource_id,
        "job_id": answer.job_id,
        "links": {
            "self": f"{route.home}/{answer.resource_id}",
            "job": f"/v1/jobs/{answer.job_id}",
        },
    }


def _listed(answer: Struct, *, want: Struct) -> dict[str, Any]:
    items: tuple[Struct, ...] = answer.items  # type: ignore[attr-defined]
    limit = getattr(want, "limit", None)
    own = OWN_ID.get(type(items[-1])) if items else None
    full = limit is not None and own is not None and len(items) == limit
    return {
        "items": [view(item) for item in items],
        NEXT: getattr(items[-1], own) if full and own else None,
    }


def _untagged(value: Any) -> Any:
    if isinstance(value, Struct):
        return {
            field.encode_name: _untagged(getattr(value, field.name))
            for field in msgspec.structs.fields(value)
        }
    if isinstance(value, dict):
        return {key: _untagged(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_untagged(each) for each in value]
    return value


def _filled(path: str, want: Struct) -> str:
    for name in want.__struct_fields__:
        path = path.replace(f"{{{name}}}", str(getattr(want, name)))
    return path
