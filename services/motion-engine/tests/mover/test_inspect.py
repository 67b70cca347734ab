"""The inspector against a corpus of hostile files, and against what qemu-img really writes."""

import shutil
import struct
import subprocess
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mover_rig import MIB, noise, qcow2_header, qcow2_image

from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.values import ImageFormat
from motion_engine.mover.inspect import Inspector
from motion_engine.mover.inspect.streaming import own_virtual_size

QCOW2, RAW, ISO = ImageFormat.QCOW2, ImageFormat.RAW, ImageFormat.ISO


def inspect(data, declared, *, virtual_max=1 << 40, step=65536, size=None):
    inspector = Inspector(declared, virtual_size_bytes_max=virtual_max)
    for at in range(0, len(data), step):
        inspector.feed([data[at : at + step]])
    return inspector.finish(len(data) if size is None else size)


def refusal(data, declared, **options):
    with pytest.raises(Refused) as caught:
        inspect(data, declared, **options)
    problem = caught.value.problem
    assert problem.field in {"url", "format"}
    assert problem.hint
    assert not problem.retryable
    return problem


def extension(kind, data):
    return struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)


UNSAFE = {
    "backing file": {"backing": (512, 20)},
    "backing offset alone": {"backing": (512, 0)},
    "backing length alone": {"backing": (0, 20)},
    "external data file bit": {"incompatible": 4},
    "external data file name": {"extensions": extension(0x44415441, b"/etc/shadow")},
    "corrupt bit": {"incompatible": 2},
    "unknown incompatible bit": {"incompatible": 1 << 5},
    "highest incompatible bit": {"incompatible": 1 << 63},
    "unknown extension": {"extensions": extension(0x12345678, b"x")},
    "crypto header extension": {"extensions": extension(0x0537BE77, bytes(16))},
    "extension longer than its place": {"extensions": struct.pack(">II", 0x6803F857, 1 << 31)},
    "aes encryption": {"crypt": 1},
    "luks encryption": {"crypt": 2},
    "internal snapshots": {"snapshots": 1},
    "cluster bits too small": {"cluster_bits": 8, "l1": 1},
    "cluster bits too large": {"cluster_bits": 22, "l1": 1},
    "cluster bits absurd": {"cluster_bits": 0xFFFFFFFF, "l1": 1},
    "virtual size zero": {"virtual": 0, "l1": 0},
    "virtual size 8 EiB": {"virtual": (1 << 63) - 512, "l1": 1 << 20},
    "l1 table absurd": {"l1": 0xFFFFFFFF},
    "l1 table too small": {"virtual": 1 << 40, "l1": 1},
    "l1 outside": {"l1_at": 1 << 40},
    "l1 not aligned": {"l1_at": 0x30001},
    "l1 in the header": {"l1_at": 0},
    "refcounts outside": {"ref_at": 1 << 40},
    "refcounts in the header": {"ref_at": 0},
    "refcount table absurd": {"ref_clusters": 0xFFFFFFFF},
    "refcount width": {"refcount_order": 7},
    "version 1": {"version": 1},
    "version 4": {"version": 4},
    "header length zero": {"header_length": 0},
    "header length odd": {"header_length": 109},
    "header length huge": {"header_length": 1 << 20},
}


@pytest.mark.parametrize("case", UNSAFE)
def test_a_hostile_qcow2_is_refused(case):
    assert (
        refusal(qcow2_image(**UNSAFE[case]), QCOW2, virtual_max=1 << 63).code is Code.UNSAFE_IMAGE
    )


@pytest.mark.parametrize("version", [2, 3])
def test_an_honest_qcow2_passes_with_its_virtual_size(version):
    assert inspect(qcow2_image(version=version, virtual=5 << 30), QCOW2) == 5 << 30


def test_a_qcow2_cut_off_in_its_tables_is_refused():
    assert refusal(qcow2_image(size=0x20000), QCOW2).code is Code.UNSAFE_IMAGE


@pytest.mark.parametrize("length", [4, 71, 72, 100])
def test_a_qcow2_cut_off_in_its_header_is_refused(length):
    assert refusal(qcow2_header()[:length], QCOW2).code is Code.UNSAFE_IMAGE


def test_a_virtual_size_beyond_the_quota_is_refused_by_name():
    problem = refusal(qcow2_image(virtual=2 << 40), QCOW2, virtual_max=1 << 40)
    assert problem.code is Code.QUOTA_EXCEEDED
    assert problem.facts["virtual_size_bytes"] == str(2 << 40)
    assert refusal(noise(MIB), RAW, virtual_max=MIB - 512).code is Code.QUOTA_EXCEEDED


MAGICS = {
    "qcow2": (0, b"QFI\xfb"),
    "qed": (0, b"QED\0"),
    "vmdk sparse": (0, b"KDMV"),
    "vmdk 3": (0, b"COWD"),
    "vmdk descriptor": (0, b"# Disk DescriptorFile\nversion=1\n"),
    "vmdk descriptor behind comments": (
        0,
        b'# hello\n\n#\r\n  version=1\nRW 1 FLAT "/etc/passwd" 0',
    ),
    "vhd fixed, at the end": (-512, b"conectix"),
    "vhd dynamic": (0, b"conectix"),
    "vhdx": (0, b"vhdxfile"),
    "vdi": (0x40, b"\x7f\x10\xda\xbe"),
    "parallels": (0, b"WithoutFreeSpace"),
    "parallels 2": (0, b"WithouFreSpacExt"),
    "bochs": (0, b"Bochs Virtual HD Image"),
    "cloop": (0, b"#!/bin/sh\n#V2.0 Format\n"),
    "luks": (0, b"LUKS\xba\xbe"),
    "dmg": (-512, b"koly"),
    "iso": (0x8001, b"CD001"),
}


