"""Answering one subject: decode, handle, reply; whatever goes wrong is answered too, and logged."""

from collections.abc import Callable
from contextlib import suppress

import msgspec
from msgspec import Struct
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError

from entrepot_chassis import logs, metrics
from entrepot_chassis.nats_errors import reason
from entrepot_chassis.ports import Clock, Handler, Ids, Retryable, TransactionConflict, Unanswered

_log = logs.get("commands")
_CONFLICT_TRIES = 3
_COMMANDS = metrics.counter(
    "entrepot_commands_total", "Commands answered, by outcome", ["subject", "outcome"]
)
_SECONDS = metrics.histogram(
    "entrepot_command_seconds", "Time from taking a command to its answer", ["subject"]
)


class CommandServer:
    """Turns requests into calls of `handler` and its results into replies."""

    def __init__(
        self,
        client: Client,
        *,
        subject: str,
        message: type[Struct],
        handler: Handler,
        failure: Callable[[BaseException], Struct],
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._client = client
        self._subject = subject
        self._decoder = msgspec.json.Decoder(message)
        self._handler = handler
        self._failure = failure
        self._clock = clock
        self._ids = ids

    async def answer(self, msg: Msg) -> None:
        started = self._clock.monotonic()
        fields = {logs.CORR: self._ids.new(), **logs.fields_in(msg.headers or {})}
        with logs.bind(**fields, subject=self._subject):
            try:
                reply = await self._handled(msg.data)
                outcome = "answered"
            except Exception as err:  # noqa: BLE001 - whatever it is, the caller gets an answer
                reply, outcome = self._failure(err), _tell(err)
            await self._respond(msg, reply)
        _COMMANDS.labels(self._subject, outcome).inc()
        _SECONDS.labels(self._subject).observe(self._clock.monotonic() - started)

    async def _handled(self, body: bytes) -> Struct:
        """Commands repeat safely: a deadlock's victim simply runs again."""
        command = self._decoder.decode(body)
        try:
            for _ in range(_CONFLICT_TRIES - 1):
                with suppress(TransactionConflict):
                    return await self._handler(command)
            return await self._handler(command)
        except msgspec.DecodeError as err:
            # The command itself was well formed: what a handler cannot read is our own fault.
            raise RuntimeError("a handler read something it cannot decode") from err

    async def _respond(self, msg: Msg, reply: Struct) -> None:
        """A reply that cannot be sent is lost: the caller times out and asks again."""
        if not msg.reply:
            return
        headers = logs.headers_out() or None
        try:
            try:
                await self._client.publish(msg.reply, msgspec.json.encode(reply), headers=headers)
            except MaxPayloadError as err:
                _log.error("command.answer_too_large")
                failure = msgspec.json.encode(self._failure(err))
                await self._client.publish(msg.reply, failure, headers=headers)
        except NatsError as err:
            _log.warning("command.answer_lost", error=reason(err))


def _tell(err: Exception) -> str:
    """Log what a handler raised, as loud as it is surprising; the outcome label."""
    if getattr(err, "is_answer", False):  # a refusal: an answer, not a failure
        _log.info("command.refused", why=str(err))
        return "refused"
    if isinstance(err, msgspec.DecodeError):
        _log.info("command.undecodable", why=str(err))
        return "undecodable"
    if isinstance(err, (Retryable, Unanswered)):
        _log.warning("command.unavailable", error=str(err))
        return "unavailable"
    _log.error("command.failed", exc_info=err)
    return "failed"
