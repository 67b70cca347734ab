"""The PLUGIN value of the directory store and how its two roles are opened."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from entrepot_contracts.values import Scope, StoreRole
from entrepot_file.config import FileConfig
from entrepot_file.objects import FileObjects
from entrepot_file.threads import Lanes
from entrepot_file.volumes import FileVolumes
from entrepot_plugin.plugin import StorePlugin
from entrepot_plugin.traits import StoreTraits


@asynccontextmanager
async def open_objects(config: FileConfig) -> AsyncIterator[FileObjects]:
    with Lanes(config.io_threads) as lanes:
        yield FileObjects(config=config, lanes=lanes)


@asynccontextmanager
async def open_volumes(config: FileConfig) -> AsyncIterator[FileVolumes]:
    with Lanes(config.io_threads) as lanes:
        yield FileVolumes(config=config, lanes=lanes)


PLUGIN = StorePlugin(
    name="file",
    version="0.1.0",
    config=FileConfig,
    traits=StoreTraits(
        scopes=(Scope.ZONE,),
        roles=(StoreRole.IMAGE, StoreRole.PRIMARY, StoreRole.CACHE),
        copies_inside=True,
        reports_capacity=True,
        volume_formats=("qcow2", "raw"),
        reach_label="path-host",
        reach_config="host",
    ),
    open_objects=open_objects,
    open_volumes=open_volumes,
)
