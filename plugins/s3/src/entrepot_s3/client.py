"""The aiobotocore client with the settings that real servers need.

Reasons, each measured: unsigned payloads and checksums only when required keep a streamed body
from being read twice; SigV4 always, since V2 links break clients that add a Content-Type; nothing
is taken from ~/.aws or the environment, so a store means the same on every mover.
"""

import functools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiobotocore.config import AioConfig  # type: ignore[import-untyped]
from aiobotocore.session import AioSession  # type: ignore[import-untyped]
from botocore.configprovider import ConstantProvider  # type: ignore[import-untyped]

from entrepot_plugin.errors import BadConfig
from entrepot_s3.config import S3Config

CONTROL_CONNECTIONS = 4  # beside the parts: stat, list, complete


@asynccontextmanager
async def connected(config: S3Config) -> AsyncIterator[Any]:
    """A client; no request is made yet. Raises BadConfig."""
    try:
        opening = _session().create_client("s3", **_arguments(config))
        client = await opening.__aenter__()
    except (ValueError, OSError) as err:
        raise BadConfig(f"s3: endpoint, region or ca_bundle cannot be used: {err}") from err
    try:
        yield client
    finally:
        await opening.__aexit__(None, None, None)


@functools.cache
def _session() -> AioSession:
    """Holds the service description, which takes a tenth of a second to load; no connections."""
    session = AioSession()
    store = session.get_component("config_store")
    store.set_config_provider("profile", ConstantProvider(None))  # setting None means "ask env"
    session.set_config_variable("config_file", os.devnull)
    session.set_config_variable("credentials_file", os.devnull)
    return session


def _arguments(config: S3Config) -> dict[str, Any]:
    token = config.session_token
    return {
        "endpoint_url": config.endpoint,
        "region_name": config.region,
        "aws_access_key_id": config.access_key.reveal(),
        "aws_secret_access_key": config.secret_key.reveal(),
        "aws_session_token": token.reveal() if token else None,
        "verify": (config.ca_bundle or True) if config.verify else False,
        "config": AioConfig(
            signature_version="s3v4",
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            connect_timeout=config.connect_timeout_s,
            read_timeout=config.read_timeout_s,
            max_pool_connections=config.part_concurrency + CONTROL_CONNECTIONS,
            retries={"mode": "standard", "total_max_attempts": config.sdk_attempts},
            s3={"addressing_style": config.addressing_style, "payload_signing_enabled": False},
        ),
    }
