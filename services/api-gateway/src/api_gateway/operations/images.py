"""Operations on templates, volumes and snapshots."""

from typing import Any

import msgspec
from msgspec import Struct

from api_gateway.operations.operation import Call, Operation, forwarded, request_struct
from api_gateway.operations.sealing import seal_to_registry
from entrepot_contracts import registry
from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.ids import Id
from entrepot_contracts.registry import Accepted, ExpiresS, ExtractTemplate, RegisterTemplate

_REGISTER = ("name", "url", "format", "scope", "zone_ids", "checksum", "public")


class ExtractTemplateRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    template_id: Id
    zone_id: Id | None = None
    expires_s: ExpiresS = 3600


async def _register(call: Call, want: Any) -> Accepted:
    """The query may be a signature, so it travels sealed; a fragment is for nobody but browsers."""
    url, _, query = want.url.partition("#")[0].partition("?")
    if not url:
        raise Refused(
            Code.INVALID,
            "the URL is a query or fragment only",
            field="url",
            hint="use the form https://host[:port]/path",
        )
    if "@" in url.partition("//")[2].partition("/")[0]:  # refused here: it must not ride the bus
        raise Refused(
            Code.INVALID,
            "the URL carries a user name or password",
            field="url",
            hint="leave out user:password@; a signed query is kept secret",
        )
    said = {field: getattr(want, field) for field in _REGISTER}
    command = RegisterTemplate(
        actor=call.actor,
        template_id=call.ids.new(),
        job_id=call.ids.new(),
        query=await seal_to_registry(call, query.encode()) if query else None,
        **said | {"url": url},
    )
    try:
        return await call.ask(command, Accepted)
    except Refused as refused:
        if refused.problem.field != "query":
            raise
        raise Refused.of(msgspec.structs.replace(refused.problem, field="url")) from refused


async def _extract(call: Call, want: ExtractTemplateRequest) -> Accepted:
    command = ExtractTemplate(
        actor=call.actor,
        template_id=want.template_id,
        job_id=call.ids.new(),
        seal_to=call.desk.links.public_key,
        zone_id=want.zone_id,
        expires_s=want.expires_s,
    )
    return await call.ask(command, Accepted)


_TEMPLATES: tuple[Operation, ...] = (
    Operation(
        name="template.register",
        summary="Register a template from an http(s) URL: one copy for the region, "
        "or one per zone.",
        request=request_struct("template.register", RegisterTemplate, _REGISTER),
        reply=Accepted,
        run=_register,
    ),
    forwarded(
        "template.list",
        "Own and public templates, with their copies.",
        registry.ListTemplates,
        says=("page",),
    ),
    forwarded(
        "template.get",
        "One template, with its copies.",
        registry.GetTemplate,
        says=("template_id",),
    ),
    forwarded(
        "template.delete",
        "Delete a template and its copies.",
        registry.DeleteTemplate,
        says=("template_id",),
        minted=("job_id",),
    ),
    Operation(
        name="template.extract",
        summary="Make an expiring link to the template's bytes; the job shows it to its owner.",
        request=ExtractTemplateRequest,
        reply=Accepted,
        run=_extract,
    ),
)

_VOLUMES: tuple[Operation, ...] = (
    forwarded(
        "volume.create",
        "Create a volume from a template, from a snapshot, or blank with size_bytes.",
        registry.CreateVolume,
        says=("name", "zone_id", "store_id", "template_id", "snapshot_id", "size_bytes"),
        minted=("volume_id", "job_id"),
    ),
    forwarded("volume.list", "Own volumes.", registry.ListVolumes, says=("page",)),
    forwarded("volume.get", "One volume.", registry.GetVolume, says=("volume_id",)),
    forwarded(
        "volume.delete",
        "Delete a volume.",
        registry.DeleteVolume,
        says=("volume_id",),
        minted=("job_id",),
    ),
)

_SNAPSHOTS: tuple[Operation, ...] = (
    forwarded(
        "snapshot.create",
        "Pin a volume's generation and back it up to an image store.",
        registry.CreateSnapshot,
        says=("volume_id", "name", "store_id"),
        minted=("snapshot_id", "job_id"),
    ),
    forwarded("snapshot.list", "Own snapshots.", registry.ListSnapshots, says=("page",)),
    forwarded(
        "snapshot.get",
        "One snapshot, with its copies.",
        registry.GetSnapshot,
        says=("snapshot_id",),
    ),
    forwarded(
        "snapshot.delete",
        "Delete a snapshot and its copies.",
        registry.DeleteSnapshot,
        says=("snapshot_id",),
        minted=("job_id",),
    ),
)

OPERATIONS: tuple[Operation, ...] = (*_TEMPLATES, *_VOLUMES, *_SNAPSHOTS)
