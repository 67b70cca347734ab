"""Opening the ends a piece of work names: plugin, public config, secrets sealed to this mover."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import msgspec

from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.motion import ProviderFact, UrlEnd
from entrepot_contracts.values import Sealed, StoreSpec
from entrepot_plugin.plugin import StorePlugin
from entrepot_plugin.ports import ObjectStore, VolumeStore

Credentials = Mapping[str, Sealed]
WrapObjects = Callable[[ObjectStore], ObjectStore]
WrapVolumes = Callable[[VolumeStore], VolumeStore]


class Keys(Protocol):
    """The mover's key pair (chassis.seal.KeyPair)."""

    @property
    def public_key(self) -> str: ...
    def open(self, box: bytes) -> bytes: ...


class Stores:
    """Opens stores by spec; every opened one is closed with its block."""

    def __init__(
        self,
        plugins: Mapping[str, StorePlugin],
        keys: Keys,
        *,
        wrap_objects: WrapObjects = lambda store: store,
        wrap_volumes: WrapVolumes = lambda store: store,
    ) -> None:
        self._plugins = plugins
        self._keys = keys
        self._wrap_objects = wrap_objects
        self._wrap_volumes = wrap_volumes

    def plugin(self, spec: StoreSpec) -> StorePlugin:
        plugin = self._plugins.get(spec.provider)
        if plugin is None:
            raise Refused(
                Code.UNKNOWN_PROVIDER,
                f"this mover has no provider {spec.provider}",
                field="provider",
                hint="install the plugin beside the mover and enable it in its settings",
            )
        return plugin

    @asynccontextmanager
    async def objects(
        self, spec: StoreSpec, credentials: Credentials
    ) -> AsyncIterator[ObjectStore]:
        plugin = self.plugin(spec)
        if plugin.open_objects is None:
            raise _not_for(spec, "objects")
        async with plugin.open_objects(self._config(plugin, spec, credentials)) as store:
            yield self._wrap_objects(store)

    @asynccontextmanager
    async def volumes(
        self, spec: StoreSpec, credentials: Credentials
    ) -> AsyncIterator[VolumeStore]:
        plugin = self.plugin(spec)
        if plugin.open_volumes is None:
            raise _not_for(spec, "volumes")
        opened: AbstractAsyncContextManager[VolumeStore] = plugin.open_volumes(
            self._config(plugin, spec, credentials)
        )
        async with opened as store:
            yield self._wrap_volumes(store)

    def whole(self, end: UrlEnd, credentials: Credentials) -> UrlEnd:
        """With the query its grant gives: for the fetcher's eyes only."""
        if end.secret_id is None:
            return end
        query = self._secrets(end.secret_id, credentials).get("query")
        if not query:
            raise Refused(
                Code.UNAVAILABLE,
                "the query of the source URL was not given with the work",
                field="url",
                hint="register the template again if this does not pass by itself",
            )
        return msgspec.structs.replace(end, url=f"{end.url}?{query}", secret_id=None)

    def facts(self) -> tuple[ProviderFact, ...]:
        """What the mover announces of its plugins."""
        return tuple(
            ProviderFact(
                name=plugin.name,
                version=plugin.version,
                roles=plugin.traits.roles,
                scopes=plugin.traits.scopes,
                traits=msgspec.to_builtins(plugin.traits),
                config_schema=plugin.schema(),
            )
            for plugin in self._plugins.values()
        )

    def _config(self, plugin: StorePlugin, spec: StoreSpec, credentials: Credentials) -> Any:
        return plugin.parse(spec.config, self._secrets(spec.store_id, credentials))

    def _secrets(self, secret_id: str, credentials: Credentials) -> dict[str, Any]:
        sealed = credentials.get(secret_id)
        if sealed is None:
            return {}
        return msgspec.json.decode(self._keys.open(sealed.box), type=dict[str, Any])


def _not_for(spec: StoreSpec, what: str) -> Refused:
    return Refused(
        Code.INVALID,
        f"provider {spec.provider} keeps no {what}",
        field="provider",
        hint=f"GET /v1/providers tells which providers keep {what}",
    )
