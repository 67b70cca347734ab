"""One claimed piece of work from grant to finish: lease, watch, telemetry and the last word."""

import asyncio

from msgspec import Struct

from entrepot_chassis import logs
from entrepot_chassis.ports import Bus, Clock, Unanswered
from entrepot_contracts.calls import ask
from entrepot_contracts.catalog import telemetry_of
from entrepot_contracts.errors import Code, Problem, Refused
from entrepot_contracts.motion import (
    CopyWork,
    FinishWork,
    Grant,
    ReleaseWork,
    Result,
    TransferProgress,
)
from motion_engine.mover.copy import Copier
from motion_engine.mover.copying import Tools
from motion_engine.mover.fetch import Fetch
from motion_engine.mover.lease import ASK_S, End, Hold
from motion_engine.mover.problems import CANCELLED, Fenced, problem_from, stalled
from motion_engine.mover.progress import Progress
from motion_engine.mover.stores import Stores
from motion_engine.mover.works import SmallWorks

TELL_S = 0.5
RETRY_S = 0.5
WATCHED = frozenset({"copying", "verifying"})  # phases in which something must move

_log = logs.get("mover.job")


class Surroundings(Struct, frozen=True, kw_only=True):
    """What all jobs of a mover share."""

    mover_id: str
    bus: Bus
    clock: Clock
    stores: Stores
    small: SmallWorks
    fetch: Fetch
    tools: Tools
    stall_s: float


class Job:
    """Owned by the runner; never raises for the failure of its work."""

    def __init__(self, grant: Grant, around: Surroundings, *, renew_s: float) -> None:
        self.hold = Hold(grant, around.bus, around.clock)
        self.progress = Progress()
        self._grant = grant
        self._around = around
        self._renew_s = renew_s
        self._began_at = around.clock.monotonic()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            work = group.create_task(self._work(), name="work")
            self.hold.guard(work)
            beside = [
                group.create_task(self.hold.keep(self._renew_s), name="lease"),
                group.create_task(self._tell(), name="telemetry"),
                group.create_task(self._watch(), name="watch"),
            ]
            try:
                await asyncio.wait([work])
                await self._last_word(work)
            finally:
                for task in beside:
                    task.cancel()

    def nearly_done(self, within_s: float) -> bool:
        """By the rate so far; work that moves no bytes is always nearly done."""
        progress = self.progress
        if not isinstance(self._grant.ask.work, CopyWork):
            return True
        if progress.phase not in WATCHED:
            return progress.phase == "committing"
        elapsed_s = self._around.clock.monotonic() - self._began_at
        if progress.bytes_total is None or not progress.bytes_done or elapsed_s <= 0:
            return False
        left = progress.bytes_total - progress.bytes_done
        passes = 2 if progress.phase == "copying" else 1  # what is written is read once more
        left += progress.bytes_total if passes > 1 else 0
        return left / (progress.bytes_done / elapsed_s) < within_s

    # --- the work -----------------------------------------------------------------------------

    async def _work(self) -> Result | Problem | None:
        """None: the lease is lost and nothing may be said."""
        try:
            return await self._carry_out()
        except Fenced:
            self.hold.stop(End.FENCED)
            return None
        except Exception as err:  # noqa: BLE001 - every failure becomes a problem
            problem = problem_from(err)
            unexpected = problem.code is Code.INTERNAL
            _log.info("job.failed", code=problem.code.value, exc_info=err if unexpected else None)
            return problem

    async def _carry_out(self) -> Result:
        around, work = self._around, self._grant.ask.work
        if not isinstance(work, CopyWork):
            self.hold.check()
            return await around.small.run(work, self._grant.credentials)
        await self.hold.read_checkpoint()
        copier = Copier(
            work,
            self.hold,
            stores=around.stores,
            fetch=around.fetch,
            bus=around.bus,
            clock=around.clock,
            tools=around.tools,
            progress=self.progress,
        )
        return await copier.run()

    # --- the last word ------------------------------------------------------------------------

    async def _last_word(self, work: "asyncio.Task[Result | Problem | None]") -> None:
        outcome = None if work.cancelled() else work.result()
        end = self.hold.end
        if end is End.FENCED:
            _log.warning("job.fenced")
        elif outcome is not None:
            await self._finish(outcome)
        elif end is End.CANCELLED:
            await self._finish(CANCELLED)
        elif end is End.STALLED:
            await self._finish(stalled(self._around.stall_s, self.progress.phase))
        elif end is End.DRAINED:
            await self._say(
                ReleaseWork(transfer_id=self._grant.ask.transfer_id, epoch=self._grant.epoch)
            )

    async def _finish(self, outcome: Result | Problem) -> None:
        failed = isinstance(outcome, Problem)
        message = FinishWork(
            transfer_id=self._grant.ask.transfer_id,
            epoch=self._grant.epoch,
            result=None if isinstance(outcome, Problem) else outcome,
            problem=outcome if isinstance(outcome, Problem) else None,
        )
        await self._say(message)
        _log.info("job.finished", failed=failed, bytes_sent=self.progress.bytes_sent)

    async def _say(self, message: FinishWork | ReleaseWork) -> None:
        """Until it is answered or the lease is lost: repeating it is safe."""
        while True:
            try:
                self.hold.check()
                await ask(self._around.bus, message, timeout_s=ASK_S)
            except Unanswered:
                await self._around.clock.sleep(RETRY_S)
            except Fenced:
                _log.warning("job.fenced")
                return
            except Refused as refused:
                if refused.problem.retryable:
                    await self._around.clock.sleep(RETRY_S)
                    continue
                _log.warning("job.last_word_refused", problem=str(refused))
                return
            else:
                return

    # --- beside the work ----------------------------------------------------------------------

    async def _tell(self) -> None:
        """Progress, at most twice a second and only when it changed."""
        clock, grant = self._around.clock, self._grant
        subject = telemetry_of(TransferProgress).subject
        told, told_at, told_bytes = -1, clock.monotonic(), 0
        while True:
            await clock.sleep(TELL_S)
            progress = self.progress
            if progress.beats == told:
                continue
            now, done = clock.monotonic(), progress.bytes_done
            message = TransferProgress(
                transfer_id=grant.ask.transfer_id,
                job_id=grant.ask.job_id,
                account_id=grant.ask.account_id,
                mover_id=self._around.mover_id,
                epoch=grant.epoch,
                phase=progress.phase,
                bytes_done=done,
                bytes_total=progress.bytes_total,
                rate_bps=max(done - told_bytes, 0) / max(now - told_at, TELL_S / 2),
            )
            told, told_at, told_bytes = progress.beats, now, done
            await self._around.bus.publish(subject, message)

    async def _watch(self) -> None:
        """Stop work in which nothing moves: no read time-out bounds a stalled upload."""
        clock, progress = self._around.clock, self.progress
        beats, since = progress.beats, clock.monotonic()
        while True:
            await clock.sleep(self._around.stall_s / 4)
            now = clock.monotonic()
            if progress.beats != beats or progress.phase not in WATCHED:
                beats, since = progress.beats, now
            elif now - since >= self._around.stall_s:
                self.hold.stop(End.STALLED)
                return
