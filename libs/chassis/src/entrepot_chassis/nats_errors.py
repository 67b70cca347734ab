"""What errors of the NATS client mean, in a few words that carry no credential."""

from nats.errors import ConnectionClosedError, NoRespondersError, OutboundBufferLimitError
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeoutError

from entrepot_chassis import logs


class LineBroke(NatsError):
    """The connection went away while a request waited for its answer."""


def reason(err: BaseException) -> str:
    match err:
        case NoRespondersError():
            return "no responders"
        case NatsTimeoutError() | TimeoutError():
            return "timeout"
        case OutboundBufferLimitError() | ConnectionClosedError() | LineBroke():
            return "not connected"
        case _:
            return logs.scrub_url(f"{type(err).__name__}: {err}")
