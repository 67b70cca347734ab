"""Asking an owner: send a command, get its reply, or raise the refusal it answered with."""

from typing import Protocol, TypeVar

from msgspec import Struct

from entrepot_contracts.catalog import command_of
from entrepot_contracts.errors import Problem, Refused

T = TypeVar("T")


class Requester(Protocol):
    """What `ask` needs of a bus (chassis.bus.Bus is one)."""

    async def request(
        self, subject: str, message: Struct, *, reply: type[T], timeout_s: float
    ) -> T: ...


async def ask(bus: Requester, command: Struct, *, timeout_s: float = 5.0) -> Struct:
    """Answer of the command's owner; the type is `command_of(type(command)).reply`.

    Raises Refused when the owner said no; whatever the bus raises when nobody answered in time,
    which means "unknown": ask again with the same ids.
    """
    entry = command_of(type(command))
    answer: Struct = await bus.request(
        entry.subject,
        command,
        reply=entry.reply | Problem,  # type: ignore[arg-type]
        timeout_s=timeout_s,
    )
    if isinstance(answer, Problem):
        raise Refused.of(answer)
    return answer
