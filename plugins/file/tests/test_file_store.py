"""What is particular to a directory: names, links, full disks, durability, formats, threads."""

import asyncio
import errno
import os
import resource
import stat as modes
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from entrepot_contracts.values import ImageFormat
from entrepot_file import PLUGIN
from entrepot_file.copying import copy_sparse, data_extents, widened
from entrepot_file.faults import translated
from entrepot_file.threads import Handle
from entrepot_plugin.bodies import BytesBody
from entrepot_plugin.conformance.material import keys, pattern, read_all
from entrepot_plugin.errors import (
    BadConfig,
    Denied,
    ObjectMissing,
    OutOfSpace,
    StoreError,
    Unreachable,
)
from entrepot_plugin.ports import VolumeRef
from entrepot_plugin.quality import complaints

MIB = 1 << 20


def config(path, **more):
    return PLUGIN.parse({"path": str(path), **more}, {})


@pytest.fixture
async def store(tmp_path):
    async with PLUGIN.open_objects(config(tmp_path)) as store:
        yield store


@pytest.fixture
async def volumes(tmp_path):
    async with PLUGIN.open_volumes(config(tmp_path)) as volumes:
        yield volumes


# --- names and links --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/.hidden", "a/b/", "nul\0", "ü", "a\nb"],
)
async def test_a_key_that_is_no_plain_path_is_refused_everywhere(store, tmp_path, key):
    for call in (
        lambda: store.stat(key),
        lambda: store.begin(key, 1, None),
        lambda: store.put(key, b"x"),
        lambda: store.delete(key),
        lambda: read_all(store, key, 0, 1),
    ):
        with pytest.raises(BadConfig):
            await call()
    assert list(tmp_path.iterdir()) == []


async def test_links_inside_the_store_lead_nowhere(store, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    await store.put("a/data", b"mine")
    objects = tmp_path / "objects"
    (objects / "folder").symlink_to(outside)
    (objects / "file").symlink_to(outside / "secret")
    for key in ("folder/secret", "file"):
        with pytest.raises(StoreError):
            await store.stat(key)
        with pytest.raises(StoreError):
            await read_all(store, key, 0, 6)
    for call in (
        lambda: store.put("folder/new", b"x"),
        lambda: store.begin("folder/new", 1, None),
    ):
        with pytest.raises(StoreError):
            await call()
    await store.delete("folder/secret")
    assert await keys(store, "") == ["a/data"]
    await store.put("file", b"replaced")
    assert (outside / "secret").read_bytes() == b"secret"
    assert [path.name for path in outside.iterdir()] == ["secret"]


@pytest.mark.parametrize("volume_id", ["", "../x", "a/b", ".a", "a.b", "x" * 100])
async def test_an_id_that_is_no_plain_name_is_refused(volumes, volume_id):
    with pytest.raises(BadConfig):
        await volumes.create(VolumeRef(volume_id=volume_id, format=ImageFormat.RAW), size_bytes=1)


# --- trouble ----------------------------------------------------------------------------------


@contextmanager
def files_of_at_most(length):
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (length, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


async def test_no_room_is_out_of_space_and_leaves_no_half_object(store, tmp_path):
    with files_of_at_most(MIB):
        with pytest.raises(OutOfSpace):
            await store.put("a/data", bytes(2 * MIB))
        writer = await store.begin("b/data", 2 * MIB, None)
        with pytest.raises(OutOfSpace):
            await writer.write(1, 0, BytesBody(pattern(2 * MIB, "x")))
        await writer.abort()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, OutOfSpace),
        (errno.EDQUOT, OutOfSpace),
        (errno.EACCES, Denied),
        (errno.EROFS, Denied),
        (errno.ESTALE, Unreachable),
        (errno.EIO, Unreachable),
        (errno.ENOENT, ObjectMissing),
        (errno.EPROTO, StoreError),
    ],
)
def test_each_errno_says_what_it_means_to_a_caller(number, kind):
    error = translated(OSError(number, os.strerror(number), "/srv/secret-place"), "k")
    assert type(error) is kind
    assert errno.errorcode[number] in str(error)
    assert "/srv" not in str(error)


