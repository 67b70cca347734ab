"""`python -m demo`: runs the main job; exits non-zero if anything is not as it must be."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from demo import inventory, mover_death, servers, templates, volumes
from demo.cli import Cli, CliRefused
from demo.image import build
from demo.memory import MIB, MemoryWatch, Peak
from demo.scene import ZONES, Mismatch, Places, Scene
from demo.show import Show, short
from entrepot_testkit.api import ApiProblem
from entrepot_testkit.embedded import EmbeddedStack, StackFailed, embedded_stack

MEMORY_BYTES_MAX = 1 << 30
DISK_BYTES_MIN = 7 << 30
API_PATIENCE_S = 30


def main() -> int:
    options = _options()
    show = Show()
    started = time.monotonic()
    try:
        with _folder(keep=options.keep) as folder:
            peak = _run(show, folder, file_bytes=options.mib * MIB)
    except (Mismatch, CliRefused, ApiProblem, StackFailed, TimeoutError, OSError,
            subprocess.CalledProcessError) as failure:  # fmt: skip
        show.say("")
        print(f"demo FAILED: {type(failure).__name__}: {failure}", file=sys.stderr, flush=True)
        return 1
    show.table()
    print(
        f"total {time.monotonic() - started:.0f} s; peak memory outside PostgreSQL "
        f"{peak.total_bytes / MIB:.0f} MiB (at most {MEMORY_BYTES_MAX // MIB}):"
    )
    for name, size in sorted(peak.by_name.items(), key=lambda item: -item[1]):
        print(f"   {name:26} {size / MIB:6.0f} MiB")
    if peak.total_bytes > MEMORY_BYTES_MAX:
        print("demo FAILED: more than 1 GiB of memory", file=sys.stderr)
        return 1
    print("\nevery hash agrees; nothing is left running")
    return 0


def _run(show: Show, folder: Path, *, file_bytes: int) -> Peak:
    places = Places(
        images=_made(folder / "images"),
        pools={zone: _made(folder / f"pool-{zone}") for zone in ZONES},
        work=_made(folder / "work"),
    )
    show.head("a real image: ext4 with files of this machine")
    with show.step("image built (mke2fs -d, qemu-img convert)") as row:
        image = build(_made(folder / "downloads"), file_bytes=file_bytes)
        row.bytes, row.verified = image.qcow2_bytes, short("sha256", image.qcow2_sha256)
    show.say(f"{image.files:,} files, {image.file_bytes / MIB:.0f} MiB, in 1 GiB of ext4")
    stack = EmbeddedStack(folder / "data")
    outside: list[int] = []
    with ExitStack() as running:
        watch = running.enter_context(MemoryWatch(lambda: [*outside, *_supervisor(stack)]))
        show.head("servers: five services, a second mover, NATS, PostgreSQL, S3, downloads")
        with show.step("OpenStack Swift up (S3)"):
            swift = running.enter_context(servers.swift(folder / "swift"))
            outside += swift.pids.values()
        downloads = running.enter_context(servers.download_server(folder / "downloads"))
        with show.step("entrepot up"):
            running.enter_context(
                embedded_stack(folder / "data", movers=2, env={"ENTREPOT_MOVER_SLOTS": "2"})
            )
        show.say(f"API {stack.url}/v1")
        scene = Scene(
            stack=stack,
            api=stack.admin(patience_s=API_PATIENCE_S),
            cli=Cli(stack),
            swift=swift,
            downloads=downloads,
            image=image,
            places=places,
            show=show,
        )
        _main_job(scene)
    return watch.peak


def _main_job(scene: Scene) -> None:
    inventory.make(scene)
    scene.show.head("templates: ready only when the stored bytes were verified")
    template_id = templates.for_the_region(scene)
    templates.for_a_zone(scene)
    templates.with_a_wrong_checksum(scene)
    scene.show.head("a volume's life: create, write, snapshot, delete, restore in the other zone")
    volumes.life(scene, template_id)
    scene.show.head("extract")
    templates.extracted(scene, template_id)
    scene.show.head("a mover dies in the middle of 1 GiB")
    mover_death.survived(scene)


def _supervisor(stack: EmbeddedStack) -> list[int]:
    with suppress(OSError, ValueError):
        return [stack.endpoints["supervisor"]]
    return []


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@contextmanager
def _folder(*, keep: bool) -> Iterator[Path]:
    """A folder that PostgreSQL's user can pass through; removed at the end."""
    place = os.environ.get("TMPDIR", "/var/tmp")  # noqa: S108 - mkdtemp makes it ours; /tmp may be RAM
    folder = Path(tempfile.mkdtemp(prefix="entrepot-demo-", dir=place))
    folder.chmod(0o711)
    try:
        if shutil.disk_usage(folder).free < DISK_BYTES_MIN:
            raise OSError(f"{folder.parent} has less than 7 GiB free; set TMPDIR to another place")
        yield folder
    finally:
        if keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--mib", type=int, default=300, help="MiB of files in the image")
    parser.add_argument("--keep", action="store_true", help="leave the folder for a look")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
