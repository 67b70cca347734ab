"""The manifest beside each stored object: what its bytes mean (docs/format/stored-object.md)."""

import msgspec
from msgspec import Struct

from entrepot_contracts.errors import Code, Refused
from entrepot_contracts.values import Checksum, ImageFormat, Layout, StoredObject
from entrepot_plugin.ports import ObjectStore
from motion_engine.mover.digest import LeafTable
from motion_engine.mover.extents import BadExtents, ExtentMap

VERSION = 1
SUFFIX = ".manifest"
MANIFEST_BYTES_MAX = 64 << 20


class Manifest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    version: int
    format: ImageFormat
    size_bytes: int  # logical
    virtual_size_bytes: int
    layout: Layout
    stored_bytes: int
    root: str
    leaves: bytes  # base64 on the wire: 32-byte digests of the leaves that hold data, in order
    extents: tuple[tuple[int, int], ...] = ()  # only with layout extents
    checksum: Checksum | None = None

    def extent_map(self) -> ExtentMap:
        if self.layout is Layout.PLAIN:
            return ExtentMap.full(self.size_bytes)
        return ExtentMap(self.size_bytes, self.extents)

    def leaf_table(self) -> LeafTable:
        return LeafTable.of_joined(self.extent_map(), self.leaves)


def manifest_of(stored: StoredObject, extents: ExtentMap, leaves: bytes) -> Manifest:
    return Manifest(
        version=VERSION,
        format=stored.format,
        size_bytes=stored.digest.size_bytes,
        virtual_size_bytes=stored.virtual_size_bytes,
        layout=stored.layout,
        stored_bytes=stored.stored_bytes,
        root=stored.digest.root,
        leaves=leaves,
        extents=extents.extents if stored.layout is Layout.EXTENTS else (),
        checksum=stored.checksum,
    )


def encode(manifest: Manifest) -> bytes:
    return msgspec.json.encode(manifest)


def decode(data: bytes, key: str) -> Manifest:
    """Raises Refused(digest_mismatch) for anything that is not a consistent manifest."""
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
        if manifest.version != VERSION:
            raise _broken(key, f"version {manifest.version} is not known here")
        extents = manifest.extent_map()
        if extents.stored_bytes != manifest.stored_bytes:
            raise _broken(key, "its extents do not add up to the stored length")
        if manifest.leaf_table().root().root != manifest.root:
            raise _broken(key, "its leaves do not add up to its root")
    except (msgspec.MsgspecError, BadExtents, ValueError) as err:
        raise _broken(key, str(err)) from err
    return manifest


async def load(store: ObjectStore, stored: StoredObject) -> Manifest:
    """The manifest of an object the catalogue names; its root must be the catalogue's."""
    key = stored.key + SUFFIX
    stat = await store.stat(key)
    if stat.size_bytes > MANIFEST_BYTES_MAX:
        raise _broken(key, "it is larger than a manifest may be")
    chunks = [bytes(chunk) async for chunk in store.read(key, 0, stat.size_bytes)]
    manifest = decode(b"".join(chunks), key)
    same = (
        manifest.root == stored.digest.root
        and manifest.size_bytes == stored.digest.size_bytes
        and manifest.layout == stored.layout
    )
    if not same:
        raise _broken(key, "it is not the manifest of the object in the catalogue")
    return manifest


def _broken(key: str, why: str) -> Refused:
    return Refused(
        Code.DIGEST_MISMATCH,
        f"the manifest of a stored object is wrong: {why}",
        hint="the copy is damaged: delete it and make it again from another copy",
        facts={"key": key},
    )
