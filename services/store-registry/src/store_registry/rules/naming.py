"""Names the registry makes, and what it asks of the URLs and ids that others give. No request is
ever made here: whether an address may be reached is the guarded fetcher's question.
"""

import re
from urllib.parse import SplitResult, urlsplit, urlunsplit

from entrepot_contracts.errors import Code, Refused

_UNFIT = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029\\<>\"`{}|^]")
_HOST = re.compile(r"[A-Za-z0-9._\-]+|\[[0-9A-Fa-f:.]+\]")
_PORT_MAX = 65535
_URL_CHARS_MAX = 2048  # with its query; the fetcher takes no more


def template_prefix(account_id: str, template_id: str) -> str:
    return f"t/{account_id}/templates/{template_id}/"


def snapshot_prefix(account_id: str, snapshot_id: str) -> str:
    return f"t/{account_id}/snapshots/{snapshot_id}/"


def file_name(name: str, extension: str) -> str:
    """What a browser offers for saving: the template's name without anything that bites."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "template"
    return f"{safe[:100]}.{extension}"


def check_bare(url: str) -> None:
    """Raises Refused if the URL has what may be a secret: such a thing never rides NATS."""
    if "?" in url or "#" in url:
        raise _bad(
            "it has a query or a fragment, which came in the clear",
            "send the URL without them, and its query in the field query, sealed to this "
            "registry's key",
        )


def check_url(url: str, schemes: frozenset[str]) -> None:
    """Syntax only. Raises Refused naming the field `url`."""
    if len(url) > _URL_CHARS_MAX:
        raise _bad(f"it has more than {_URL_CHARS_MAX} characters", "offer it under a shorter one")
    if _UNFIT.search(url) or not url.isascii():
        raise _bad("it has spaces, control or other unfit characters", "percent-encode them")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _bad("it can't be taken apart", "use the form https://host[:port]/path") from None
    if parts.scheme not in schemes:
        allowed = ", ".join(sorted(schemes))
        raise _bad(f"its scheme is not among {allowed}", f"use one of: {allowed}")
    if parts.username is not None or parts.password is not None:
        raise _bad(
            "it carries a user name or password",
            "offer the image without them, or by a link that expires",
        )
    if not parts.hostname or not _HOST.fullmatch(_bare_host(parts)):
        raise _bad("it names no host", "use the form https://host[:port]/path")
    if port == 0 or (port is not None and port > _PORT_MAX):
        raise _bad("its port is out of range", "use a port from 1 to 65535")


def scrub_url(url: str) -> str:
    """Without user info, query and fragment: they may hold secrets."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def has_userinfo(text: str) -> bool:
    """Whether a text is an URL with user info in it."""
    head, mark, rest = text.partition("://")
    return bool(mark and head) and "@" in re.split(r"[/?#]", rest, maxsplit=1)[0]


def _bare_host(parts: SplitResult) -> str:
    host = parts.netloc
    return re.sub(r":\d*\Z", "", host)


def _bad(why: str, hint: str) -> Refused:
    return Refused(Code.INVALID, f"the URL can't be used: {why}", field="url", hint=hint)
