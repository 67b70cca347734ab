"""Builds a real disk image on the spot: an ext4 filesystem of this machine's own files."""

import hashlib
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

MIB = 1 << 20
VIRTUAL_BYTES = 1 << 30
# A minimal Debian has some 250 MiB of files; our own environment adds as much again.
SOURCES = ("/usr/share", "/usr/lib", "/usr/bin", sys.prefix)
FILE_BYTES_MAX = 24 * MIB
READ_BYTES = 4 * MIB


class Image(Struct, frozen=True, kw_only=True):
    """The same filesystem twice: packed as qcow2, and raw with all of its empty space."""

    qcow2: Path
    raw: Path
    qcow2_sha256: str
    raw_sha256: str
    files: int
    file_bytes: int

    @property
    def qcow2_bytes(self) -> int:
        return self.qcow2.stat().st_size


def build(
    folder: Path, *, file_bytes: int, virtual_bytes: int = VIRTUAL_BYTES, name: str = "debian"
) -> Image:
    """About `file_bytes` of files in an ext4 filesystem; needs no root and mounts nothing."""
    tree = folder / "tree"
    files, copied = _collect(tree, file_bytes)
    raw, qcow2 = folder / f"{name}.raw", folder / f"{name}.qcow2"
    with raw.open("wb") as blank:
        blank.truncate(virtual_bytes)
    _run("mke2fs", "-q", "-F", "-t", "ext4", "-L", "entrepot", "-d", str(tree), str(raw))
    shutil.rmtree(tree)
    _run("e2fsck", "-f", "-n", str(raw))
    _run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(qcow2))
    return Image(
        qcow2=qcow2,
        raw=raw,
        qcow2_sha256=sha256(qcow2),
        raw_sha256=sha256(raw),
        files=files,
        file_bytes=copied,
    )


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _collect(tree: Path, wanted_bytes: int) -> tuple[int, int]:
    """Copy regular files until enough are there; (count, bytes)."""
    count = total = 0
    for path in _regular_files():
        target = tree / path.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(path, target)
        except OSError:  # gone or closed to us meanwhile; any other file will do
            target.unlink(missing_ok=True)
            continue
        count += 1
        total += target.stat().st_size
        if total >= wanted_bytes:
            return count, total
    raise SystemExit(f"this machine has only {total // MIB} MiB of files to build an image from")


def _regular_files() -> Iterator[Path]:
    for source in SOURCES:
        for folder, subfolders, names in os.walk(source):
            subfolders.sort()
            for name in sorted(names):
                path = Path(folder) / name
                status = path.lstat()
                if stat.S_ISREG(status.st_mode) and 0 < status.st_size <= FILE_BYTES_MAX:
                    yield path


def _run(*argv: str) -> None:
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{argv[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