async def test_a_probe_tells_a_file_and_a_forbidden_folder_from_a_store(tmp_path):
    (tmp_path / "file").write_text("x")
    async with PLUGIN.open_objects(config(tmp_path / "file")) as store:
        assert (await store.probe()).first_failure.name == "path"
    if os.geteuid():
        pytest.skip("needs root to become somebody else")
    closed = Path(tempfile.mkdtemp(dir="/tmp"))  # the parents of tmp_path are closed themselves
    closed.chmod(0o755)
    os.seteuid(65534)
    try:
        async with PLUGIN.open_objects(config(closed)) as store:
            failure = (await store.probe()).first_failure
    finally:
        os.seteuid(0)
        closed.rmdir()
    assert failure.name == "write"
    assert "permission" in failure.hint


@pytest.mark.parametrize(
    ("raw", "field"),
    [({}, "path"), ({"path": "relative"}, "path"), ({"path": "/x", "hostt": "y"}, "hostt")],
)
def test_a_bad_config_names_its_field(raw, field):
    with pytest.raises(BadConfig, match=field):
        PLUGIN.parse(raw, {})


# --- durability and threads -------------------------------------------------------------------


async def test_a_resumed_file_is_on_disk_before_the_one_it_was_copied_from_goes(
    store, tmp_path, monkeypatch
):
    """Its parts are on record as durable: a power cut between the two would lose them unnoticed."""
    writer = await store.begin("a/data", None, None)
    await writer.write(1, 0, BytesBody(pattern(MIB, "a")))
    await writer.close()
    (old,) = (tmp_path / "objects/a").iterdir()
    order = []
    fsync, unlink = os.fsync, os.unlink
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append(os.fstat(fd).st_ino), fsync(fd)))
    monkeypatch.setattr(os, "unlink", lambda name, **how: (order.append(name), unlink(name, **how)))
    resumed = await store.begin("a/data", None, writer.resume)
    await resumed.write(2, MIB, BytesBody(pattern(MIB, "b")))
    await resumed.close()
    new = (tmp_path / "objects/a" / resumed.resume).stat().st_ino
    folder = (tmp_path / "objects/a").stat().st_ino
    assert old.name in order
    assert {new, folder} <= set(order[: order.index(old.name)])


@pytest.mark.parametrize("fsync", [True, False])
async def test_a_receipt_means_the_part_is_on_disk_unless_fsync_is_off(
    tmp_path, monkeypatch, fsync
):
    flushed = []
    real = os.fdatasync
    monkeypatch.setattr(
        os, "fdatasync", lambda fd: (flushed.append(os.fstat(fd).st_size), real(fd))
    )
    async with PLUGIN.open_objects(config(tmp_path, fsync=fsync)) as store:
        writer = await store.begin("a/data", 5, None)
        await writer.write(1, 0, BytesBody(b"bytes"))
        await writer.abort()
    assert flushed == ([5] if fsync else [])


async def test_resuming_continues_in_a_file_of_its_own(store, tmp_path):
    first = await store.begin("a/data", 10, None)
    receipt = await first.write(1, 0, BytesBody(b"first"))
    second = await store.begin("a/data", 10, first.resume)
    third = await store.begin("a/data", 10, first.resume)  # the old token is good until a write
    assert len({first.resume, second.resume, third.resume}) == 3
    late = await third.write(2, 5, BytesBody(b"third"))
    await first.write(1, 0, BytesBody(b"WRONG"))
    await third.commit([receipt, late], 10)
    await first.write(1, 0, BytesBody(b"WRONG"))
    assert (tmp_path / "objects/a/data").read_bytes() == b"firstthird"
    for writer in (first, second, third):
        await writer.close()


def test_a_handle_is_closed_only_after_its_last_user_and_serves_no_new_one(tmp_path):
    handle = Handle(os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT))
    inside, leave, results = threading.Event(), threading.Event(), []

    def slow(descriptor):
        inside.set()
        assert leave.wait(30)
        results.append(os.pwrite(descriptor, b"late", 0))

    thread = threading.Thread(target=handle.use, args=(slow,))
    thread.start()
    assert inside.wait(30)
    handle.close()
    with pytest.raises(StoreError):
        handle.use(os.fstat)
    leave.set()
    thread.join()
    assert results == [4]


