"""Copies through a real mover: every pair of ends, with equal digests and nothing left behind."""

import hashlib
import os
import urllib.parse

import msgspec
import pytest
import structlog
from aiohttp import web
from mover_rig import IDS, LEAF, MIB, ImageServer, noise, qcow2_image, sha256, url_end

from entrepot_contracts import motion
from entrepot_contracts.errors import Code
from entrepot_contracts.values import Checksum, ChecksumAlgorithm, ImageFormat, Layout
from motion_engine.mover.digest import LEAF_BYTES, LeafTable, leaf_count, leaf_digest
from motion_engine.mover.extents import ExtentMap


def digest_of(data):
    table = LeafTable(ExtentMap.full(len(data)))
    for index in range(leaf_count(len(data))):
        table[index] = leaf_digest(data[index * LEAF_BYTES : (index + 1) * LEAF_BYTES])
    return table.root()


def to_image(rig, prefix="t/a/template/1/"):
    return motion.ObjectEnd(store=rig.image, prefix=prefix)


def from_image(rig, stored):
    return motion.ObjectEnd(store=rig.image, prefix="", stored=stored)


def volume(rig, volume_id, kind=ImageFormat.RAW, snapshot_id=None):
    return motion.VolumeEnd(
        store=rig.pool, volume_id=volume_id, format=kind, snapshot_id=snapshot_id
    )


async def test_a_url_becomes_a_verified_object_with_its_manifest(rig):
    data = noise(37 * MIB + 512)
    async with ImageServer().serving() as server:
        server.files["disk.raw"] = data
        source = url_end(server.url("disk.raw"), checksum=sha256(data))
        result = await rig.run(motion.CopyWork(source=source, target=to_image(rig)))
    assert isinstance(result, motion.Copied), result
    stored = result.stored
    assert result.digest == stored.digest == digest_of(data)
    assert (result.bytes_read, result.bytes_sent) == (len(data), len(data))
    assert stored.layout is Layout.PLAIN
    assert (rig.image_path / "objects" / stored.key).read_bytes() == data
    assert rig.objects() == sorted(
        name.removeprefix("") for name in (stored.key, stored.key + ".manifest")
    )


@pytest.mark.parametrize("signed", [True, False])
async def test_a_query_from_the_credentials_is_used_and_told_to_nobody(rig, signed):
    data, signature, secret_id = noise(MIB), "canary-3e81+/=", IDS.new()
    query = "a=1&sig=" + urllib.parse.quote(signature if signed else signature + "x", safe="")

    async def guarded(request):
        if request.query.get("sig") != signature or request.query.get("a") != "1":
            raise web.HTTPForbidden
        return web.Response(body=data)

    rig.ledger.credentials[secret_id] = {"query": query}
    with structlog.testing.capture_logs() as lines:
        async with ImageServer().serving() as server:
            server.handlers["disk.raw"] = guarded
            source = msgspec.structs.replace(url_end(server.url("disk.raw")), secret_id=secret_id)
            result = await rig.run(motion.CopyWork(source=source, target=to_image(rig)))
    if signed:
        assert (rig.image_path / "objects" / result.stored.key).read_bytes() == data
    else:
        assert (result.code, result.facts) == (Code.SOURCE_STATUS, {"status": "403"})
    assert lines
    assert "canary" not in str(lines)
    assert b"canary" not in msgspec.json.encode(rig.ledger.said)
    kept = [path.read_bytes() for path in rig.image_path.rglob("*") if path.is_file()]
    assert not any(b"canary" in one for one in kept)


async def test_without_its_query_a_signed_source_is_not_asked_at_all(rig):
    async with ImageServer().serving() as server:
        source = msgspec.structs.replace(url_end(server.url("disk.raw")), secret_id=IDS.new())
        work = motion.CopyWork(source=source, target=to_image(rig))
        problem = await rig.run(work, attempts_max=1)
    assert (problem.code, problem.field) == (Code.UNAVAILABLE, "url")
    assert server.requests == []


