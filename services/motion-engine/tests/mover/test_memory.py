"""The memory formula of pipeline.py, held against a real process at 4 GiB."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mover_rig import MIB

SIZE = 4 << 30
BASE_MIB = 75  # interpreter, aiohttp, msgspec, blake3, plugins: 62 seen
SCRIPT = """
import asyncio, importlib.util, json, os, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("mover_rig", sys.argv[1])
module = sys.modules["mover_rig"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
from motion_engine.mover import malloc
from entrepot_contracts import motion
from entrepot_contracts.values import ImageFormat
malloc.tune()
rig = module.Rig(Path(sys.argv[2]))
rig.parts_in_flight = 4

def peak():
    # not ru_maxrss: that one remembers the process we were forked from
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))

async def sparse():
    volume_id = module.IDS.new()
    def write(path):
        with path.open("wb") as file:
            file.truncate(4 << 30)
            for at in range(0, 4 << 30, 1 << 30):
                file.seek(at)
                for _ in range(64):  # whole parts of whole leaves
                    file.write(os.urandom(1 << 20))
    rig.put_volume(volume_id, write)
    return await rig.run(motion.CopyWork(
        source=motion.VolumeEnd(store=rig.pool, volume_id=volume_id, format=ImageFormat.RAW),
        target=motion.ObjectEnd(store=rig.image, prefix="t/")))

async def back():
    stored = (await sparse()).stored
    return await rig.run(motion.CopyWork(
        source=motion.ObjectEnd(store=rig.image, prefix="", stored=stored),
        target=motion.VolumeEnd(
            store=rig.pool, volume_id=module.IDS.new(), format=ImageFormat.RAW)))

async def url():
    from aiohttp import web
    async def body(request):
        response = web.StreamResponse(headers={"Content-Length": str(1 << 30)})
        await response.prepare(request)
        block = os.urandom(1 << 20)
        for number in range(1 << 10):
            await response.write(block)
        return response
    server = module.ImageServer()
    server.handlers["a"] = body
    async with server.serving():
        return await rig.run(motion.CopyWork(
            source=module.url_end(server.url("a")),
            target=motion.ObjectEnd(store=rig.image, prefix="t/")))

before = peak()
result = asyncio.run({"sparse": sparse, "back": back, "url": url}[sys.argv[3]]())
assert isinstance(result, motion.Copied), result
print(json.dumps({"before": before, "peak": peak(), "sent": result.bytes_sent,
                  "size": result.digest.size_bytes}))
"""


def measure(tmp_path, kind):
    rig = Path(__file__).parent / "rig.py"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, rig, str(tmp_path), kind],
        check=False,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("kind", "bound_mib"),
    [
        # parts_in_flight x (2 leaves + slice + socket)
        ("sparse", 4 * (2 * 4 + 1 + 0.5)),
        ("back", 4 * (2 * 4 + 1 + 0.5)),
        # (parts_in_flight + 1) x part + leaf + socket, and the server in the same process
        ("url", 5 * 16 + 4 + 0.5 + 8),
    ],
)
def test_memory_stays_within_the_formula(tmp_path, kind, bound_mib):
    seen = measure(tmp_path, kind)
    assert seen["peak"] <= BASE_MIB + bound_mib, seen
    if kind != "url":
        assert seen["size"] == SIZE
        assert seen["sent"] == 4 * 64 * MIB, "holes were read or sent"
