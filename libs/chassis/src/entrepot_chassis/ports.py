"""What services are written against: clock, ids, bus, database. Real ones beside it, fakes in
testkit; both pass the contract suite in testkit, so the same service code runs in the simulation.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from msgspec import Struct

T = TypeVar("T")
R = TypeVar("R", bound=Struct)


# --- time and identity ------------------------------------------------------------------------


class Clock(Protocol):
    def now(self) -> datetime:
        """Aware UTC. For display and expiry of our own links; never decides ownership."""
        ...

    def monotonic(self) -> float:
        """Seconds; only differences mean something."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class Ids(Protocol):
    def new(self) -> str:
        """A fresh UUIDv7 in text."""
        ...


# --- bus --------------------------------------------------------------------------------------


class Unanswered(Exception):
    """Nobody answered in time. The command may have been carried out: ask again, same ids."""

    def __init__(self, subject: str, reason: str) -> None:
        super().__init__(f"no answer on {subject}: {reason}")
        self.subject = subject
        self.reason = reason


class Retryable(Exception):
    """The same call may succeed a moment later; nothing was decided."""


class DatabaseUnavailable(Retryable):
    """No connection, or it was lost: if a commit was under way its outcome is unknown."""


class TransactionConflict(Retryable):
    """Deadlock or serialization failure; everything was rolled back. Run the whole again."""


class Misconfigured(Exception):
    """The service cannot start like this, and restarting will not help: exit code 78."""


class SomeFailed(Exception):
    """From a batch handler: these are to be delivered again, all others are done."""

    def __init__(self, msg_ids: frozenset[str]) -> None:
        super().__init__(f"{len(msg_ids)} of the batch to be delivered again")
        self.msg_ids = msg_ids


class Delivered(Struct, frozen=True, kw_only=True):
    """One event off the stream. `msg_id` is the producer's, the key of the inbox."""

    subject: str
    msg_id: str
    message: Struct
    headers: dict[str, str] = {}
    deliveries: int = 1  # a hint of the broker: 1 = it believes this is the first time


Handler = Callable[[Any], Awaitable[Struct]]
BatchHandler = Callable[[Sequence[Delivered]], Awaitable[None]]


class Bus(Protocol):
    """Commands by request/reply, events by durable consumers, telemetry by plain publish.

    `answer`, `listen` and `consume` are entered once in app.py; leaving them drains: intake stops,
    what runs finishes or is cancelled after the drain deadline.
    """

    async def request(
        self, subject: str, message: Struct, *, reply: type[T], timeout_s: float
    ) -> T:
        """Raises Unanswered. `reply` may be a union of tagged structs."""
        ...

    def answer(
        self,
        subject: str,
        message: type[Struct],
        handler: Handler,
        *,
        queue: str,
        failure: Callable[[BaseException], Struct],
        in_flight_max: int = 64,
    ) -> AbstractAsyncContextManager[None]:
        """Answer one subject, up to `in_flight_max` at once. What the handler raises, and a body
        that does not decode, is answered as `failure(error)`.
        """
        ...

    async def publish(self, subject: str, message: Struct) -> None:
        """Core publish: telemetry and bells. Never raises for a bus that is down."""
        ...

    def listen(
        self, subject: str, message: type[Struct], handler: Callable[[Any], Awaitable[None]]
    ) -> AbstractAsyncContextManager[None]:
        """Core subscribe, every instance hears everything; an undecodable body is counted."""
        ...

    async def publish_events(self, events: "Sequence[OutboxEvent]") -> None:
        """To the event stream, in order, all or an error; a repeat with the same msg_id is one."""
        ...

    def consume(
        self,
        *,
        durable: str,
        subjects: Sequence[str],
        messages: Sequence[type[Struct]],
        handler: BatchHandler,
        undecodable: Callable[[str, str, bytes, str], Awaitable[None]],
        batch_max: int = 100,
    ) -> AbstractAsyncContextManager[None]:
        """Durable pull consumer. A batch is acknowledged after `handler` returned, delivered again
        if it raised; of `SomeFailed` only the ones it names. A body of unknown tag or
        shape goes to `undecodable(subject, msg_id, body, why)` (which parks it) and is then
        acknowledged.
        """
        ...


