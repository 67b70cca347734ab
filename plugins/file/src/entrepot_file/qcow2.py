"""The two facts taken from a qcow2 header, and blank qcow2 files. Never probes a format."""

import asyncio
import os
import struct

from entrepot_plugin.errors import BadConfig, StoreError

_MAGIC = b"QFI\xfb"
_SIZE_AT = 24
_HEADER_BYTES = 32
CREATE_TIMEOUT_S = 60.0


def virtual_size(descriptor: int) -> int:
    """Bytes the guest sees. Blocking."""
    header = os.pread(descriptor, _HEADER_BYTES, 0)
    if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
        raise StoreError("the volume is recorded as qcow2 and has no qcow2 header")
    (size_bytes,) = struct.unpack_from(">Q", header, _SIZE_AT)
    return int(size_bytes)


async def create_blank(path: str, size_bytes: int) -> None:
    """Fill the empty file at an absolute path with a blank image of that virtual size."""
    argv = ("qemu-img", "create", "-q", "-f", "qcow2", path, str(size_bytes))
    try:
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
    except FileNotFoundError as err:
        raise BadConfig(
            "qemu-img is not installed on the mover's host", hint="install qemu-utils"
        ) from err
    try:
        async with asyncio.timeout(CREATE_TIMEOUT_S):
            _, complaint = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        text = complaint.decode(errors="replace").replace(path, "<volume>").strip()
        raise StoreError(f"qemu-img create failed: {text[:300]}")
