"""The one admin job of the bus: makes the streams of the catalogue; services only verify them."""

import asyncio
from pathlib import Path

from entrepot_chassis import streams
from entrepot_cli.embedded.grants import ADMIN

CONNECT_S = 5


def ensure_streams(url: str, *, nkey_file: Path) -> None:
    """Make what is missing; raises Misconfigured when a stream exists and differs."""
    asyncio.run(
        streams.ensure(
            url,
            nkeys_seed=str(nkey_file),
            inbox_prefix=f"_INBOX_{ADMIN}".encode(),
            connect_timeout=CONNECT_S,
            max_reconnect_attempts=3,
        )
    )