async def test_a_server_that_does_not_tell_the_length_is_read_to_its_end(rig):
    data = noise(20 * MIB)

    async def chunked(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for at in range(0, len(data), MIB):
            await response.write(data[at : at + MIB])
        return response

    async with ImageServer().serving() as server:
        server.handlers["disk.raw"] = chunked
        source = url_end(server.url("disk.raw"))
        result = await rig.run(motion.CopyWork(source=source, target=to_image(rig)))
    assert result.digest == digest_of(data)


@pytest.mark.parametrize("algorithm", list(ChecksumAlgorithm))
async def test_a_wrong_checksum_names_both_values_and_leaves_nothing(rig, algorithm):
    data = noise(18 * MIB)
    actual = hashlib.new(algorithm.value, data).hexdigest()
    wrong = Checksum(algorithm=algorithm, value=actual[::-1])
    async with ImageServer().serving() as server:
        server.files["disk.raw"] = data
        source = url_end(server.url("disk.raw"), checksum=wrong)
        problem = await rig.run(motion.CopyWork(source=source, target=to_image(rig)))
    assert problem.code is Code.CHECKSUM_MISMATCH
    assert problem.field == "checksum"
    assert problem.facts["expected"] == wrong.value
    assert problem.facts["actual"] == actual
    assert not problem.retryable
    assert rig.objects() == []


async def test_object_to_volume_to_sparse_object_to_volume_keeps_the_digest(rig):
    data = bytearray(64 * MIB)
    data[0:MIB] = noise(MIB)
    data[21 * MIB : 22 * MIB + 4096] = noise(MIB + 4096, seed=2)
    data[-4096:] = noise(4096, seed=3)
    data = bytes(data)
    async with ImageServer().serving() as server:
        server.files["disk.raw"] = data
        first = await rig.run(
            motion.CopyWork(source=url_end(server.url("disk.raw")), target=to_image(rig))
        )
    volume_id = IDS.new()
    second = await rig.run(
        motion.CopyWork(source=from_image(rig, first.stored), target=volume(rig, volume_id))
    )
    path = rig.volume_file(volume_id)
    assert path.read_bytes() == data
    assert path.stat().st_blocks * 512 < 8 * MIB, "zeros were written instead of left out"
    third = await rig.run(
        motion.CopyWork(source=volume(rig, volume_id), target=to_image(rig, "t/a/snapshot/1/"))
    )
    assert third.stored.layout is Layout.EXTENTS
    assert third.stored.stored_bytes < 8 * MIB
    assert third.bytes_sent == third.stored.stored_bytes == third.bytes_read
    restored = IDS.new()
    fourth = await rig.run(
        motion.CopyWork(source=from_image(rig, third.stored), target=volume(rig, restored))
    )
    assert rig.volume_file(restored).read_bytes() == data
    assert first.digest == second.digest == third.digest == fourth.digest == digest_of(data)
    fifth = await rig.run(
        motion.CopyWork(
            source=from_image(rig, third.stored), target=to_image(rig, "t/a/snapshot/2/")
        )
    )
    assert fifth.digest == first.digest
    assert fifth.stored.stored_bytes == third.stored.stored_bytes


async def test_a_volume_of_nothing_but_holes_becomes_an_object_without_bytes(rig):
    volume_id = IDS.new()
    rig.put_volume(volume_id, lambda path: path.touch() or os.truncate(path, 40 * MIB + 512))
    backed = await rig.run(
        motion.CopyWork(source=volume(rig, volume_id), target=to_image(rig, "s/"))
    )
    assert backed.stored.stored_bytes == 0
    assert backed.digest == digest_of(bytes(40 * MIB + 512))
    restored = IDS.new()
    again = await rig.run(
        motion.CopyWork(source=from_image(rig, backed.stored), target=volume(rig, restored))
    )
    assert again.digest == backed.digest
    assert rig.volume_file(restored).stat().st_size == 40 * MIB + 512


async def test_a_qcow2_volume_keeps_its_container_and_tells_its_virtual_size(rig):
    volume_id = IDS.new()
    image = qcow2_image(size=9 * MIB, virtual=3 << 30)
    rig.put_volume(volume_id, lambda path: path.write_bytes(image), kind="qcow2")
    backed = await rig.run(
        motion.CopyWork(
            source=volume(rig, volume_id, ImageFormat.QCOW2), target=to_image(rig, "s/")
        )
    )
    assert backed.virtual_size_bytes == 3 << 30
    assert backed.digest == digest_of(image)
    restored = IDS.new()
    await rig.run(
        motion.CopyWork(
            source=from_image(rig, backed.stored),
            target=volume(rig, restored, ImageFormat.QCOW2),
        )
    )
    assert rig.volume_file(restored, "qcow2").read_bytes() == image


async def test_an_image_of_one_format_is_refused_as_a_volume_of_another(rig):
    data = noise(MIB)
    async with ImageServer().serving() as server:
        server.files["disk.raw"] = data
        made = await rig.run(
            motion.CopyWork(source=url_end(server.url("disk.raw")), target=to_image(rig))
        )
    volume_id = IDS.new()
    problem = await rig.run(
        motion.CopyWork(
            source=from_image(rig, made.stored), target=volume(rig, volume_id, ImageFormat.QCOW2)
        )
    )
    assert problem.code is Code.FORMAT_MISMATCH
    assert not rig.volume_file(volume_id, "qcow2").exists()


async def test_a_flipped_byte_in_the_source_object_stops_the_copy_with_its_range(rig):
    data = noise(21 * MIB)
    async with ImageServer().serving() as server:
        server.files["disk.raw"] = data
        made = await rig.run(
            motion.CopyWork(source=url_end(server.url("disk.raw")), target=to_image(rig))
        )
    path = rig.image_path / "objects" / made.stored.key
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(9 * MIB)
        byte = file.read(1)
        file.seek(9 * MIB)
        file.write(bytes([byte[0] ^ 1]))
    volume_id = IDS.new()
    problem = await rig.run(
        motion.CopyWork(source=from_image(rig, made.stored), target=volume(rig, volume_id))
    )
    assert problem.code is Code.DIGEST_MISMATCH
    assert problem.facts["range"] == f"{2 * LEAF}-{3 * LEAF}"
    assert not rig.volume_file(volume_id).exists()
    assert list((rig.pool_path / "volumes").iterdir()) == []


async def test_a_manifest_that_was_tampered_with_is_refused(rig):
    data = noise(9 * MIB)
    async with ImageServer().serving() as server:
        server.files["disk.raw"] = data
        made = await rig.run(
            motion.CopyWork(source=url_end(server.url("disk.raw")), target=to_image(rig))
        )
    path = rig.image_path / "objects" / (made.stored.key + ".manifest")
    fields = msgspec.json.decode(path.read_bytes())
    fields["leaves"] = "A" + fields["leaves"][1:]
    path.chmod(0o600)
    path.write_bytes(msgspec.json.encode(fields))
    problem = await rig.run(
        motion.CopyWork(source=from_image(rig, made.stored), target=volume(rig, IDS.new()))
    )
    assert problem.code is Code.DIGEST_MISMATCH
    assert "manifest" in problem.message