@pytest.mark.parametrize("name", MAGICS)
def test_raw_must_be_nothing_else(name):
    at, magic = MAGICS[name]
    data = bytearray(MIB)
    at = len(data) + at if at < 0 else at
    data[at : at + len(magic)] = magic
    problem = refusal(bytes(data), RAW)
    assert problem.code in {Code.FORMAT_MISMATCH, Code.UNSAFE_IMAGE}


@pytest.mark.parametrize("name", ["vhd fixed, at the end", "dmg", "iso"])
def test_a_qcow2_that_is_something_else_too_is_refused(name):
    at, magic = MAGICS[name]
    data = bytearray(qcow2_image())
    at = len(data) + at if at < 0 else at
    data[at : at + len(magic)] = magic
    assert refusal(bytes(data), QCOW2).code is Code.UNSAFE_IMAGE


def test_the_trailer_is_found_however_the_stream_is_cut():
    data = bytearray(MIB)
    data[-512:-504] = b"conectix"
    for step in (100, 511, 512, 513, 65536, MIB):
        refusal(bytes(data), RAW, step=step)


def test_what_is_declared_must_be_what_it_is():
    assert refusal(noise(MIB), QCOW2).code is Code.FORMAT_MISMATCH
    assert refusal(noise(MIB), ISO).code is Code.FORMAT_MISMATCH
    problem = refusal(qcow2_image(), RAW)
    assert problem.code is Code.FORMAT_MISMATCH
    assert problem.facts == {"declared": "raw", "found": "qcow2"}


def test_an_iso_passes_as_an_iso():
    data = bytearray(MIB)
    data[0x8001:0x8006] = b"CD001"
    assert inspect(bytes(data), ISO) == MIB


@pytest.mark.parametrize("size", [0, 1, 511, 513])
def test_raw_bytes_that_are_no_whole_sectors_are_refused(size):
    assert refusal(noise(size), RAW).code is Code.FORMAT_MISMATCH


def test_a_volume_of_ours_may_hold_snapshots_but_no_outside_references():
    head = qcow2_image(snapshots=2)
    assert own_virtual_size(QCOW2, head, len(head)) == 1 << 30
    for fields in ({"backing": (512, 9)}, {"incompatible": 4}):
        with pytest.raises(Refused):
            own_virtual_size(QCOW2, qcow2_image(**fields), 1)


@given(st.binary(max_size=4096), st.sampled_from(list(ImageFormat)), st.integers(1, 5000))
def test_any_bytes_end_in_a_verdict_or_a_refusal(data, declared, step):
    with suppress(Refused):
        inspect(data, declared, step=step)


@settings(max_examples=300)
@given(st.dictionaries(st.integers(4, 119), st.integers(0, 255), min_size=1, max_size=12))
def test_a_mutated_header_is_judged_without_an_accident(changes):
    data = bytearray(qcow2_image(extensions=extension(0x6803F857, bytes(48))))
    for at, value in changes.items():
        data[at] = value
    try:
        assert inspect(bytes(data), QCOW2, virtual_max=1 << 60) > 0
    except Refused:
        return
    backing, backing_size = struct.unpack_from(">QI", data, 8)
    assert (backing, backing_size) == (0, 0)
    assert struct.unpack_from(">I", data, 60)[0] == 0


needs_qemu = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-utils not installed")

REAL_GOOD = {
    "plain": [],
    "version 2": ["-o", "compat=0.10"],
    "zstd": ["-o", "compression_type=zstd"],
    "extended l2": ["-o", "extended_l2=on,cluster_size=128k"],
    "big clusters": ["-o", "cluster_size=2M"],
    "small clusters": ["-o", "cluster_size=512"],
    "lazy refcounts": ["-o", "lazy_refcounts=on"],
    "metadata preallocated": ["-o", "preallocation=metadata"],
}


def qemu_img(*words):
    subprocess.run(["qemu-img", *map(str, words)], check=True, capture_output=True)


@needs_qemu
@pytest.mark.parametrize("name", REAL_GOOD)
def test_images_of_qemu_itself_pass(tmp_path, name):
    path = tmp_path / "a.qcow2"
    qemu_img("create", "-f", "qcow2", *REAL_GOOD[name], path, "100M")
    data = path.read_bytes()
    assert inspect(data, QCOW2) == 100 * MIB


@needs_qemu
def test_real_attacks_made_by_qemu_are_refused(tmp_path):
    base, over = tmp_path / "base.raw", tmp_path / "over.qcow2"
    base.write_bytes(bytes(MIB))
    qemu_img("create", "-f", "qcow2", "-b", base, "-F", "raw", over)
    assert refusal(over.read_bytes(), QCOW2).code is Code.UNSAFE_IMAGE
    outside = tmp_path / "outside.qcow2"
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={tmp_path}/d.raw", outside, "1M")
    assert refusal(outside.read_bytes(), QCOW2).code is Code.UNSAFE_IMAGE
    snap = tmp_path / "snap.qcow2"
    qemu_img("create", "-f", "qcow2", snap, "1M")
    qemu_img("snapshot", "-c", "s", snap)
    assert refusal(snap.read_bytes(), QCOW2).code is Code.UNSAFE_IMAGE
    for kind in ("vmdk", "vpc", "vhdx", "vdi", "qed", "parallels"):
        other = tmp_path / f"a.{kind}"
        qemu_img("create", "-f", kind, other, "64M")
        assert refusal(other.read_bytes(), RAW).code in {Code.FORMAT_MISMATCH, Code.UNSAFE_IMAGE}
        assert refusal(other.read_bytes(), QCOW2).code is Code.FORMAT_MISMATCH
