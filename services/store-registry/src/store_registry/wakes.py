"""Who waits for a job in this process, and waking them after a commit. Only a hint: whoever
waits reads the row again every second.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable


class Wakes:
    def __init__(self) -> None:
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    async def wait(self, job_id: str, seconds: float) -> None:
        """Until the job is rung, or that long."""
        rung = asyncio.Event()
        self._waiting[job_id].add(rung)
        try:
            async with asyncio.timeout(seconds):
                await rung.wait()
        except TimeoutError:
            pass
        finally:
            self._waiting[job_id].discard(rung)
            if not self._waiting[job_id]:
                del self._waiting[job_id]

    def ring(self, job_ids: Iterable[str]) -> None:
        for job_id in job_ids:
            for rung in self._waiting.get(job_id, ()):
                rung.set()
