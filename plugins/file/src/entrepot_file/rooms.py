"""Names and folders beneath the root: no key, id or symbolic link can lead out of it."""

import os
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from msgspec import Struct

from entrepot_plugin.errors import BadConfig, BucketMissing
from entrepot_plugin.ports import ObjectStat

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=+@,-]{0,180}")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,80}")
_TOKEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")
_KEY_MAX = 1000
_CREATE_TRIES = 8


def key_parts(key: str) -> tuple[str, ...]:
    """Folder names and file name of a key. Names beginning with a dot are ours."""
    parts = tuple(key.split("/"))
    if len(key) > _KEY_MAX or not all(_NAME.fullmatch(part) for part in parts):
        raise BadConfig("the key holds an empty, dotted or foreign name", key=key)
    return parts


def checked_id(text: str) -> str:
    if not _ID.fullmatch(text):
        raise BadConfig("the id holds characters that no file name of ours has", key=text)
    return text


def checked_token(text: str) -> str:
    if not _TOKEN.fullmatch(text):
        raise BadConfig("the token holds characters that no file name of ours has", key=text)
    return text


def new_token() -> str:
    return secrets.token_hex(8)


class Room(Struct, frozen=True):
    """One area beneath the root (`objects`, `volumes`, `snapshots`)."""

    root: str
    area: str

    @contextmanager
    def folder(self, parts: Sequence[str], *, create: bool = False) -> Iterator[int]:
        """Descriptor of a folder, each step taken without following links. Blocking.

        The root is opened anew each time: a remount or a stale handle heals by itself.
        """
        here = self._open_root()
        try:
            for part in (self.area, *parts):
                below = _step(here, part, create=create)
                os.close(here)
                here = below
            yield here
        finally:
            os.close(here)

    def create(self, parts: Sequence[str], name: str, flags: int) -> int:
        """A file opened with O_CREAT; another process may be pruning the empty folder just now."""
        for _ in range(_CREATE_TRIES):
            with suppress(FileNotFoundError), self.folder(parts, create=True) as folder:
                return os.open(
                    name, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640, dir_fd=folder
                )
        raise FileNotFoundError(2, "the folder kept vanishing", name)

    def remove(self, parts: Sequence[str], name: str, unfinished: re.Pattern[str]) -> None:
        """A file and the unfinished files of the same name; gone already is fine."""
        with suppress(FileNotFoundError, NotADirectoryError):
            with self.folder(parts) as folder:
                names = os.listdir(folder)  # noqa: PTH208  (a descriptor, not a path)
                for doomed in (name, *filter(unfinished.fullmatch, names)):
                    with suppress(FileNotFoundError):
                        os.unlink(doomed, dir_fd=folder)
                os.fsync(folder)
            self.prune(parts)

    def prune(self, parts: Sequence[str]) -> None:
        """Remove folders that became empty, from the inside out."""
        for depth in range(len(parts), 0, -1):
            try:
                with self.folder(parts[: depth - 1]) as folder:
                    os.rmdir(parts[depth - 1], dir_fd=folder)
            except OSError:
                return

    def _open_root(self) -> int:
        try:
            return os.open(self.root, _FOLDER)
        except (FileNotFoundError, NotADirectoryError) as err:
            raise BucketMissing(
                "the directory of the store does not exist",
                hint="make it or mount it on the host; Entrepot never makes it itself",
            ) from err


def _step(folder: int, name: str, *, create: bool) -> int:
    try:
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
    except FileNotFoundError:
        if not create:
            raise
    with suppress(FileExistsError):
        os.mkdir(name, 0o750, dir_fd=folder)
        os.fsync(folder)
    return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)


class Place(Struct, frozen=True, kw_only=True):
    """Where one file is made (`part`) and where it appears (`name`), in one folder."""

    room: Room
    parts: tuple[str, ...]
    name: str
    part: str
    key: str

    def make(self) -> int:
        """A new file, never one that stood there: that may be published under its name already."""
        self.forget()
        return self.room.create(self.parts, self.part, os.O_RDWR | os.O_EXCL)

    def open(self, name: str) -> int:
        with self.room.folder(self.parts) as folder:
            return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)

    def forget(self) -> None:
        with suppress(FileNotFoundError), self.room.folder(self.parts) as folder:
            os.unlink(self.part, dir_fd=folder)


def stat_of(key: str, fact: os.stat_result) -> ObjectStat:
    return ObjectStat(
        key=key,
        size_bytes=fact.st_size,
        version=f"{fact.st_ino:x}-{fact.st_mtime_ns:x}-{fact.st_size:x}",
        modified_at=datetime.fromtimestamp(fact.st_mtime, UTC),
    )
