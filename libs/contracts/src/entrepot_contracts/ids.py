"""Identifiers: UUIDs minted once by whoever first accepts the intent (UUIDv7, time-ordered)."""

from typing import Annotated

from msgspec import Meta

Id = Annotated[
    str,
    Meta(
        pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z",
        description="A UUID in lower-case text; minted by the caller, so commands repeat safely.",
    ),
]
