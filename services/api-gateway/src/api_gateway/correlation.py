"""The correlation id of a request: taken from the caller if it is decent, else made here."""

import re

import structlog

from entrepot_chassis.ports import Ids

HEADERS = ("x-request-id", "x-corr")
_DECENT = re.compile(r"[A-Za-z0-9._:-]{1,64}\Z")


def correlation_id() -> str:
    """Of the request being served; the same word the logs and the bus headers carry."""
    return str(structlog.contextvars.get_contextvars().get("corr", ""))


def chosen(given: list[str], *, ids: Ids) -> str:
    """The first given id that is short and plain (it goes into logs and headers), or a new one."""
    return next((text for text in given if _DECENT.match(text)), None) or ids.new()
