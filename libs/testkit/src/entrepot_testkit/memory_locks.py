"""Row locks of the memory database: exclusive, held to the end of a transaction, fair, and a
circle of waiters is refused to the one who would close it.
"""

import asyncio
from collections import deque
from collections.abc import Hashable

from entrepot_chassis.ports import TransactionConflict


class Holder:
    """Whoever holds locks: a transaction, or a session with an advisory lock."""

    def __init__(self) -> None:
        self.held: set[Hashable] = set()
        self.waits_for: Hashable | None = None


class Locks:
    def __init__(self) -> None:
        self._holders: dict[Hashable, Holder] = {}
        self._queues: dict[Hashable, deque[tuple[Holder, asyncio.Future[None]]]] = {}

    async def acquire(self, holder: Holder, key: Hashable) -> None:
        """Ours when it returns. Raises TransactionConflict instead of waiting for ever."""
        current = self._holders.get(key)
        if current is holder:
            return
        if current is None:
            self._grant(holder, key)
            return
        self._refuse_circle(holder, key)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(key, deque()).append((holder, turn))
        holder.waits_for = key
        try:
            await turn
        finally:
            holder.waits_for = None
            if not turn.done() or turn.cancelled():
                self._forget(holder, key)

    def try_acquire(self, holder: Holder, key: Hashable) -> bool:
        if self._holders.get(key, holder) is not holder:
            return False
        self._grant(holder, key)
        return True

    def release_all(self, holder: Holder) -> None:
        if holder.waits_for is not None:
            self._forget(holder, holder.waits_for)
        for key in sorted(holder.held, key=repr):
            self._pass_on(key)
        holder.held.clear()

    def _grant(self, holder: Holder, key: Hashable) -> None:
        self._holders[key] = holder
        holder.held.add(key)
        holder.waits_for = None  # at once: who looks for circles must not see it waiting still

    def _pass_on(self, key: Hashable) -> None:
        queue = self._queues.get(key)
        while queue:
            heir, turn = queue.popleft()
            if not turn.done():
                self._grant(heir, key)
                turn.set_result(None)
                return
        self._queues.pop(key, None)
        del self._holders[key]

    def _forget(self, holder: Holder, key: Hashable) -> None:
        queue = self._queues.get(key, deque())
        for entry in [entry for entry in queue if entry[0] is holder]:
            queue.remove(entry)

    def _refuse_circle(self, holder: Holder, key: Hashable) -> None:
        seen: Hashable | None = key
        while seen is not None:
            owner = self._holders.get(seen)
            if owner is holder:
                raise TransactionConflict(f"waiting for {key!r} closes a circle")
            seen = None if owner is None else owner.waits_for
