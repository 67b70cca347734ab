"""How the bytes of a part reach the file: in small writes, however they come and go."""

import os

import pytest

from entrepot_contracts.values import ImageFormat
from entrepot_file import PLUGIN
from entrepot_file.parts import WRITE_BYTES
from entrepot_plugin.ports import VolumeRef

SIZES = (1, 5_000, WRITE_BYTES, 3 * WRITE_BYTES + 7, 1 << 20, (1 << 20) - 3, 4 << 20, 11)


class Pieces:
    """Bytes in chunks of many sizes, the last after a hole."""

    def __init__(self):
        self.chunks = [os.urandom(size) for size in SIZES]
        self.hole = 64 << 10

    def __len__(self):
        return sum(SIZES) + self.hole

    async def pieces(self):
        offset = 0
        for number, chunk in enumerate(self.chunks):
            if number == len(self.chunks) - 1:
                offset += self.hole
            yield offset, memoryview(chunk)
            offset += len(chunk)

    def whole(self):
        return b"".join([*self.chunks[:-1], bytes(self.hole), self.chunks[-1]])


@pytest.mark.parametrize("share", [1, 3])
async def test_no_write_is_larger_than_the_kernel_can_take_cheaply(tmp_path, monkeypatch, share):
    """Also when the kernel takes only a share of each."""
    (tmp_path / "volumes").mkdir()
    seen = []
    real = os.pwritev

    def pwritev(descriptor, views, offset):
        size = sum(len(view) for view in views)
        seen.append(size)
        taken = b"".join(views)[: max(size // share, 1)]
        return real(descriptor, [taken], offset)

    body = Pieces()
    async with PLUGIN.open_volumes(PLUGIN.parse({"path": str(tmp_path)}, {})) as store:
        volume = VolumeRef(volume_id="v", format=ImageFormat.RAW)
        writer = await store.begin(volume, size_bytes=len(body), token="t.1", resume=None)
        monkeypatch.setattr(os, "pwritev", pwritev)
        receipt = await writer.write(1, 0, body)
        await writer.commit([receipt], len(body))
        await writer.close()
    assert (tmp_path / "volumes" / "v.raw").read_bytes() == body.whole()
    assert max(seen) == WRITE_BYTES
