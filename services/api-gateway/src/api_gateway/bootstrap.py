"""The first administrator: made once, its key left in a file only its owner can read."""

import os
from pathlib import Path

import structlog

from api_gateway.accounts import Accounts
from entrepot_chassis.ports import Ids

log = structlog.get_logger()


async def first_admin(accounts: Accounts, *, ids: Ids, key_file: Path) -> None:
    """Does nothing once there is any account. Two gateways starting at once: call it locked."""
    if await accounts.bootstrap(
        account_id=ids.new(), key_id=ids.new(), keep=lambda text: keep_private(key_file, text)
    ):
        log.info("first_admin_created", key_file=str(key_file))


def keep_private(path: Path, text: str) -> None:
    """Whole or not at all, 0600 from its first byte on."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
