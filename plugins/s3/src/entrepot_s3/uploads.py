"""PartWriter over a multipart upload. The upload id is the resume token.

An answer to Complete is not believed and a failure is not either: HEAD decides. ETags are compared
as names of parts, never as proof of content.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from entrepot_plugin.errors import (
    CommitUnclear,
    ObjectMissing,
    PartsRefused,
    ResumeLost,
    Stalled,
    StoreError,
    Unreachable,
)
from entrepot_plugin.ports import UNKNOWN_OFFSET, ObjectStat, PartBody, PartReceipt
from entrepot_s3.body import UploadBody
from entrepot_s3.faults import translating

if TYPE_CHECKING:
    from entrepot_s3.objects import S3Objects

PAGES_MAX = 10_000  # as many as an upload may have parts


class S3PartWriter:
    def __init__(self, *, store: "S3Objects", key: str, upload_id: str) -> None:
        self.resume = upload_id
        self._store = store
        self._key = key
        self._names = {**store.names(key), "UploadId": upload_id}

    async def write(self, number: int, offset: int, body: PartBody) -> PartReceipt:
        answer = await self._store.send(
            self._key, body, "upload_part", PartNumber=number, **self._names
        )
        return PartReceipt(
            number=number, offset=offset, length=len(body), tag=_tag(answer.get("ETag"))
        )

    async def parts(self) -> Sequence[PartReceipt]:
        found: list[PartReceipt] = []
        marker = 0
        for _ in range(PAGES_MAX):
            answer = await self._store.call(
                self._key,
                "list_parts",
                PartNumberMarker=marker,
                MaxParts=self._store.page_max,
                **self._names,
            )
            found += [_receipt(part) for part in answer.get("Parts", ())]
            if not answer.get("IsTruncated"):
                return found
            if int(answer["NextPartNumberMarker"]) <= marker:
                break
            marker = int(answer["NextPartNumberMarker"])
        raise StoreError("the server's list of parts does not move on", key=self._key)

    async def commit(self, parts: Sequence[PartReceipt], size_bytes: int) -> ObjectStat:
        ordered = sorted(parts, key=lambda part: part.number)
        _check_whole(ordered, size_bytes, self._key)
        if not ordered:  # S3 has no multipart object without parts
            await self.abort()
            return await self._store.put(self._key, b"")
        listing = [{"PartNumber": part.number, "ETag": part.tag} for part in ordered]
        try:
            await self._store.call(
                self._key,
                "complete_multipart_upload",
                MultipartUpload={"Parts": listing},
                **self._names,
            )
        except (Unreachable, ResumeLost) as err:
            return await self._decide(size_bytes, err)
        return await self._decide(size_bytes, None)

    async def abort(self) -> None:
        try:
            with suppress(ResumeLost, ObjectMissing):
                await self._store.call(self._key, "abort_multipart_upload", **self._names)
        except Unreachable:
            with suppress(ResumeLost, ObjectMissing):  # gone after all
                await self.parts()
                raise

    async def close(self) -> None:
        """Nothing is held: connections belong to the store."""

    async def _decide(self, size_bytes: int, failure: StoreError | None) -> ObjectStat:
        """What stands under the key tells whether the commit took effect."""
        try:
            stat = await self._store.stat(self._key)
        except ObjectMissing:
            if failure is not None:
                raise failure from None
            raise CommitUnclear("the server said done and shows no object", key=self._key) from None
        except StoreError as err:
            raise CommitUnclear(
                "neither the commit nor a look at it was answered", key=self._key
            ) from err
        if stat.size_bytes == size_bytes:
            return stat
        if failure is not None:
            raise failure
        raise PartsRefused(
            f"the committed object has {stat.size_bytes} bytes, not {size_bytes}", key=self._key
        )


def _check_whole(ordered: Sequence[PartReceipt], size_bytes: int, key: str) -> None:
    position = 0
    for part in ordered:
        if part.offset not in {position, UNKNOWN_OFFSET}:
            raise PartsRefused("the parts overlap, leave a gap or are misnumbered", key=key)
        position += part.length
    if position != size_bytes:
        raise PartsRefused("the parts do not make up the size", key=key)


def _receipt(part: dict[str, Any]) -> PartReceipt:
    return PartReceipt(
        number=int(part["PartNumber"]),
        offset=UNKNOWN_OFFSET,
        length=int(part["Size"]),
        tag=_tag(part.get("ETag")),
    )


def _tag(etag: str | None) -> str:
    return (etag or "").strip('"')


async def send_bounded(
    request: Callable[..., Awaitable[dict[str, Any]]],
    body: PartBody,
    *,
    key: str,
    stall_s: float,
    limit_s: float,
) -> dict[str, Any]:
    """One upload request that cannot hang: no read time-out of the SDK bounds a peer that stops
    reading. `stall_s` bounds the pause between chunks, `limit_s` the whole.
    """
    streamed = UploadBody(body, stall_s=stall_s)
    try:
        async with asyncio.timeout(limit_s), asyncio.timeout(stall_s) as stall:
            with translating(key), streamed.watched_by(stall):
                return await request(Body=streamed)
    except TimeoutError as err:
        raise Stalled("the server stopped taking bytes", key=key) from err
    except StoreError as err:
        if streamed.failure is not None:
            raise streamed.failure from err
        raise
