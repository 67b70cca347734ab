"""The hold on one claimed piece of work: renewed while it runs, obeyed when it is lost."""

import asyncio
from enum import StrEnum
from typing import Any

from msgspec.structs import replace

from entrepot_chassis import logs
from entrepot_chassis.ports import Bus, Clock, Unanswered
from entrepot_contracts.calls import ask
from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.motion import Grant, PartsOnRecord, ReadParts, Renewed, RenewLease
from motion_engine.mover.problems import Fenced

LOST_AFTER_S = 20.0  # without a renewal, on our own monotonic clock: well inside the lease
RENEW_S = 10.0
RENEW_RETRY_S = 2.0
ASK_S = 4.0

_log = logs.get("mover.lease")


class End(StrEnum):
    """Why work was stopped before it ended by itself."""

    FENCED = "fenced"  # lost: touch nothing more
    CANCELLED = "cancelled"  # clean up, then say so
    DRAINED = "drained"  # flush, then hand back
    STALLED = "stalled"  # nothing moves: say so, another attempt may help


class Hold:
    """Knows whether we still hold the work, and stops its task when we do not."""

    def __init__(self, grant: Grant, bus: Bus, clock: Clock) -> None:
        self.grant = grant
        self.end: End | None = None
        self._bus = bus
        self._clock = clock
        self._good_at = clock.monotonic()
        self._work: asyncio.Task[Any] | None = None

    async def read_checkpoint(self) -> None:
        """Complete the grant with the parts on record that it had no room for."""
        while self.grant.checkpoint.more:
            self.check()
            past, grant = self.grant.checkpoint, self.grant
            message = ReadParts(
                transfer_id=grant.ask.transfer_id, epoch=grant.epoch, after=past.parts[-1].number
            )
            try:
                page = await ask(self._bus, message, timeout_s=ASK_S)
            except Unanswered:
                await self._clock.sleep(RENEW_RETRY_S)
                continue
            except Refused as refused:
                if refused.problem.code not in {Code.FENCED, Code.NOT_FOUND}:
                    raise
                self.stop(End.FENCED)
                raise Fenced from refused
            assert isinstance(page, PartsOnRecord)
            whole = replace(past, parts=past.parts + page.parts, more=page.more)
            self.grant = replace(grant, checkpoint=whole)

    def guard(self, work: "asyncio.Task[Any]") -> None:
        """The task that `stop` cancels."""
        self._work = work
        if self.end is not None:
            work.cancel()

    def check(self) -> None:
        """Raise Fenced unless the lease is surely ours; called before anything irrevocable."""
        age_s = self._clock.monotonic() - self._good_at
        if self.end is None and age_s > LOST_AFTER_S:
            self.stop(End.FENCED)
        if self.end is End.FENCED:
            raise Fenced

    def stop(self, end: End) -> None:
        """The first reason counts, but a lost lease overrules every other."""
        if self.end is None or end is End.FENCED:
            self.end = end
            _log.info("hold.ended", transfer_id=self.grant.ask.transfer_id, why=end.value)
            if self._work is not None:
                self._work.cancel()

    def confirmed(self) -> None:
        """The owner accepted our epoch just now."""
        self._good_at = self._clock.monotonic()

    async def keep(self, renew_s: float) -> None:
        """Renew until cancelled or lost."""
        pause_s = renew_s
        while self.end is not End.FENCED:
            await self._clock.sleep(pause_s)
            if self._clock.monotonic() - self._good_at > LOST_AFTER_S:
                self.stop(End.FENCED)
                return
            pause_s = renew_s if await self._renew() else RENEW_RETRY_S

    async def _renew(self) -> bool:
        asked_at = self._clock.monotonic()
        message = RenewLease(transfer_id=self.grant.ask.transfer_id, epoch=self.grant.epoch)
        try:
            renewed = await ask(self._bus, message, timeout_s=ASK_S)
        except Unanswered:
            return False
        except Refused as refused:
            if refused.problem.code in {Code.FENCED, Code.NOT_FOUND}:
                self.stop(End.FENCED)
            return False
        self._good_at = max(self._good_at, asked_at)
        if isinstance(renewed, Renewed) and renewed.cancel:
            self.stop(End.CANCELLED)
        return True
