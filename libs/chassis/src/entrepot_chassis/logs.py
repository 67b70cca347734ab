"""Structured logs: JSON lines on stderr, ids bound by contextvars, URLs scrubbed, never raises."""

import logging
import re
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, TextIO

import msgspec
import structlog
from structlog.contextvars import bind_contextvars, bound_contextvars, get_contextvars

CORR, CAUSE, TRACE = "corr", "cause", "traceparent"
_HEADERS = {"x-corr": CORR, "x-cause": CAUSE, "traceparent": TRACE}
_HEADER_CHARS_MAX = 200
_URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*://)([^/\s?#@]*@)?([^\s?#\"']*)(\?[^\s#\"']*)?")


def configure(*, service: str, level: str = "info", stream: TextIO | None = None) -> None:
    """Once per process, first thing. Standard-library logs come out in the same shape."""
    number = logging.getLevelNamesMapping()[level.upper()]
    target = stream or sys.stderr
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _scrub,
            structlog.processors.JSONRenderer(serializer=_json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: _Lines(target),
        cache_logger_on_first_use=False,
    )
    bind_contextvars(service=service)
    root = logging.getLogger()
    root.handlers = [_Bridge()]
    root.setLevel(max(number, logging.WARNING))  # libraries are heard when something is wrong


def get(name: str) -> Any:
    return structlog.get_logger(component=name)


@contextmanager
def bind(**fields: object) -> Iterator[None]:
    """Fields on every line inside the block, and corr, cause, traceparent on every message sent."""
    with bound_contextvars(**fields):
        yield


def headers_out() -> dict[str, str]:
    """Trace headers of whatever is sent now."""
    bound = get_contextvars()
    return {header: str(bound[name]) for header, name in _HEADERS.items() if name in bound}


def fields_in(headers: Mapping[str, str]) -> dict[str, str]:
    """What to `bind` while handling a message with these headers."""
    return {
        name: headers[header][:_HEADER_CHARS_MAX]
        for header, name in _HEADERS.items()
        if headers.get(header)
    }


def scrub_url(text: str) -> str:
    """URLs in `text` without user info and query: both carry credentials."""
    return _URL.sub(_bare_url, text)


def _bare_url(match: re.Match[str]) -> str:
    scheme, user, rest, query = match.groups()
    return f"{scheme}{'***@' if user else ''}{rest}{'?***' if query else ''}"


def _scrub(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, str) and "://" in value:
            event[key] = scrub_url(value)
    return event


def _json(event: Mapping[str, Any], **_: Any) -> str:
    return msgspec.json.encode(event, enc_hook=_printable, order="sorted").decode()


def _printable(value: Any) -> str:
    return scrub_url(str(value))


class _Lines:
    """Writes one line; a log that cannot be written must not stop the work it tells about."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            return

    debug = info = warning = error = critical = exception = log = msg


class _Bridge(logging.Handler):
    """Standard-library records as structlog events."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            structlog.get_logger(component=record.name).log(
                record.levelno,
                "library.log",
                text=record.getMessage(),
                exc_info=record.exc_info or None,
            )
        except Exception:  # noqa: BLE001 - logging never raises into its host
            return