class StreamMark(Struct, frozen=True, kw_only=True):
    """Which event stream it is: another `born`, or a `last_seq` going back, means it was lost."""

    born: str
    last_seq: int


class OutboxEvent(Struct, frozen=True, kw_only=True):
    msg_id: str
    subject: str
    data: bytes
    headers: dict[str, str] = {}


@runtime_checkable
class WatchesStream(Protocol):
    """Optional power of a bus: telling whether the broker lost its store."""

    async def stream_mark(self) -> StreamMark:
        """Makes the event stream if it is missing."""
        ...


# --- database ---------------------------------------------------------------------------------


class Table(Struct, frozen=True, kw_only=True):
    """How a row struct is kept: columns are its fields. Nested structs, dicts and tuples are
    jsonb; StrEnum is text; datetime is timestamptz; bytes is bytea.
    """

    name: str
    key: str  # primary key field


class Row(Struct, kw_only=True):
    """Base of all rows: mutable copies of what the database holds; `put` writes them back."""

    TABLE: ClassVar[Table]


RowT = TypeVar("RowT", bound=Row)


class Transaction(Protocol):
    """All or nothing. Rows got with `lock` stay ours until the end. Emitted events commit with it:
    agg_version is assigned per aggregate, msg_id is `<service>:<aggregate>:<agg_version>`.
    """

    async def get(self, kind: type[RowT], key: str, *, lock: bool = False) -> RowT | None: ...

    async def find(
        self,
        kind: type[RowT],
        *,
        where: Mapping[str, object] | None = None,
        after: object | None = None,
        descending: bool = False,
        limit: int = 1000,
        lock: bool = False,
    ) -> list[RowT]:
        """Rows whose columns equal `where` (a list, tuple or set value means "one of"), ordered by
        key, beginning after key `after`.
        """
        ...

    async def put(self, row: Row) -> None:
        """Insert, or replace the row of the same key."""
        ...

    async def add(self, row: Row) -> bool:
        """Insert unless the key (or a unique column) is taken; True if inserted."""
        ...

    async def remove(self, kind: type[Row], key: str) -> None: ...

    async def emit(self, aggregate: str, subject: str, message: Struct) -> None:
        """Append to event_log (history and outbox)."""
        ...

    async def first_sight(self, consumer: str, msg_id: str) -> bool:
        """Record in the inbox; False if this message was handled before."""
        ...

    async def park(
        self, *, consumer: str, msg_id: str, subject: str, body: bytes, why: str
    ) -> None:
        """To dead_letter: it could not be understood or handled, and must not be lost."""
        ...

    async def now(self) -> datetime:
        """The database's clock: the only one that decides leases."""
        ...


class EventLog(Protocol):
    """What the relay needs of the outbox."""

    async def unpublished(self, limit: int) -> Sequence[tuple[int, OutboxEvent]]: ...
    async def mark_published(self, ids: Sequence[int]) -> None: ...
    async def unpublish_since(self, seconds: float) -> int:
        """After a broker wipe: queue everything of that age again; returns how many."""
        ...


@runtime_checkable
class Database(Protocol):
    def transaction(self) -> AbstractAsyncContextManager[Transaction]: ...

    @property
    def events(self) -> EventLog: ...


@runtime_checkable
class Elects(Protocol):
    """Optional power of a database: one holder of a name at a time among all instances."""

    def advisory_lock(self, name: str) -> AbstractAsyncContextManager[Callable[[], bool]]:
        """Waits until it is ours; gives `held()`, false once the lock was lost."""
        ...


class Hint(Protocol):
    """Something that may have happened; a poll stands behind it."""

    async def wait(self, timeout_s: float) -> None:
        """Returns when hinted, or after `timeout_s`."""
        ...


@runtime_checkable
class Hints(Protocol):
    """Optional power of a database: telling at once that something was emitted."""

    def event_hint(self) -> AbstractAsyncContextManager[Hint]: ...
