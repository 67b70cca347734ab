"""GET /v1/events: the caller's events as they happen, by server-sent events."""

from collections.abc import AsyncIterator
from typing import Annotated

from litestar import Response
from litestar.response import Stream
from msgspec import Meta, Struct

from api_gateway.accounts import Accounts
from api_gateway.callers import Caller
from api_gateway.events import EventRing, Happening
from api_gateway.reading import request_of
from api_gateway.rest.face import AnyRequest, identify, refusal
from entrepot_contracts.errors import Code, Refused

KEEP_ALIVE = b": keep-alive\n\n"
LAST_ID_CHARS_MAX = 64


class WatchRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    all_accounts: Annotated[bool, Meta(description="Administrators: events of every account.")] = (
        False
    )


class Watch:
    def __init__(self, ring: EventRing, accounts: Accounts, *, keep_alive_s: float) -> None:
        self._ring = ring
        self._accounts = accounts
        self._keep_alive_s = keep_alive_s

    async def serve(self, request: AnyRequest) -> Response[bytes] | Stream:
        try:
            caller = await identify(self._accounts, request.headers)
            account_id = self._watched(caller, request)
        except Exception as error:  # noqa: BLE001 - the border where errors become answers
            return refusal(error)
        return Stream(
            self._lines(account_id, request),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    def _watched(self, caller: Caller, request: AnyRequest) -> str | None:
        """The account whose events to show; None: every account."""
        query = request.query_params.multi_items()
        want = request_of(WatchRequest, path={}, query=query, body=None)
        assert isinstance(want, WatchRequest)
        if want.all_accounts and not caller.is_admin:
            raise Refused(
                Code.FORBIDDEN,
                "only administrators watch every account",
                field="all_accounts",
                hint="leave it out to watch your own account",
            )
        if self._ring.full:
            raise Refused(
                Code.UNAVAILABLE, "too many event streams are open", hint="try again later"
            )
        return None if want.all_accounts else caller.actor.account_id

    async def _lines(self, account_id: str | None, request: AnyRequest) -> AsyncIterator[bytes]:
        """Ends when the credential stops being valid, at the next event or keep-alive."""
        last_id = request.headers.get("last-event-id", "")[:LAST_ID_CHARS_MAX] or None
        watcher = self._ring.enter(account_id=account_id, last_id=last_id)
        try:
            yield KEEP_ALIVE
            while not self._ring.closed:
                happenings = await watcher.next(timeout_s=self._keep_alive_s)
                if not await self._still_valid(request):
                    return
                yield b"".join(map(_lines_of, happenings)) or KEEP_ALIVE
        finally:
            self._ring.leave(watcher)

    async def _still_valid(self, request: AnyRequest) -> bool:
        try:
            await identify(self._accounts, request.headers)
        except Refused:
            return False
        return True


def _lines_of(happening: Happening) -> bytes:
    head = f"id: {happening.event_id}\n" if happening.event_id else ""
    return f"{head}event: {happening.kind}\ndata: ".encode() + happening.data + b"\n\n"
