"""Opens expiring links that movers sealed to this gateway, for the account that asked for them."""

from typing import Protocol

import structlog

from api_gateway.callers import Caller
from entrepot_contracts.registry import JobView

log = structlog.get_logger()


class Opener(Protocol):
    """chassis.seal.KeyPair is one."""

    @property
    def public_key(self) -> str: ...
    def open(self, box: bytes) -> bytes: ...


class LinkOpener:
    def __init__(self, pair: Opener) -> None:
        self._pair = pair

    @property
    def public_key(self) -> str:
        return self._pair.public_key

    def url_for(self, caller: Caller, job: JobView) -> str | None:
        """The link of a finished extract, to its owner only: not even an admin gets another's."""
        if job.link is None or job.account_id != caller.actor.account_id:
            return None
        if job.link.recipient != self._pair.public_key:
            log.warning("link_sealed_to_another_gateway", job_id=job.job_id)
            return None
        return self._pair.open(job.link.box).decode()
