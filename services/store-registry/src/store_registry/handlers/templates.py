"""Templates: registered from an URL, listed, offered by link, deleted."""

from entrepot_chassis.ports import Transaction
from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.motion import LinkWork, UrlEnd
from entrepot_contracts.registry import (
    Accepted,
    DeleteTemplate,
    ExtractTemplate,
    GetTemplate,
    ListTemplates,
    RegisterTemplate,
    TemplateList,
    TemplateView,
)
from entrepot_contracts.values import CopyState, ResourceState, Scope, StoreRole
from store_registry.handlers.accepting import Opening, accept
from store_registry.handlers.placing import (
    add_refs,
    places_of,
    ready_refs,
    refs_by_owner,
    still_writable,
)
from store_registry.inventory import known_zone, load_limits, spec_of, stores_of, traits_of
from store_registry.jobs import sagas
from store_registry.jobs.endings.copies import refs_of
from store_registry.jobs.endings.templates import announce_template
from store_registry.jobs.holds import refuse_if_held
from store_registry.jobs.runner import Taken, begin
from store_registry.jobs.sagas import Kind, Place
from store_registry.registry import Registry
from store_registry.rows import Store, StoreRef, Template, TemplateStoreRef
from store_registry.rules.naming import check_bare, check_url, file_name, scrub_url, template_prefix
from store_registry.rules.ownership import changeable, is_admin, seen
from store_registry.rules.placement import for_region, for_zone, readable_copy
from store_registry.rules.requests import check_checksum, check_zones
from store_registry.source_query import open_query, sealed_query
from store_registry.views import template_view

_LISTED = [state for state in ResourceState if state is not ResourceState.DELETED]


async def register_template(registry: Registry, command: RegisterTemplate) -> Accepted:
    check_zones(command)
    check_checksum(command.checksum)
    query = open_query(registry.keys, command)

    async def decide(tx: Transaction, opening: Opening) -> Accepted:
        limits = await load_limits(tx)
        check_bare(command.url)
        check_url(command.url if query is None else f"{command.url}?{query}", limits.url_schemes)
        stores = await _targets(tx, command)
        source = UrlEnd(
            url=command.url,
            format=command.format,
            checksum=command.checksum,
            size_bytes_max=limits.template_size_bytes_max,
            virtual_size_bytes_max=limits.template_virtual_size_bytes_max,
            secret_id=None if query is None else command.template_id,
        )
        prefix = template_prefix(opening.account_id, command.template_id)
        places = [Place(store=spec_of(store), prefix=prefix) for store in stores]
        saga = sagas.register_template(opening.asker, source, places)
        kept = sealed_query(registry.keys, command.template_id, query)
        template = _new_template(command, opening, kept)
        if not await tx.add(template):
            raise Taken
        await add_refs(
            tx, TemplateStoreRef, opening, places, [ask.transfer_id for ask in saga.steps[0].asks]
        )
        await announce_template(tx, template)
        return await begin(
            tx,
            opening.job(saga),
            exclusive=(command.template_id,),
            reading=tuple(store.store_id for store in stores),
        )

    return await accept(
        registry,
        command,
        Kind.TEMPLATE_REGISTER,
        decide,
        resource="template_id",
        creates=True,
        opened={} if query is None else {"query": query},
    )


async def get_template(registry: Registry, command: GetTemplate) -> TemplateView:
    async with registry.database.transaction() as tx:
        template = _seen(command, await tx.get(Template, command.template_id))
        refs = await refs_of(tx, TemplateStoreRef, template.template_id)
    return template_view(template, refs)


async def list_templates(registry: Registry, command: ListTemplates) -> TemplateList:
    """An account's own and the public ones; all for an administrator."""
    page, actor = command.page, command.actor
    async with registry.database.transaction() as tx:
        wanted: list[dict[str, object]] = (
            [{}] if is_admin(actor) else [{"account_id": actor.account_id}, {"public": True}]
        )
        found: dict[str, Template] = {}
        for where in wanted:
            rows = await tx.find(
                Template,
                where={**where, "state": _LISTED},
                after=page.after,
                limit=page.limit,
            )
            found.update({row.template_id: row for row in rows})
        listed = [found[key] for key in sorted(found)][: page.limit]
        refs = await refs_by_owner(tx, TemplateStoreRef, [row.template_id for row in listed])
    return TemplateList(items=tuple(template_view(row, refs[row.template_id]) for row in listed))


