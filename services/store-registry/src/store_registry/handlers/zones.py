"""Zones: made by administrators, seen by all."""

from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.registry import CreateZone, ListZones, ZoneList, ZoneView
from store_registry.registry import Registry
from store_registry.rows import Zone
from store_registry.rules.ownership import require_admin
from store_registry.views import zone_view


async def create_zone(registry: Registry, command: CreateZone) -> ZoneView:
    require_admin(command.actor, "create zones")
    async with registry.database.transaction() as tx:
        there = await tx.get(Zone, command.zone_id)
        if there is None:
            fresh = Zone(
                zone_id=command.zone_id,
                name=command.name,
                region=command.region,
                created_at=await tx.now(),
            )
            if not await tx.find(Zone, where={"name": command.name}) and await tx.add(fresh):
                return zone_view(fresh)
            # Somebody was first: with the same id, or with the same name.
            there = await tx.get(Zone, command.zone_id)
    if there is None:
        raise Refused(
            Code.CONFLICT,
            f"there is a zone {command.name} already",
            field="name",
            hint="zone names are unique: choose another",
        )
    if (there.name, there.region) != (command.name, command.region):
        raise Refused(
            Code.CONFLICT,
            "this zone_id was used for another zone",
            field="zone_id",
            hint="mint a fresh id for a new zone",
        )
    return zone_view(there)


async def list_zones(registry: Registry, command: ListZones) -> ZoneList:
    async with registry.database.transaction() as tx:
        rows = await tx.find(Zone, after=command.page.after, limit=command.page.limit)
    return ZoneList(items=tuple(map(zone_view, rows)))
