"""The query of a template's source URL, which may sign it: opened, kept sealed, given back."""

from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.registry import RegisterTemplate
from store_registry.keys import Keys, Unopenable
from store_registry.rows import Template


def open_query(keys: Keys, command: RegisterTemplate) -> str | None:
    """As the caller wrote it, without the question mark. Raises Refused naming `query`."""
    if command.query is None:
        return None
    try:
        query = keys.open(command.query.box).decode("ascii")
    except Unopenable:
        raise Refused(
            Code.INVALID,
            "the query was not sealed to this registry's key",
            field="query",
            hint="ask for the sealing key again and seal the query to it",
        ) from None
    except UnicodeDecodeError:
        query = ""
    if not query:
        raise Refused(
            Code.INVALID,
            "the query is empty or has characters that no URL has",
            field="query",
            hint="percent-encode it, or leave it out if the URL has none",
        )
    return query


def sealed_query(keys: Keys, template_id: str, query: str | None) -> bytes | None:
    return None if query is None else keys.encrypt(query.encode(), _aad(template_id))


def query_of(keys: Keys, template: Template) -> str | None:
    if template.source_query is None:
        return None
    return keys.decrypt(template.source_query, _aad(template.template_id)).decode()


def _aad(template_id: str) -> str:
    """A sealed value opens only in the place it was made for."""
    return f"template/source_query/{template_id}"
