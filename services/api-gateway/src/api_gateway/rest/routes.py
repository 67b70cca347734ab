"""Where each operation lives in `/v1`; handlers, OpenAPI and the test matrix come from it."""

import re
from http import HTTPMethod, HTTPStatus

from msgspec import Struct

from api_gateway.operations import Operation, operation_named

_PARAMETER = re.compile(r"\{(\w+)\}")


class Route(Struct, frozen=True, kw_only=True):
    method: HTTPMethod
    path: str  # "/v1/templates/{template_id}"
    operation: Operation
    status: HTTPStatus  # of success
    home: str = ""  # collection the answer's resource lives in; links are made from it

    @property
    def path_fields(self) -> tuple[str, ...]:
        return tuple(_PARAMETER.findall(self.path))

    @property
    def has_body(self) -> bool:
        return self.method in (HTTPMethod.POST, HTTPMethod.PUT)


def _get(path: str, name: str) -> Route:
    return _route(HTTPMethod.GET, path, name, HTTPStatus.OK)


def _make(path: str, name: str) -> Route:
    """Done when answered."""
    return _route(HTTPMethod.POST, path, name, HTTPStatus.CREATED, home=path)


def _start(path: str, name: str, *, home: str) -> Route:
    """Accepted: a job does it."""
    return _route(HTTPMethod.POST, path, name, HTTPStatus.ACCEPTED, home=home)


def _drop(path: str, name: str) -> Route:
    return _route(HTTPMethod.DELETE, path, name, HTTPStatus.NO_CONTENT)


def _start_drop(path: str, name: str) -> Route:
    home = path.rsplit("/", 1)[0]
    return _route(HTTPMethod.DELETE, path, name, HTTPStatus.ACCEPTED, home=home)


def _put(path: str, name: str) -> Route:
    return _route(HTTPMethod.PUT, path, name, HTTPStatus.OK)


def _route(
    method: HTTPMethod, path: str, name: str, status: HTTPStatus, *, home: str = ""
) -> Route:
    return Route(
        method=method, path=path, operation=operation_named(name), status=status, home=home
    )


ROUTES: tuple[Route, ...] = (
    _get("/v1/me", "me.get"),
    _make("/v1/accounts", "account.create"),
    _get("/v1/accounts", "account.list"),
    _make("/v1/accounts/{account_id}/keys", "key.create"),
    _get("/v1/accounts/{account_id}/keys", "key.list"),
    _drop("/v1/accounts/{account_id}/keys/{key_id}", "key.revoke"),
    _make("/v1/zones", "zone.create"),
    _get("/v1/zones", "zone.list"),
    _get("/v1/providers", "provider.list"),
    _start("/v1/image-stores", "image_store.add", home="/v1/image-stores"),
    _get("/v1/image-stores", "image_store.list"),
    _drop("/v1/image-stores/{store_id}", "image_store.delete"),
    _start("/v1/primary-stores", "primary_store.add", home="/v1/primary-stores"),
    _get("/v1/primary-stores", "primary_store.list"),
    _drop("/v1/primary-stores/{store_id}", "primary_store.delete"),
    _get("/v1/settings", "setting.list"),
    _put("/v1/settings/{name}", "setting.put"),
    _start("/v1/templates", "template.register", home="/v1/templates"),
    _get("/v1/templates", "template.list"),
    _get("/v1/templates/{template_id}", "template.get"),
    _start_drop("/v1/templates/{template_id}", "template.delete"),
    _start("/v1/templates/{template_id}/extract", "template.extract", home="/v1/templates"),
    _start("/v1/volumes", "volume.create", home="/v1/volumes"),
    _get("/v1/volumes", "volume.list"),
    _get("/v1/volumes/{volume_id}", "volume.get"),
    _start_drop("/v1/volumes/{volume_id}", "volume.delete"),
    _start("/v1/snapshots", "snapshot.create", home="/v1/snapshots"),
    _get("/v1/snapshots", "snapshot.list"),
    _get("/v1/snapshots/{snapshot_id}", "snapshot.get"),
    _start_drop("/v1/snapshots/{snapshot_id}", "snapshot.delete"),
    _get("/v1/jobs", "job.list"),
    _get("/v1/jobs/{job_id}", "job.get"),
    _get("/v1/transfers", "transfer.list"),
    _get("/v1/transfers/{transfer_id}", "transfer.get"),
    _route(
        HTTPMethod.POST,
        "/v1/transfers/{transfer_id}/cancel",
        "transfer.cancel",
        HTTPStatus.NO_CONTENT,
    ),
    _get("/v1/movers", "mover.list"),
    _make("/v1/cache-pools", "cache_pool.add"),
    _get("/v1/cache-pools", "cache_pool.list"),
    _drop("/v1/cache-pools/{pool_id}", "cache_pool.remove"),
    _make("/v1/scaling-pools", "scaling_pool.create"),
    _get("/v1/scaling-pools", "scaling_pool.list"),
    _put("/v1/scaling-pools/{pool_id}", "scaling_pool.put"),
)
