"""Asks the registry for a transfer's secrets, sealed to one mover; rests while it is silent."""

from collections.abc import Iterable

from msgspec import Struct

from entrepot_chassis import logs
from entrepot_chassis.ports import Bus, Clock, Unanswered
from entrepot_contracts.calls import ask
from entrepot_contracts.errors import Problem, Refused
from entrepot_contracts.motion import CopyWork, TransferAsk, UrlEnd
from entrepot_contracts.registry import SealCredentials, SealedCredentials
from entrepot_contracts.values import Sealed
from motion_engine.planner import stores_of

_log = logs.get("sealing")
_REST_START_S = 0.5
_REST_MAX_S = 8.0


class RegistrySilent(Exception):
    """No answer, or one that says to try later."""


class Verdict(Struct, frozen=True):
    """Credentials of a transfer's stores and source, or why it will never get them."""

    credentials: dict[str, Sealed]
    problem: Problem | None = None


def secret_ids(ask: TransferAsk) -> tuple[str, ...]:
    """Of its stores, and of the query of the URL it fetches."""
    ids = [store.store_id for store in stores_of(ask.work)]
    source = ask.work.source if isinstance(ask.work, CopyWork) else None
    if isinstance(source, UrlEnd) and source.secret_id is not None:
        ids.append(source.secret_id)
    return tuple(dict.fromkeys(ids))


class Sealing:
    def __init__(self, bus: Bus, clock: Clock, *, timeout_s: float) -> None:
        self._bus = bus
        self._clock = clock
        self._timeout_s = timeout_s
        self._rest_s = 0.0
        self._rests_until = clock.monotonic()

    @property
    def resting(self) -> bool:
        """After a silence nothing is claimed for a while: it could only be handed back."""
        return self._clock.monotonic() < self._rests_until

    async def seal(
        self, wanted: dict[str, tuple[str, ...]], *, recipient: str
    ) -> dict[str, Verdict]:
        """Per transfer id, for the ids of its secrets. Raises RegistrySilent."""
        stores = {store for ids in wanted.values() for store in ids}
        try:
            items = await self._ask(stores, recipient)
        except Refused as err:
            if err.problem.retryable:
                raise self._silent(str(err.problem.code)) from err
            return await self._one_by_one(wanted, recipient)
        except Unanswered as err:
            raise self._silent(err.reason) from err
        self._rest_s = 0.0
        return {key: Verdict(_only(items, ids)) for key, ids in wanted.items()}

    async def _one_by_one(
        self, wanted: dict[str, tuple[str, ...]], recipient: str
    ) -> dict[str, Verdict]:
        """One of the stores is refused: find out whose, so that the others can go on."""
        verdicts = {}
        for key, ids in wanted.items():
            try:
                verdicts[key] = Verdict(_only(await self._ask(ids, recipient), ids))
            except Refused as err:
                if err.problem.retryable:
                    raise self._silent(str(err.problem.code)) from err
                verdicts[key] = Verdict({}, err.problem)
            except Unanswered as err:
                raise self._silent(err.reason) from err
        return verdicts

    async def _ask(self, stores: Iterable[str], recipient: str) -> dict[str, Sealed]:
        command = SealCredentials(store_ids=tuple(sorted(set(stores))), recipient=recipient)
        if not command.store_ids:
            return {}
        answer = await ask(self._bus, command, timeout_s=self._timeout_s)
        assert isinstance(answer, SealedCredentials)
        return answer.items

    def _silent(self, reason: str) -> RegistrySilent:
        self._rest_s = min(max(self._rest_s * 2, _REST_START_S), _REST_MAX_S)
        self._rests_until = self._clock.monotonic() + self._rest_s
        _log.warning("sealing.registry_silent", reason=reason, rest_s=self._rest_s)
        return RegistrySilent(reason)


def _only(items: dict[str, Sealed], ids: Iterable[str]) -> dict[str, Sealed]:
    return {store: items[store] for store in ids if store in items}
