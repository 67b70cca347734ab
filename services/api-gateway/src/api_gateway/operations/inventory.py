"""Operations on zones, providers, stores and settings."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from api_gateway.operations.operation import Call, Operation, forwarded
from api_gateway.operations.sealing import seal_to_registry
from entrepot_contracts import registry
from entrepot_contracts.errors import Problem, Refused
from entrepot_contracts.ids import Id
from entrepot_contracts.registry import Accepted, AddStore
from entrepot_contracts.values import Name, Role, StoreRole

Config = Annotated[
    dict[str, Any],
    Meta(
        description="The provider's settings, secrets included; see GET /v1/providers for its "
        "schema. It travels sealed to the registry and its secrets are never shown again."
    ),
]


class AddStoreRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Name
    provider: Name
    config: Config
    zone_id: Id | None = None
    region: Name = "default"
    read_only: bool = False


def as_said(problem: Problem) -> Problem:
    """The registry speaks of `details`, which callers know as `config`."""
    head, dot, rest = (problem.field or "").partition(".")
    if head != "details":
        return problem
    return msgspec.structs.replace(problem, field=f"config{dot}{rest}")


def _adding(role: StoreRole) -> Operation:
    async def run(call: Call, want: AddStoreRequest) -> Accepted:
        details = await seal_to_registry(call, msgspec.json.encode(want.config))
        command = AddStore(
            actor=call.actor,
            store_id=call.ids.new(),
            job_id=call.ids.new(),
            role=role,
            name=want.name,
            provider=want.provider,
            details=details,
            zone_id=want.zone_id,
            region=want.region,
            read_only=want.read_only,
        )
        try:
            return await call.ask(command, Accepted)
        except Refused as refused:
            raise Refused.of(as_said(refused.problem)) from refused

    return Operation(
        name=f"{role}_store.add",
        summary=f"Add a store for the role {role}; it is up once a mover has probed it.",
        request=AddStoreRequest,
        reply=Accepted,
        run=run,
        role=Role.ADMIN,
    )


def _listing(role: StoreRole) -> Operation:
    return forwarded(
        f"{role}_store.list",
        f"The stores of the role {role}.",
        registry.ListStores,
        says=("page",),
        fixed={"role": role},
        role=Role.ADMIN,
    )


def _deleting(role: StoreRole) -> Operation:
    return forwarded(
        f"{role}_store.delete",
        "Remove a store; refused with code in_use while anything lives there.",
        registry.DeleteStore,
        says=("store_id",),
        role=Role.ADMIN,
    )


OPERATIONS: tuple[Operation, ...] = (
    forwarded(
        "zone.create",
        "Create a zone.",
        registry.CreateZone,
        says=("name", "region"),
        minted=("zone_id",),
        role=Role.ADMIN,
    ),
    forwarded("zone.list", "All zones.", registry.ListZones, says=("page",)),
    forwarded(
        "provider.list",
        "Store providers as movers announced them, with the schema of their settings.",
        registry.ListProviders,
    ),
    *(
        make(role)
        for role in (StoreRole.IMAGE, StoreRole.PRIMARY)
        for make in (_adding, _listing, _deleting)
    ),
    forwarded("setting.list", "All settings.", registry.GetSettings, role=Role.ADMIN),
    forwarded(
        "setting.put",
        "Change a setting.",
        registry.PutSetting,
        says=("name", "value"),
        role=Role.ADMIN,
    ),
)
