"""The unfinished uploads of the stores in memory, and the PartWriter over one."""

from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct, field

from entrepot_plugin.errors import AlreadyThere, PartsRefused, StoreError
from entrepot_plugin.ports import ObjectStat, PartBody, PartReceipt


class HeldPart(Struct, frozen=True, kw_only=True):
    receipt: PartReceipt
    pieces: tuple[tuple[int, bytes], ...]


class Upload(Struct, kw_only=True):
    """Survives the process that began it. `sparse`: parts come as pieces (volumes)."""

    key: str
    size_bytes: int | None
    sparse: bool
    parts: dict[int, HeldPart] = field(default_factory=dict)
    sent: int = 0


class MemoryWriter:
    def __init__(
        self,
        *,
        find: Callable[[], Upload],
        publish: Callable[[bytes], ObjectStat],
        forget: Callable[[], object],
        resume: str,
        pause: Callable[[], Awaitable[None]],
    ) -> None:
        self.resume = resume
        self._find = find
        self._publish = publish
        self._forget = forget
        self._pause = pause
        self._done: tuple[ObjectStat, int] | None = None

    async def write(self, number: int, offset: int, body: PartBody) -> PartReceipt:
        upload = self._find()
        _check_bounds(upload, offset, len(body))
        pieces = await _gathered(upload, offset, body)
        await self._pause()
        upload = self._find()  # it may have been published or forgotten while bytes came
        upload.sent += 1
        receipt = PartReceipt(
            number=number, offset=offset, length=len(body), tag=f"{number}.{upload.sent}"
        )
        upload.parts[number] = HeldPart(receipt=receipt, pieces=pieces)
        return receipt

    async def parts(self) -> Sequence[PartReceipt]:
        await self._pause()
        return tuple(part.receipt for _, part in sorted(self._find().parts.items()))

    async def commit(self, parts: Sequence[PartReceipt], size_bytes: int) -> ObjectStat:
        await self._pause()
        if self._done is not None:
            stat, committed_bytes = self._done
            if committed_bytes == size_bytes:
                return stat
        upload = self._find()
        stat = self._publish(_assembled(upload, parts, size_bytes))
        self._done = (stat, size_bytes)
        return stat

    async def abort(self) -> None:
        await self._pause()
        self._forget()

    async def close(self) -> None:
        """Nothing is held."""


async def _gathered(upload: Upload, offset: int, body: PartBody) -> tuple[tuple[int, bytes], ...]:
    if upload.sparse:
        pieces = [(at, bytes(chunk)) async for at, chunk in body.pieces()]
        for at, chunk in pieces:
            _check_bounds(upload, at, len(chunk))
        return tuple(pieces)
    data = b"".join([bytes(chunk) async for chunk in body])
    if len(data) != len(body):
        raise StoreError("the part gave another number of bytes than it announced", key=upload.key)
    return ((offset, data),)


def _check_bounds(upload: Upload, offset: int, length: int) -> None:
    if offset < 0 or (upload.size_bytes is not None and offset + length > upload.size_bytes):
        raise PartsRefused("a part reaches beyond the announced size", key=upload.key)


def _assembled(upload: Upload, parts: Sequence[PartReceipt], size_bytes: int) -> bytes:
    data, position = bytearray(size_bytes), 0
    for part in sorted(parts, key=lambda part: part.offset):
        held = upload.parts.get(part.number)
        if held is None or held.receipt != part:
            raise PartsRefused("a part is not the one that is held", key=upload.key)
        if part.offset < position or (part.offset > position and not upload.sparse):
            raise PartsRefused("the parts overlap or leave a gap", key=upload.key)
        position = part.offset + part.length
        if position > size_bytes:
            raise PartsRefused("the parts are longer than the size", key=upload.key)
        for at, chunk in held.pieces:
            data[at : at + len(chunk)] = chunk
    if position < size_bytes and not upload.sparse:
        raise PartsRefused("the parts do not make up the size", key=upload.key)
    return bytes(data)


def refuse_taken(key: str, taken: object) -> None:
    if taken:
        raise AlreadyThere("another was published under this name", key=key)
