"""The questions asked of an S3 server before it may be a store, and the remedy for each answer."""

import asyncio
import contextlib
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from entrepot_contracts.values import ProbeReport
from entrepot_plugin.errors import BucketMissing, StoreError, Unreachable
from entrepot_plugin.probing import ProbeNotes, probe_canary
from entrepot_s3.config import S3Config
from entrepot_s3.faults import translating

if TYPE_CHECKING:
    from entrepot_s3.objects import S3Objects

SKEW_S_MAX = 300.0
_SIGNED_AT = "%Y%m%dT%H%M%SZ"


async def probe(store: "S3Objects", config: S3Config, client: Any) -> ProbeReport:
    notes = ProbeNotes()
    if not await _network(notes, config):
        return notes.report()
    answer = await _bucket(notes, store, config, client)
    if answer is None:
        return notes.report()
    _clock(notes, answer)
    await probe_canary(store, notes, folder=f"_probe/{_canary_name(answer)}")
    return notes.report()


async def _network(notes: ProbeNotes, config: S3Config) -> bool:
    url = urlsplit(config.endpoint)
    host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
    loop = asyncio.get_running_loop()

    async def resolve() -> str:
        with translating():
            async with asyncio.timeout(config.connect_timeout_s):
                found = await loop.getaddrinfo(host, port)
        return f"{host} has {len({entry[4][0] for entry in found})} address(es)"

    async def connect() -> None:
        with translating():
            async with asyncio.timeout(config.connect_timeout_s):
                _, writer = await asyncio.open_connection(host, port)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    if not await notes.step("dns", resolve, hint=f"the name {host} must resolve on the mover"):
        return False
    return await notes.step(
        "connect", connect, hint=f"nothing answers on {host} port {port}: check server and firewall"
    )


async def _bucket(
    notes: ProbeNotes, store: "S3Objects", config: S3Config, client: Any
) -> dict[str, Any] | None:
    """One listing tells TLS, credentials and bucket apart. The request's own time comes along."""
    signed: dict[str, str] = {}

    def note(request: Any, **_: Any) -> None:
        stamp = request.headers.get("X-Amz-Date", "")
        signed["at"] = stamp.decode() if isinstance(stamp, bytes) else str(stamp)

    event = "before-send.s3.ListObjectsV2"
    client.meta.events.register(event, note)
    try:
        answer = await store.call(
            None, "list_objects_v2", Bucket=config.bucket, Prefix=config.prefix, MaxKeys=1
        )
    except BucketMissing as err:
        notes.passed("auth")
        notes.failed("bucket", detail=str(err), hint=err.hint)
        return None
    except Unreachable as err:
        notes.failed("answer", detail=str(err), hint=err.hint or "the server must speak S3")
        return None
    except StoreError as err:
        notes.failed("auth", detail=str(err), hint=err.hint or "check access_key and secret_key")
        return None
    finally:
        client.meta.events.unregister(event, note)
    notes.passed("auth")
    notes.passed("bucket")
    return {**answer, "signed_at": signed.get("at", "")}


def _clock(notes: ProbeNotes, answer: dict[str, Any]) -> None:
    """The server's Date against the time our request was signed with."""
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    try:
        theirs = parsedate_to_datetime(date)
        ours = datetime.strptime(answer["signed_at"], _SIGNED_AT).replace(tzinfo=UTC)
    except (TypeError, ValueError):
        notes.passed("clock", detail="the server does not tell its time")
        return
    skew_s = abs((theirs - ours).total_seconds())
    if skew_s > SKEW_S_MAX:
        notes.failed(
            "clock",
            detail=f"the server's clock is {skew_s:.0f} s away",
            hint="run NTP on mover and server; links and signatures depend on it",
        )
    else:
        notes.passed("clock", detail=f"{skew_s:.0f} s apart")


def _canary_name(answer: dict[str, Any]) -> str:
    """Different for each probe, so that two movers probing at once do not meet."""
    request_id = answer["ResponseMetadata"].get("RequestId") or answer["signed_at"]
    return "".join(letter for letter in str(request_id) if letter.isalnum())[:64] or "canary"
