"""Sessions outside the pool (advisory locks, LISTEN), and what asyncpg's errors mean."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import asyncpg  # type: ignore[import-untyped]

from entrepot_chassis import work
from entrepot_chassis.ports import Clock, DatabaseUnavailable, TransactionConflict

_COMMAND_TIMEOUT_S = 10.0
_CONNECT_TIMEOUT_S = 5.0
_LOCK_POLL_S = 1.0
_PAUSE_MAX_S = 2.0
_KEEPALIVE = {"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5"}

_CONFLICTS = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
_LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)
# InternalClientError: the first words to a session whose server died while it was idle.
_NETWORK = (OSError, TimeoutError, asyncpg.InternalClientError)


@contextmanager
def translated(*, network: bool = False) -> Iterator[None]:
    """Driver errors as the types of `ports`. `network`: also the operating system's, which are
    only ours where nothing but the driver runs.
    """
    try:
        yield
    except _CONFLICTS as err:
        raise TransactionConflict(type(err).__name__) from err
    except _LOST as err:
        raise DatabaseUnavailable(type(err).__name__) from err
    except asyncpg.InterfaceError as err:
        if "closed" not in str(err) and "closing" not in str(err):
            raise  # our own mistake
        raise DatabaseUnavailable(str(err)) from err
    except _NETWORK as err:
        if not network:
            raise
        raise DatabaseUnavailable(f"{type(err).__name__}: {err}") from err


@asynccontextmanager
async def lock_session(url: str, name: str, *, clock: Clock) -> AsyncIterator[Callable[[], bool]]:
    """Hold the advisory lock `name` for the block; waits for it as long as it takes."""
    async with _session(url) as connection:
        while True:
            with translated(network=True):
                ours = await connection.fetchval(
                    "SELECT pg_try_advisory_lock(hashtextextended($1, 0))", name
                )
            if ours:
                break
            await clock.sleep(_LOCK_POLL_S)
        yield lambda: not connection.is_closed()


class PgHint:
    """ports.Hint by LISTEN. While the session is down nothing is heard; the poll covers that."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def listening(cls, url: str, channel: str, *, clock: Clock) -> AsyncIterator["PgHint"]:
        hint = cls()

        async def listen() -> None:
            lost = asyncio.Event()
            async with _session(url) as connection:
                connection.add_termination_listener(lambda _: lost.set())
                with translated(network=True):
                    await connection.add_listener(channel, lambda *_: hint.ring())
                hint.ring()  # what was told while nobody listened
                await lost.wait()

        async with work.looping(f"listen:{channel}", listen, clock=clock, pause_max_s=_PAUSE_MAX_S):
            yield hint

    def ring(self) -> None:
        self._rung.set()

    async def wait(self, timeout_s: float) -> None:
        with suppress(TimeoutError):
            # Not wait_for: before Python 3.12 it swallows a cancel that comes with the ring.
            async with asyncio.timeout(timeout_s):
                await self._rung.wait()
        self._rung.clear()


@asynccontextmanager
async def _session(url: str) -> AsyncIterator[asyncpg.Connection]:
    with translated(network=True):
        connection = await asyncpg.connect(
            url,
            timeout=_CONNECT_TIMEOUT_S,
            command_timeout=_COMMAND_TIMEOUT_S,
            server_settings=_KEEPALIVE,
        )
    try:
        yield connection
    finally:
        with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await connection.close(timeout=2)
