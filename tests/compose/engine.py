"""A Docker engine for the tests: the one that runs, or one that root can start here."""

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_S = 60
CLIENTS = ("docker", "/usr/bin/docker")


class NoEngine(Exception):
    """The text says why none could be had."""


@contextmanager
def engine(folder: Path) -> Iterator[list[str]]:
    """The docker command to use. A daemon that we start keeps its images under ENTREPOT_CACHE, so
    base images are made once; it is ended with us.
    """
    command = shlex.split(os.environ.get("ENTREPOT_DOCKER", "docker"))
    if _answers(command):
        yield command
        return
    daemon = shutil.which("dockerd") or shutil.which("dockerd", path="/usr/sbin:/sbin")
    if daemon is None:
        raise NoEngine("no Docker engine answers, and there is no dockerd to start")
    if os.geteuid() != 0:
        raise NoEngine("no Docker engine answers, and only root can start dockerd")
    with _daemon(daemon, folder) as command:
        yield command


@contextmanager
def _daemon(program: str, folder: Path) -> Iterator[list[str]]:
    socket = f"unix://{folder}/docker.sock"
    argv = [
        program,
        "--host",
        socket,
        "--data-root",
        str(_cache() / "docker"),
        "--exec-root",
        str(folder / "exec"),
        "--pidfile",
        str(folder / "docker.pid"),
    ]
    with (folder / "dockerd.log").open("wb") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            yield _when_ready(process, socket, folder / "dockerd.log")
        finally:
            process.terminate()
            process.wait(timeout=60)


def _when_ready(process: subprocess.Popen[bytes], socket: str, log: Path) -> list[str]:
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        # A client without the right API version answers too late; try each one there is.
        for client in CLIENTS:
            if shutil.which(client) and _answers([client, "--host", socket]):
                return [client, "--host", socket]
        time.sleep(0.2)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
    raise NoEngine(f"dockerd did not come up:\n{tail}")


def _answers(command: list[str]) -> bool:
    if shutil.which(command[0]) is None:
        return False
    done = subprocess.run([*command, "info"], capture_output=True, check=False)
    return done.returncode == 0


def _cache() -> Path:
    root = os.environ.get("ENTREPOT_CACHE") or str(Path.home() / ".cache" / "entrepot")
    folder = Path(root)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