async def delete_template(registry: Registry, command: DeleteTemplate) -> Accepted:
    async def decide(tx: Transaction, opening: Opening) -> Accepted:
        row = await tx.get(Template, command.template_id, lock=True)
        template = changeable(
            command.actor,
            _there(row),
            noun="template",
            resource_id=command.template_id,
            field="template_id",
            public=row is not None and row.public,
        )
        await refuse_if_held(
            tx, template.template_id, noun="template", field="template_id", code=Code.IN_USE
        )
        refs = await refs_of(tx, TemplateStoreRef, template.template_id, lock=True)
        places = await places_of(tx, refs)
        for ref in refs:
            ref.state = CopyState.DESTROYING
            await tx.put(ref)
        template.state = ResourceState.DELETING
        template.job_id = opening.job_id
        await tx.put(template)
        await announce_template(tx, template)
        return await begin(
            tx,
            opening.job(sagas.delete_objects(opening.asker, places)),
            exclusive=(template.template_id,),
            reading=tuple(place.store.store_id for place in places),
        )

    return await accept(registry, command, Kind.TEMPLATE_DELETE, decide, resource="template_id")


async def extract_template(registry: Registry, command: ExtractTemplate) -> Accepted:
    async def decide(tx: Transaction, opening: Opening) -> Accepted:
        template = _seen(command, await tx.get(Template, command.template_id, lock=True))
        if command.zone_id is not None:
            await known_zone(tx, command.zone_id, "zone_id")
        await refuse_if_held(
            tx,
            template.template_id,
            noun="template",
            field="template_id",
            code=Code.CONFLICT,
            reading=True,
        )
        require_ready(template)
        ref, store = await _linkable(tx, template, command.zone_id)
        assert ref.stored is not None, "a ready copy names its object"
        work = LinkWork(
            store=spec_of(store),
            stored=ref.stored,
            file_name=file_name(template.name, template.format),
            expires_s=command.expires_s,
            seal_to=command.seal_to,
        )
        return await begin(
            tx,
            opening.job(sagas.extract(opening.asker, work)),
            exclusive=(),
            reading=(template.template_id, store.store_id),
        )

    return await accept(registry, command, Kind.TEMPLATE_EXTRACT, decide, resource="template_id")


def require_ready(template: Template) -> None:
    if template.state is not ResourceState.READY:
        raise Refused(
            Code.CONFLICT,
            f"the template {template.template_id} is {template.state}, not ready",
            field="template_id",
            hint="wait for its job, or register it anew if it failed",
        )


# --- registering ------------------------------------------------------------------------------


async def _targets(tx: Transaction, command: RegisterTemplate) -> list[Store]:
    """One store for the region, or one per zone, locked so that none goes away meanwhile."""
    for zone_id in command.zone_ids:
        await known_zone(tx, zone_id, "zone_ids")
    stores = await stores_of(tx, StoreRole.IMAGE)
    if command.scope is Scope.REGION:
        chosen = [for_region(stores)]
    else:
        chosen = [for_zone(stores, zone_id) for zone_id in command.zone_ids]
    return await still_writable(tx, chosen)


def _new_template(command: RegisterTemplate, opening: Opening, kept: bytes | None) -> Template:
    return Template(
        template_id=command.template_id,
        account_id=opening.account_id,
        name=command.name,
        url=scrub_url(command.url),
        format=command.format,
        scope=command.scope,
        public=command.public,
        state=ResourceState.CREATING,
        created_at=opening.now,
        checksum=command.checksum,
        job_id=opening.job_id,
        source_query=kept,
    )


# --- finding ----------------------------------------------------------------------------------


def _there(row: Template | None) -> Template | None:
    return None if row is None or row.state is ResourceState.DELETED else row


def _seen(command: GetTemplate | ExtractTemplate, row: Template | None) -> Template:
    return seen(
        command.actor,
        _there(row),
        noun="template",
        resource_id=command.template_id,
        field="template_id",
        public=row is not None and row.public,
    )


async def _linkable(
    tx: Transaction, template: Template, zone_id: str | None
) -> tuple[StoreRef, Store]:
    """A ready copy on a store that can give out links."""
    stores = [
        store
        for store in await stores_of(tx, StoreRole.IMAGE)
        if (await traits_of(tx, store.provider)).get("shares_links")
    ]
    refs = await ready_refs(tx, TemplateStoreRef, template.template_id)
    found = readable_copy(refs, stores, zone_id)
    if found is None:
        raise Refused(
            Code.NO_STORE,
            "no copy of the template lies on a store that is up and gives out links",
            field="template_id",
            hint="register the template on a store whose provider shares links",
        )
    return found
