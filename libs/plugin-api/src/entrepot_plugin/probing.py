"""A probe as a list of named steps, and the steps every object store can be asked for."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from entrepot_contracts.values import ProbeCheck, ProbeReport
from entrepot_plugin.bodies import BytesBody
from entrepot_plugin.errors import ObjectMissing, StoreError
from entrepot_plugin.ports import ObjectStore

T = TypeVar("T")
CANARY_BYTES = 300_000


class ProbeMismatch(StoreError):
    """A store answered, and wrongly."""

    retryable = False


class ProbeNotes:
    """Collects what each step found; a failed step is written down, never raised."""

    def __init__(self) -> None:
        self._checks: list[ProbeCheck] = []

    async def step(self, name: str, call: Callable[[], Awaitable[T]], *, hint: str) -> bool:
        """Run one step; text it returns is shown beside it."""
        try:
            found = await call()
        except StoreError as err:
            self.failed(name, detail=str(err), hint=err.hint or hint)
            return False
        self.passed(name, detail=found if isinstance(found, str) else "")
        return True

    def passed(self, name: str, *, detail: str = "") -> None:
        self._checks.append(ProbeCheck(name=name, ok=True, detail=detail))

    def failed(self, name: str, *, detail: str, hint: str) -> None:
        self._checks.append(ProbeCheck(name=name, ok=False, detail=detail, hint=hint))

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self._checks)

    def report(
        self, *, capacity_bytes: int | None = None, free_bytes: int | None = None
    ) -> ProbeReport:
        return ProbeReport(
            checks=tuple(self._checks), capacity_bytes=capacity_bytes, free_bytes=free_bytes
        )


async def probe_canary(store: ObjectStore, notes: ProbeNotes, *, folder: str) -> None:
    """put, stat, get, range, list, multipart, delete on two objects below `folder`.

    A step that fails ends the chain, since the next ones stand on it; the canaries are deleted
    whatever happened.
    """
    canary = _Canary(store, folder)
    steps: tuple[tuple[str, Callable[[], Awaitable[None]], str], ...] = (
        ("put", canary.put, "allow writing objects"),
        ("get", canary.get, "allow reading objects"),
        ("range", canary.get_range, "the server must answer byte ranges with 206"),
        ("list", canary.list, "allow listing"),
        ("multipart", canary.multipart, "allow multipart uploads"),
    )
    for name, call, hint in steps:
        if not await notes.step(name, call, hint=hint):
            break
    await notes.step("delete", canary.delete, hint="allow deleting objects")


class _Canary:
    def __init__(self, store: ObjectStore, folder: str) -> None:
        self._store = store
        self._folder = folder
        self._small = f"{folder}/small"
        self._large = f"{folder}/large"
        self._data = bytes(range(251)) * (CANARY_BYTES // 251)

    async def put(self) -> None:
        await self._store.put(self._small, self._data)
        stat = await self._store.stat(self._small)
        _expect(stat.size_bytes == len(self._data), "stat tells another size than was put")

    async def get(self) -> None:
        await self._compare(self._small, 0, len(self._data))

    async def get_range(self) -> None:
        await self._compare(self._small, 1000, 1017)

    async def list(self) -> None:
        keys = [stat.key async for stat in self._store.list(self._folder + "/")]
        _expect(self._small in keys, "a listing does not show an object that was just put")

    async def multipart(self) -> None:
        size_bytes = len(self._data)
        writer = await self._store.begin(self._large, size_bytes, None)
        try:
            receipt = await writer.write(1, 0, BytesBody(self._data))
            await writer.commit((receipt,), size_bytes)
        finally:
            await writer.close()
        await self._compare(self._large, size_bytes - 500, size_bytes)

    async def delete(self) -> None:
        for key in (self._small, self._large):
            await self._store.delete(key)
        try:
            await self._store.stat(self._small)
        except ObjectMissing:
            return
        raise ProbeMismatch("a deleted object is still there")

    async def _compare(self, key: str, start: int, end: int) -> None:
        read = b"".join([bytes(chunk) async for chunk in self._store.read(key, start, end)])
        _expect(read == self._data[start:end], "the store gave back other bytes than it was given")


def _expect(fact: bool, complaint: str) -> None:  # noqa: FBT001
    if not fact:
        raise ProbeMismatch(complaint)
