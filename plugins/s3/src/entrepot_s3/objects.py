"""ObjectStore over one bucket (and prefix) of any S3 server."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import quote

from entrepot_contracts.values import ProbeReport
from entrepot_plugin.bodies import BytesBody
from entrepot_plugin.errors import BucketMissing, ResumeLost, StoreError, Unreachable
from entrepot_plugin.ports import Buffer, ObjectStat, PartBody
from entrepot_s3.config import S3Config
from entrepot_s3.faults import error_code, translating
from entrepot_s3.gathering import Gathering
from entrepot_s3.uploads import S3PartWriter, send_bounded

CHUNK_BYTES = 1 << 20
PAGES_MAX = 100_000
PARTIAL = 206


class S3Objects:
    def __init__(self, *, config: S3Config, client: Any) -> None:
        self._config = config
        self._client = client
        self.page_max = config.list_page_max
        self._parts = asyncio.Semaphore(config.part_concurrency)
        self._base = f"{config.prefix}/" if config.prefix else ""

    # --- what the writer and the probe need of us -----------------------------------------------

    def names(self, key: str) -> dict[str, str]:
        return {"Bucket": self._config.bucket, "Key": self._base + key}

    async def call(self, key: str | None, operation: str, **arguments: Any) -> dict[str, Any]:
        """One request; every failure is a port error."""
        with translating(key):
            answer: dict[str, Any] = await getattr(self._client, operation)(**arguments)
            return answer

    async def send(self, key: str, body: PartBody, operation: str, **arguments: Any) -> Any:
        """One request with a streamed body, bounded in time; so many at once as the config says."""
        config = self._config
        async with self._parts:
            return await send_bounded(
                partial(getattr(self._client, operation), **arguments),
                body,
                key=key,
                stall_s=config.connect_timeout_s + config.read_timeout_s,
                limit_s=config.sdk_attempts * (config.connect_timeout_s + config.read_timeout_s)
                + len(body) / config.part_rate_min_bps,
            )

    # --- ObjectStore ----------------------------------------------------------------------------

    async def stat(self, key: str) -> ObjectStat:
        answer = await self.call(key, "head_object", **self.names(key))
        return ObjectStat(
            key=key,
            size_bytes=int(answer["ContentLength"]),
            version=str(answer.get("ETag", "")).strip('"'),
            modified_at=_utc(answer.get("LastModified")),
        )

    async def read(self, key: str, start: int, end: int) -> AsyncIterator[Buffer]:
        if start >= end:
            await self.stat(key)
            return
        answer = await self.call(
            key, "get_object", Range=f"bytes={start}-{end - 1}", **self.names(key)
        )
        stream = answer["Body"]
        try:
            _check_range(answer, start, key)
            missing = end - start
            body = Gathering(stream.raw_stream, missing)
            while missing:
                with translating(key):
                    block = await body.take()
                if not block:
                    raise Unreachable("the body ends before the range does", key=key)
                view = memoryview(block)[:missing]
                missing -= len(view)
                for at in range(0, len(view), CHUNK_BYTES):
                    yield view[at : at + CHUNK_BYTES]
        finally:
            stream.close()

    async def begin(self, key: str, size_bytes: int | None, resume: str | None) -> S3PartWriter:
        del size_bytes  # part sizes are the caller's plan
        if resume is None:
            answer = await self.call(key, "create_multipart_upload", **self.names(key))
            return S3PartWriter(store=self, key=key, upload_id=answer["UploadId"])
        try:
            await self.call(key, "list_parts", UploadId=resume, MaxParts=1, **self.names(key))
        except StoreError as err:
            if error_code(err) in {"InvalidArgument", "InvalidRequest", "404", "NoSuchKey"}:
                raise ResumeLost("the server does not know the upload", key=key) from err
            raise
        return S3PartWriter(store=self, key=key, upload_id=resume)

    async def put(self, key: str, data: bytes) -> ObjectStat:
        answer = await self.send(key, BytesBody(data), "put_object", **self.names(key))
        return ObjectStat(
            key=key, size_bytes=len(data), version=str(answer.get("ETag", "")).strip('"')
        )

    async def list(self, prefix: str) -> AsyncIterator[ObjectStat]:
        more: dict[str, str] = {}
        for _ in range(PAGES_MAX):
            answer = await self.call(
                None,
                "list_objects_v2",
                Bucket=self._config.bucket,
                Prefix=self._base + prefix,
                MaxKeys=self.page_max,
                **more,
            )
            for entry in answer.get("Contents", ()):
                yield ObjectStat(
                    key=entry["Key"].removeprefix(self._base),
                    size_bytes=int(entry["Size"]),
                    version=str(entry.get("ETag", "")).strip('"'),
                    modified_at=_utc(entry.get("LastModified")),
                )
            if not answer.get("IsTruncated"):
                return
            more = _moved_on(more, {"ContinuationToken": answer.get("NextContinuationToken", "")})
        raise StoreError("the listing never ends")

    async def delete(self, key: str) -> None:
        await self._abort([found async for found in self._unfinished(key) if found[0] == key])
        with suppress(BucketMissing):
            await self.call(key, "delete_object", **self.names(key))

    async def probe(self) -> ProbeReport:
        from entrepot_s3.probe import probe

        return await probe(self, self._config, self._client)

    # --- ForgetsUploads -------------------------------------------------------------------------

    async def forget_uploads(self, prefix: str) -> int:
        found = [found async for found in self._unfinished(prefix)]
        await self._abort(found)
        return len(found)

    # --- SharesLinks ----------------------------------------------------------------------------

    async def link(self, key: str, *, expires_s: int, file_name: str) -> str:
        await self.stat(key)
        parameters = {
            **self.names(key),
            "ResponseContentDisposition": _disposition(file_name),
            "ResponseContentType": "application/octet-stream",
        }
        with translating(key):
            url: str = await self._client.generate_presigned_url(
                "get_object", Params=parameters, ExpiresIn=expires_s
            )
            return url

    async def ensure_bucket(self) -> None:
        try:
            await self.call(None, "create_bucket", Bucket=self._config.bucket)
        except StoreError as err:
            if error_code(err) not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
                raise

    async def _abort(self, uploads: Sequence[tuple[str, str]]) -> None:
        for key, upload_id in uploads:
            await S3PartWriter(store=self, key=key, upload_id=upload_id).abort()

    async def _unfinished(self, prefix: str) -> AsyncIterator[tuple[str, str]]:
        """(key, upload id) of every unfinished upload whose key begins with `prefix`."""
        base = self._base + prefix
        more: dict[str, str] = {}
        for _ in range(PAGES_MAX):
            try:
                answer = await self.call(
                    None,
                    "list_multipart_uploads",
                    Bucket=self._config.bucket,
                    Prefix=base,
                    MaxUploads=self.page_max,
                    **more,
                )
            except StoreError as err:
                if error_code(err) in {"NoSuchBucket", "NotImplemented"}:
                    return
                raise
            for upload in answer.get("Uploads", ()):
                if upload["Key"].startswith(base):
                    yield upload["Key"].removeprefix(self._base), upload["UploadId"]
            # Swift leaves the markers of a page of one upload empty: take them from the page.
            last: dict[str, Any] = (answer.get("Uploads") or ({},))[-1]
            after = {
                "KeyMarker": answer.get("NextKeyMarker") or last.get("Key", ""),
                "UploadIdMarker": answer.get("NextUploadIdMarker") or last.get("UploadId", ""),
            }
            if not answer.get("IsTruncated"):
                return
            more = _moved_on(more, after)


def _moved_on(before: dict[str, str], after: dict[str, str]) -> dict[str, str]:
    """A server that gives the same page for ever is found out on its second page."""
    if before == after or not any(after.values()):
        raise StoreError("the server's listing does not move on")
    return after


def _check_range(answer: dict[str, Any], start: int, key: str) -> None:
    """A server that ignores Range sends the object from its beginning with status 200."""
    status = answer["ResponseMetadata"]["HTTPStatusCode"]
    told = str(answer.get("ContentRange", ""))
    if status == PARTIAL and told and not told.startswith(f"bytes {start}-"):
        raise StoreError("the server sent another range than was asked for", key=key)
    if status != PARTIAL and start:
        raise StoreError("the server ignores byte ranges", key=key)


def _utc(moment: datetime | None) -> datetime | None:
    return moment.astimezone(UTC) if moment else None


def _disposition(file_name: str) -> str:
    """RFC 6266: a plain name for old clients, the exact one beside it."""
    plain = "".join(
        letter if letter.isascii() and letter.isprintable() and letter not in '"\\%/' else "_"
        for letter in file_name
    )
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(file_name, safe='')}"
