"""Settings that administrators may change while everything runs."""

from entrepot_chassis.ports import Transaction
from entrepot_contracts.registry import GetSettings, PutSetting, SettingList, SettingView
from store_registry.registry import Registry
from store_registry.rows import Setting
from store_registry.rules.limits import KNOWN, check_setting
from store_registry.rules.ownership import require_admin


async def get_settings(registry: Registry, command: GetSettings) -> SettingList:
    require_admin(command.actor, "read settings")
    async with registry.database.transaction() as tx:
        return await _all(tx)


async def put_setting(registry: Registry, command: PutSetting) -> SettingList:
    require_admin(command.actor, "change settings")
    check_setting(command.name, command.value)
    async with registry.database.transaction() as tx:
        await tx.put(Setting(name=command.name, value=command.value, updated_at=await tx.now()))
        return await _all(tx)


async def _all(tx: Transaction) -> SettingList:
    values = {row.name: row.value for row in await tx.find(Setting)}
    return SettingList(
        items=tuple(
            SettingView(
                name=known.name,
                value=values.get(known.name, known.default),
                default=known.default,
                help=f"{known.help}; takes {known.takes}",
            )
            for known in KNOWN.values()
        )
    )
