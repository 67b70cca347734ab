"""What a directory is asked before it may be a store: there, a folder, writable, with room."""

import os

from entrepot_file.rooms import Room
from entrepot_file.threads import Lanes
from entrepot_plugin.errors import OutOfSpace
from entrepot_plugin.probing import ProbeNotes

FREE_BYTES_MIN = 64 << 20


def capacity_of(path: str) -> tuple[int, int]:
    fact = os.statvfs(path)
    return fact.f_blocks * fact.f_frsize, fact.f_bavail * fact.f_frsize


async def probe_room(notes: ProbeNotes, *, lanes: Lanes, room: Room) -> bool:
    """The steps that stand before any canary. False: nothing else can work."""
    there = await notes.step(
        "path", lambda: lanes.run(lambda: _enter(room)), hint="make or mount the directory"
    )
    if not there:
        return False
    writable = await notes.step(
        "write",
        lambda: lanes.run(lambda: _write(room)),
        hint="give the mover's user write permission, and check that it is not mounted read-only",
    )
    await notes.step("space", lambda: lanes.run(lambda: _space(room)), hint="free some space")
    return writable


def _enter(room: Room) -> None:
    with Room(room.root, ".").folder(()):
        pass


def _write(room: Room) -> None:
    with room.folder((), create=True) as folder:
        name = f".write-{os.getpid()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(name, flags, 0o600, dir_fd=folder))
        os.unlink(name, dir_fd=folder)


def _space(room: Room) -> str:
    total, free = capacity_of(room.root)
    if free < FREE_BYTES_MIN:
        raise OutOfSpace(f"{free} bytes are free of {total}", hint="free space in the directory")
    return f"{free} bytes free of {total}"
