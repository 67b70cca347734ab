"""One operation: who may call it, the schema of what they may say, the command it becomes."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import NODEFAULT, Struct

from api_gateway.accounts import Accounts
from api_gateway.callers import Caller
from api_gateway.links import LinkOpener
from entrepot_chassis.ports import Bus, Clock, Ids
from entrepot_contracts.calls import ask
from entrepot_contracts.catalog import command_of
from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.registry import Page
from entrepot_contracts.values import Actor, Role

V = TypeVar("V", bound=Struct)


class Desk(Struct, frozen=True, kw_only=True):
    """What operations work with; made once, in app.py."""

    bus: Bus
    accounts: Accounts
    links: LinkOpener
    clock: Clock
    ask_timeout_s: float
    seal: Callable[[str, bytes], bytes]  # (recipient's public key, data) -> box: chassis.seal.seal


class Call(Struct, frozen=True, kw_only=True):
    """One call of one operation. `ids` repeats the same ids when the call is repeated."""

    caller: Caller
    desk: Desk
    ids: Ids

    @property
    def actor(self) -> Actor:
        return self.caller.actor

    async def ask(self, command: Struct, reply: type[V], *, extra_s: float = 0.0) -> V:
        """Answer of the command's owner. Raises Refused, or Unanswered."""
        answer = await ask(self.desk.bus, command, timeout_s=self.desk.ask_timeout_s + extra_s)
        assert isinstance(answer, reply), (type(answer), reply)
        return answer


Run = Callable[[Call, Any], Awaitable[Struct]]


class Operation(Struct, frozen=True, kw_only=True):
    """`request` is everything the caller may say, whatever the face; unknown fields are refused."""

    name: str  # "template.register": also the operationId, and what listApis will call it
    summary: str
    request: type[Struct]
    reply: type[Struct]
    run: Run
    role: Role = Role.USER  # the least role that may call it
    once: tuple[str, ...] = ()  # fields of the reply that are shown once and never stored


def permit(operation: Operation, caller: Caller) -> None:
    """Raises Refused(forbidden) unless the caller's role covers the operation."""
    if operation.role is Role.ADMIN and caller.actor.role is not Role.ADMIN:
        raise Refused(
            Code.FORBIDDEN,
            f"{operation.name} is for administrators",
            hint="use a key of an administrator account",
        )


def forwarded(
    name: str,
    summary: str,
    command: type[Struct],
    *,
    says: tuple[str, ...] = (),
    minted: tuple[str, ...] = (),
    fixed: Mapping[str, object] | None = None,
    role: Role = Role.USER,
) -> Operation:
    """An operation that is a contracts command and nothing more.

    `says` is the allow-list of fields a caller may write; `minted` are ids the gateway makes;
    `fixed` are set by the gateway; `actor` always comes from the credential. Every field of the
    command must be filed in one of these, so a field added to the contract is never writable
    from outside by accident.
    """
    fixed = fixed or {}
    filed = {"actor", *says, *minted, *fixed}
    actual = {field.name for field in msgspec.structs.fields(command)}
    assert filed == actual, f"{name}: fields not filed or unknown: {sorted(filed ^ actual)}"

    async def run(call: Call, want: Struct) -> Struct:
        values: dict[str, object] = {
            field: getattr(want, field) for field in says if field != "page"
        }
        if "page" in says:
            values["page"] = Page(after=getattr(want, "after"), limit=getattr(want, "limit"))  # noqa: B009
        values |= {field: call.ids.new() for field in minted}
        values |= fixed
        if "actor" in actual:
            values["actor"] = call.actor
        return await call.ask(command(**values), command_of(command).reply)

    return Operation(
        name=name,
        summary=summary,
        request=request_struct(name, command, says),
        reply=command_of(command).reply,
        run=run,
        role=role,
    )


def request_struct(name: str, command: type[Struct], says: tuple[str, ...]) -> type[Struct]:
    """A struct of the command's fields in `says` (a page flattened), unknown fields refused."""
    by_name = {field.name: field for field in msgspec.structs.fields(command)}
    fields: list[Any] = []
    for each in says:
        parts = msgspec.structs.fields(Page) if each == "page" else (by_name[each],)
        fields.extend(_definition(part) for part in parts)
    title = "".join(part.title() for word in name.split(".") for part in word.split("_"))
    return msgspec.defstruct(
        f"{title}Request", fields, frozen=True, kw_only=True, forbid_unknown_fields=True
    )


def _definition(field: msgspec.structs.FieldInfo) -> Any:
    if field.default is not NODEFAULT:
        return field.name, field.type, field.default
    if field.default_factory is not NODEFAULT:
        return field.name, field.type, msgspec.field(default_factory=field.default_factory)
    return field.name, field.type
