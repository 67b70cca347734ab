"""A simulated process: a tree of coroutines that can be killed at any await, paused, restarted.

Killing is SIGKILL: none of its tasks takes another step, no `finally` runs, its connections are
gone. What outlives it is what it had committed to the fakes. Pausing is SIGSTOP: time goes on, its
timers fire late, and when it continues it does not know (the zombie of the lease rules).
"""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from entrepot_testkit.fate import Fate
from entrepot_testkit.sim_loop import LIFE, running_loop

T = TypeVar("T")


class Killed(BaseException):
    """Raised by a fake into code of a process that is dead; nobody may catch it."""


class Incarnation:
    """One life of a process. Fakes bind to it: they refuse its calls once it is dead, and
    `on_death` tells them to drop its connections, locks and subscriptions.
    """

    def __init__(self, name: str, number: int) -> None:
        self.name, self.number = name, number
        self.alive, self.paused = True, False
        self.suspended_s = 0.0  # time that passed while it was paused
        self.paused_at = 0.0
        self.steps = 0
        self.doom: int | None = None  # number of the step that kills it
        self.kill: Callable[[str], None] = lambda _why: None
        self.pause: Callable[[float], None] = lambda _seconds: None
        self._mourners: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"{self.name}#{self.number}"

    def may_step(self) -> bool:
        """The loop asks before each of its steps, so a doomed process dies between two awaits."""
        if not self.alive or self.paused:
            return False
        self.steps += 1
        if self.doom is not None and self.steps >= self.doom:
            self.kill("doomed")
            return False
        return True

    def check(self) -> None:
        """Called by every fake before it does anything for this process."""
        if not self.alive:
            raise Killed(repr(self))

    async def die(self, why: str) -> None:
        """Killed right here: whoever awaits this takes no further step."""
        self.kill(why)
        await asyncio.sleep(0)
        self.check()

    def on_death(self, mourner: Callable[[], None]) -> None:
        self._mourners.append(mourner)

    def forget(self, mourner: Callable[[], None]) -> None:
        if mourner in self._mourners:
            self._mourners.remove(mourner)

    def end(self) -> None:
        self.alive = False
        mourners, self._mourners = self._mourners, []
        for mourner in mourners:
            mourner()

    def spawn(self, coro: Coroutine[Any, Any, T], *, name: str | None = None) -> "asyncio.Task[T]":
        """A task that lives and dies with this process, started by a fake on its behalf."""
        return asyncio.get_running_loop().create_task(coro, name=name, context=self.context())

    def context(self) -> contextvars.Context:
        context = contextvars.copy_context()
        context.run(LIFE.set, self)
        return context


class SimProcess:
    """Keeps one process running: starts `main(incarnation)`, restarts it after it was killed.

    `main` is its composition root: it builds ports for that incarnation and runs until cancelled.
    An exception out of `main` is a crash like any other (services exit on what they cannot handle).
    """

    def __init__(
        self,
        name: str,
        main: Callable[[Incarnation], Awaitable[None]],
        *,
        fate: Fate,
        restart_s: float = 2.0,
    ) -> None:
        self.name = name
        self.fate = fate
        self.restarts = True
        self.crashes: list[BaseException] = []
        self.life: Incarnation | None = None
        self._main = main
        self._restart_s = restart_s
        self._count = 0

    def start(self) -> None:
        """Begin a new life from the durable state."""
        assert self.life is None or not self.life.alive
        self._count += 1
        life = self.life = Incarnation(self.name, self._count)
        life.kill = self.kill
        life.pause = self.pause_for
        self.doom()
        running_loop().note(f"{life!r} starts")
        life.spawn(self._body(life), name=repr(life))

    async def _body(self, life: Incarnation) -> None:
        try:
            await self._main(life)
        except Exception as error:  # noqa: BLE001 - the process exits; the world looks at `crashes`
            self.crashes.append(error)
            running_loop().note(f"{life!r} exits: {error!r}")
        if life.alive:
            self.kill("exit")

    def doom(self) -> None:
        """Decide at which step from now the present life ends, if the odds want that at all."""
        mean, life = self.fate.odds.crash_every_steps, self.life
        if mean and life is not None:
            life.doom = life.steps + 1 + int(self.fate.about(f"doom:{self.name}", mean))

    def kill(self, why: str = "killed") -> None:
        """SIGKILL, now; the restart follows after `restart_s` unless `restarts` is off."""
        life = self.life
        if life is None or not life.alive:
            return
        self.fate.happened("crash", f"{life!r} {why}")
        life.end()
        if self.restarts:
            _world_later(self._restart_s, self._restart)

    def _restart(self) -> None:
        if self.restarts and (self.life is None or not self.life.alive):
            self.start()

    def spare(self) -> None:
        """No more doom: the liveness phase has begun."""
        if self.life is not None:
            self.life.doom = None

    def pause(self) -> None:
        if self.life is not None and self.life.alive and not self.life.paused:
            self.life.paused = True
            self.life.paused_at = running_loop().time()
            self.fate.happened("pause", repr(self.life))

    def pause_for(self, seconds: float) -> None:
        self.pause()
        _world_later(seconds, self.resume)

    def resume(self) -> None:
        if self.life is not None and self.life.paused:
            self.life.paused = False
            self.life.suspended_s += running_loop().time() - self.life.paused_at
            running_loop().note(f"{self.life!r} continues")
            running_loop().release(self.life)


def _world_later(seconds: float, callback: Callable[[], None]) -> None:
    """A timer that belongs to the world, not to the process in whose step it is set."""
    context = contextvars.copy_context()
    context.run(LIFE.set, None)
    asyncio.get_running_loop().call_later(seconds, callback, context=context)
