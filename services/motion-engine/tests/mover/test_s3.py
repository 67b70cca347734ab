"""One image through a real Swift's s3api: fetch, store, restore, link, delete."""

import urllib.request

import msgspec
from mover_rig import IDS, MIB, ImageServer, noise, sha256, url_end

from entrepot_chassis.seal import KeyPair
from entrepot_contracts import motion
from entrepot_contracts.errors import Code
from entrepot_contracts.values import ImageFormat, StoreRole, StoreSpec
from entrepot_plugin.discovery import load_stores


def s3_store(rig, swift):
    rig.plugins |= load_stores(["s3"])
    store = StoreSpec(
        store_id=IDS.new(),
        role=StoreRole.IMAGE,
        provider="s3",
        config={"endpoint": swift.endpoint, "bucket": "mover", "create_bucket": True},
    )
    rig.ledger.credentials[store.store_id] = {
        "access_key": swift.access_key,
        "secret_key": swift.secret_key,
    }
    return store


async def test_an_image_goes_through_real_s3_and_back(rig, swift):
    store = s3_store(rig, swift)
    data = noise(MIB) * 50 + noise(512)
    prefix = f"t/{IDS.new()}/"
    target = motion.ObjectEnd(store=store, prefix=prefix)
    async with ImageServer().serving() as server:
        server.files["disk.raw"] = data
        source = url_end(server.url("disk.raw"), checksum=sha256(data))
        made = await rig.run(motion.CopyWork(source=source, target=target))
        assert isinstance(made, motion.Copied), made
        wrong = url_end(server.url("disk.raw"), checksum=sha256(b"else"))
        problem = await rig.run(
            motion.CopyWork(
                source=wrong, target=motion.ObjectEnd(store=store, prefix=prefix + "bad/")
            )
        )
        assert problem.code is Code.CHECKSUM_MISMATCH
    volume_id = IDS.new()
    back = await rig.run(
        motion.CopyWork(
            source=motion.ObjectEnd(store=store, prefix="", stored=made.stored),
            target=motion.VolumeEnd(store=rig.pool, volume_id=volume_id, format=ImageFormat.RAW),
        )
    )
    assert back.digest == made.digest
    assert rig.volume_file(volume_id).read_bytes() == data

    keys = KeyPair.new()
    linked = await rig.run(
        motion.LinkWork(
            store=store,
            stored=made.stored,
            file_name="disk.raw",
            expires_s=60,
            seal_to=keys.public_key,
        )
    )
    url = keys.open(linked.link.box).decode()
    with urllib.request.urlopen(url) as answer:  # noqa: ASYNC210 - a stranger, as curl
        assert answer.read() == data

    gone = await rig.run(motion.DeleteObjectsWork(store=store, prefixes=(prefix,)))
    assert gone.count == 2, "object and manifest; the failed one had left nothing"


async def test_wrong_credentials_are_told_and_never_shown(rig, swift):
    store = s3_store(rig, swift)
    rig.ledger.credentials[store.store_id]["secret_key"] = "not-the-secret"
    volume_id = IDS.new()
    rig.put_volume(volume_id, lambda path: path.write_bytes(noise(MIB)))
    work = motion.CopyWork(
        source=motion.VolumeEnd(store=rig.pool, volume_id=volume_id, format=ImageFormat.RAW),
        target=motion.ObjectEnd(store=store, prefix="t/x/"),
    )
    problem = await rig.run(work)
    assert problem.code is Code.STORE_DENIED
    assert not problem.retryable
    assert "not-the-secret" not in msgspec.json.encode(problem).decode()