def test_a_commit_waits_for_a_write_that_is_still_in_the_kernel(tmp_path):
    handle = Handle(os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT))
    inside, leave, order = threading.Event(), threading.Event(), []

    def slow(_):
        inside.set()
        assert leave.wait(30)
        order.append("write")

    writing = threading.Thread(target=handle.use, args=(slow,))
    writing.start()
    assert inside.wait(30)
    committing = threading.Thread(target=handle.use_alone, args=(lambda _: order.append("commit"),))
    committing.start()
    leave.set()
    writing.join()
    committing.join()
    assert order == ["write", "commit"]
    handle.close()


async def test_a_closed_store_answers_with_a_port_error(tmp_path):
    async with PLUGIN.open_objects(config(tmp_path)) as store:
        pass
    with pytest.raises(StoreError):
        await store.stat("a/data")


# --- formats and copies -----------------------------------------------------------------------


async def test_the_size_of_a_qcow2_volume_is_read_from_its_header(volumes):
    volume = VolumeRef(volume_id="v1", format=ImageFormat.QCOW2)
    made = await volumes.create(volume, size_bytes=3 << 30)
    assert made.size_bytes == 3 << 30
    assert made.file_bytes == Path(made.path).stat().st_size < MIB
    checked = await asyncio.create_subprocess_exec(
        "qemu-img", "check", "-q", "-f", "qcow2", made.path
    )
    assert await checked.wait() == 0
    Path(made.path).write_bytes(b"no qcow2 at all, but long enough for a header")
    with pytest.raises(StoreError, match="no qcow2 header"):
        await volumes.stat(volume)


async def test_without_qemu_img_a_blank_qcow2_says_what_to_install(volumes, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    volume = VolumeRef(volume_id="v1", format=ImageFormat.QCOW2)
    with pytest.raises(BadConfig) as caught:
        await volumes.create(volume, size_bytes=MIB)
    assert "qemu-utils" in caught.value.hint
    assert list((tmp_path / "volumes").iterdir()) == []


async def test_a_snapshot_file_is_read_only(volumes):
    volume = VolumeRef(volume_id="v1", format=ImageFormat.RAW)
    await volumes.create(volume, size_bytes=MIB)
    pinned = await volumes.snapshot(volume, "s1")
    assert modes.S_IMODE(Path(pinned.path).stat().st_mode) == 0o444


@pytest.mark.parametrize("in_kernel", [True, False])
def test_a_copy_keeps_the_holes(tmp_path, monkeypatch, in_kernel):
    if not in_kernel:

        def refuse(*_):
            raise OSError(errno.EXDEV, "no")

        monkeypatch.setattr(os, "copy_file_range", refuse)
    content = pattern(MIB + 5, "a") + bytes(20 * MIB) + pattern(MIB, "b") + bytes(7)
    source = os.open(tmp_path / "s", os.O_RDWR | os.O_CREAT)
    target = os.open(tmp_path / "t", os.O_RDWR | os.O_CREAT)
    os.ftruncate(source, len(content))
    os.pwrite(source, content[: MIB + 5], 0)
    os.pwrite(source, content[-MIB - 7 : -7], len(content) - MIB - 7)
    copy_sparse(source, target)
    assert (tmp_path / "t").read_bytes() == content
    assert os.fstat(target).st_blocks * 512 < 4 * MIB
    assert len(list(data_extents(target, len(content)))) == 2
    os.close(source)
    os.close(target)


def test_widened_extents_merge_when_they_touch():
    assert widened(iter([(10, 10), (60, 10), (300, 5)]), 64, 303) == [(0, 128), (256, 47)]
    assert widened(iter([]), 64, 100) == []
    assert widened(iter([(0, 64), (64, 1), (129, 1)]), 64, 1000) == [(0, 192)]


def test_the_quality_report_is_complete():
    assert complaints(Path(__file__).parents[1] / "quality.toml") == []
