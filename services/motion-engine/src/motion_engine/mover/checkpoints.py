"""Progress that survives us: parts are recorded with the owner every 8 parts or 2 seconds."""

import asyncio
from typing import Any

from entrepot_chassis.ports import Bus, Clock, Unanswered
from entrepot_contracts.calls import ask
from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.motion import Checkpoint, PartRecord
from motion_engine.mover.lease import ASK_S, End, Hold
from motion_engine.mover.problems import Fenced
from motion_engine.mover.progress import Progress
from motion_engine.part_pages import first_page

PARTS_EVERY = 8
SECONDS_EVERY = 2.0
RETRY_S = 0.5


class Journal:
    """The records of one transfer. Never more than 8 parts wait: then senders wait instead, so a
    takeover sends at most those again.
    """

    def __init__(self, hold: Hold, bus: Bus, clock: Clock, progress: Progress) -> None:
        self.key = ""
        self.resume: str | None = None
        self.facts: dict[str, Any] = {}
        self._hold = hold
        self._bus = bus
        self._clock = clock
        self._progress = progress
        self._pending: list[PartRecord] = []
        self._lock = asyncio.Lock()

    async def begin(self, key: str, resume: str | None, facts: dict[str, Any]) -> None:
        """On record before the first byte is sent. Another key or `resume` than on record begins
        another upload: the owner then forgets the parts of the one before.
        """
        self.key, self.resume, self.facts = key, resume, dict(facts)
        self._pending.clear()
        await self.flush(force=True)

    async def add(self, record: PartRecord) -> None:
        self._pending.append(record)
        if len(self._pending) >= PARTS_EVERY:
            await self.flush()

    async def flush(self, *, force: bool = False) -> None:
        """Until it is recorded. Raises Fenced when it no longer may be."""
        async with self._lock:
            while self._pending or force:
                sent = first_page(self._pending)
                if await self._send(sent):
                    del self._pending[: len(sent)]
                    force = False
                else:
                    await self._clock.sleep(RETRY_S)

    async def flush_now_and_then(self) -> None:
        """Runs beside the transfer until cancelled."""
        while True:
            await self._clock.sleep(SECONDS_EVERY)
            await self.flush()

    async def last_words(self) -> None:
        """One try, for a drain: what is lost is sent again."""
        if self._pending and self.key:
            await self._send(first_page(self._pending))
            self._pending.clear()

    async def _send(self, parts: tuple[PartRecord, ...]) -> bool:
        self._hold.check()
        grant = self._hold.grant
        message = Checkpoint(
            transfer_id=grant.ask.transfer_id,
            epoch=grant.epoch,
            key=self.key,
            resume=self.resume,
            parts=parts,
            bytes_done=self._progress.bytes_acknowledged,
            bytes_total=self._progress.bytes_total,
            facts=self.facts,
        )
        try:
            await ask(self._bus, message, timeout_s=ASK_S)
        except Unanswered:
            return False
        except Refused as refused:
            if refused.problem.code in {Code.FENCED, Code.NOT_FOUND}:
                self._hold.stop(End.FENCED)
                raise Fenced from refused
            if refused.problem.retryable:
                return False
            raise
        return True
