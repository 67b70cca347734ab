"""The PLUGIN value of the S3 store. Importing this module must not import the SDK."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from entrepot_contracts.values import Scope, StoreRole
from entrepot_plugin.plugin import StorePlugin
from entrepot_plugin.ports import ObjectStore
from entrepot_plugin.traits import StoreTraits
from entrepot_s3.config import S3Config


@asynccontextmanager
async def open_objects(config: S3Config) -> AsyncIterator[ObjectStore]:
    from entrepot_s3.client import connected
    from entrepot_s3.objects import S3Objects

    async with connected(config) as client:
        store = S3Objects(config=config, client=client)
        if config.create_bucket:
            await store.ensure_bucket()
        yield store


PLUGIN = StorePlugin(
    name="s3",
    version="0.1.0",
    config=S3Config,
    traits=StoreTraits(
        scopes=(Scope.REGION, Scope.ZONE),
        roles=(StoreRole.IMAGE, StoreRole.CACHE),
        part_bytes_min=5 << 20,
        part_bytes_max=5 << 30,
        parts_max=10_000,
        lists_parts=True,
        shares_links=True,
    ),
    open_objects=open_objects,
)
