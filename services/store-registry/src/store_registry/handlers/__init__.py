"""One function per command of the catalogue: `async (registry, command) -> reply`, or Refused."""

from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct

from entrepot_contracts import registry as said
from store_registry.handlers import (
    credentials,
    jobs,
    providers,
    settings,
    snapshots,
    stores,
    templates,
    volumes,
    zones,
)

Handler = Callable[[Any, Any], Awaitable[Struct]]

HANDLERS: dict[type[Struct], Handler] = {
    said.CreateZone: zones.create_zone,
    said.ListZones: zones.list_zones,
    said.ListProviders: providers.list_providers,
    said.AddStore: stores.add_store,
    said.ListStores: stores.list_stores,
    said.DeleteStore: stores.delete_store,
    said.GetSealingKey: credentials.get_sealing_key,
    said.SealCredentials: credentials.seal_credentials,
    said.RegisterTemplate: templates.register_template,
    said.GetTemplate: templates.get_template,
    said.ListTemplates: templates.list_templates,
    said.DeleteTemplate: templates.delete_template,
    said.ExtractTemplate: templates.extract_template,
    said.CreateVolume: volumes.create_volume,
    said.GetVolume: volumes.get_volume,
    said.ListVolumes: volumes.list_volumes,
    said.DeleteVolume: volumes.delete_volume,
    said.CreateSnapshot: snapshots.create_snapshot,
    said.GetSnapshot: snapshots.get_snapshot,
    said.ListSnapshots: snapshots.list_snapshots,
    said.DeleteSnapshot: snapshots.delete_snapshot,
    said.GetJob: jobs.get_job,
    said.ListJobs: jobs.list_jobs,
    said.GetSettings: settings.get_settings,
    said.PutSetting: settings.put_setting,
}
