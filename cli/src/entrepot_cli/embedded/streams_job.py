"""The one admin job of the bus: makes the streams of the catalogue; services only verify them."""

import asyncio
from pathlib import Path

from entrepot_chassis import streams
from entrepot_cli.embedded.grants import ADMIN
from entrepot_contracts.catalog import STREAM, STREAM_SUBJECTS
