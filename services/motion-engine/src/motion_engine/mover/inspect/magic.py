"""Which formats some bytes could be taken for: every magic that qemu would probe, and ISO 9660."""

import re

TRAILER_BYTES = 512

_HEAD_MAGICS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"QFI\xfb", "qcow2"),
    (0, b"QED\0", "qed"),
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (0, b"conectix", "vhd"),
    (0, b"vhdxfile", "vhdx"),
    (0x40, b"\x7f\x10\xda\xbe", "vdi"),
    (0, b"WithoutFreeSpace", "parallels"),
    (0, b"WithouFreSpacExt", "parallels"),
    (0, b"Bochs Virtual HD Image", "bochs"),
    (0, b"#!/bin/sh\n#V2.0 Format", "cloop"),
    (0, b"LUKS\xba\xbe", "luks"),
    (0x8001, b"CD001", "iso"),
    (0x8801, b"CD001", "iso"),
)
_TRAILER_MAGICS: tuple[tuple[bytes, str], ...] = ((b"conectix", "vhd"), (b"koly", "dmg"))
# qemu takes text for a VMDK descriptor when, after comments and blank lines, a version follows
_DESCRIPTOR = re.compile(rb"(?:[ \t]*(?:#[^\n]{0,4096})?\r?\n){0,512}[ \t]*version=[123]")
_DESCRIPTOR_BYTES = 20 << 10


def formats_of_head(head: bytes) -> frozenset[str]:
    hits = {name for at, magic, name in _HEAD_MAGICS if head[at : at + len(magic)] == magic}
    if _DESCRIPTOR.match(head[:_DESCRIPTOR_BYTES]):
        hits.add("vmdk")
    return frozenset(hits)


def formats_of_trailer(trailer: bytes) -> frozenset[str]:
    """`trailer`: the last 512 bytes, or all there are."""
    return frozenset(
        name for magic, name in _TRAILER_MAGICS if trailer[-TRAILER_BYTES:].startswith(magic)
    )
