"""compose.yaml on an engine: base images, ours, up, kill one container, down."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON_BASE = "entrepot/python:3.11-stand-in"
NATS_IMAGE, PG_IMAGE, PG_ROOT = "entrepot/nats", "entrepot/postgres", "entrepot/postgres-root"
SLIM = [f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("man", "doc", "locale")]
UP_S = 240
STAND_INS = {
    PYTHON_BASE: "python3,python3-venv,ca-certificates,qemu-utils",
    PG_ROOT: "postgresql-15,ca-certificates",
}


class Project:
    """One run of compose.yaml under a name of its own."""

    def __init__(self, docker: list[str], folder: Path) -> None:
        self.docker, self.folder = docker, folder
        self.name = f"entrepot{os.getpid()}"
        self._compose = _compose_command()
        self.stores = folder / "stores"

    # --- images ---

    def prepare(self) -> None:
        """Base images where no image registry is reachable, then ours, then the secrets."""
        for image, packages in STAND_INS.items():
            if not self._has(image):
                self._bootstrap(image, packages)
        self._python("deploy/images.py", "--base", PYTHON_BASE, "--docker", " ".join(self.docker))
        for image, file, base in (
            (NATS_IMAGE, "Dockerfile.nats", PYTHON_BASE),
            (PG_IMAGE, "Dockerfile.postgres", PG_ROOT),
        ):
            self._run(
                *self.docker,
                "build",
                "--quiet",
                "--network",
                "none",
                "--tag",
                image,
                "--build-arg",
                f"BASE={base}",
                "--file",
                f"tests/compose/stand_in/{file}",
                ".",
            )
        self._python("deploy/make_secrets.py", str(self.folder / "secrets"))
        self.stores.mkdir()
        self.stores.chmod(0o777)

    def _has(self, image: str) -> bool:
        inspect = [*self.docker, "image", "inspect", image]
        return subprocess.run(inspect, capture_output=True, check=False).returncode == 0

    def _bootstrap(self, image: str, packages: str) -> None:
        tree = self.folder / "root.tar"
        self._run(
            "mmdebstrap",
            "--quiet",
            "--mode=root",
            "--variant=minbase",
            f"--include={packages}",
            *SLIM,
            "bookworm",
            str(tree),
        )
        self._run(*self.docker, "import", str(tree), image)
        tree.unlink()

    # --- life ---

    def up(self) -> None:
        self.compose("up", "--detach")
        self.healthy(*self._services())

    def down(self) -> None:
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "3")

    def kill(self, service: str) -> None:
        """SIGKILL its first process, then start the container again as an operator would."""
        self._run(*self.docker, "kill", "--signal", "KILL", self.container(service))
        self.compose("up", "--detach", "--no-deps", service)

    def crash(self, service: str) -> int:
        """SIGKILL from outside Docker: only the restart policy can bring it back. Its old pid."""
        pid = self._state(service)["Pid"]
        os.kill(pid, 9)
        return int(pid)

    def healthy(self, *services: str) -> None:
        deadline = time.monotonic() + UP_S
        while unfit := [name for name in services if not self._fit(name)]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"not healthy: {unfit}\n{self.logs(*unfit)}")
            time.sleep(0.3)

    def logs(self, *services: str) -> str:
        return self.compose("logs", "--tail=15", "--no-color", *services)

    def read(self, service: str, path: str) -> str:
        return self._run(*self.docker, "exec", self.container(service), "cat", path)

    def container(self, service: str) -> str:
        return self.compose("ps", "--quiet", service).strip()

    def pid(self, service: str) -> int:
        return int(self._state(service)["Pid"])

    def compose_gateway(self) -> str:
        """Address of this host on the network of the containers."""
        networks = json.loads(self._run(*self.docker, "inspect", self.container("mover")))[0]
        return next(iter(networks["NetworkSettings"]["Networks"].values()))["Gateway"]

    def compose(self, *words: str) -> str:
        return self._run(
            *self._compose,
            "--project-name",
            self.name,
            "--env-file",
            str(self.folder / "secrets" / "compose.env"),
            *words,
        )

    def _services(self) -> list[str]:
        return [name for name in self.compose("config", "--services").split() if name != "streams"]

    def _fit(self, service: str) -> bool:
        state = self._state(service)
        return bool(state) and state["Running"] and state["Health"]["Status"] == "healthy"

    def _state(self, service: str):
        container = self.container(service)
        if not container:
            return {}
        return json.loads(self._run(*self.docker, "inspect", container))[0]["State"]

    # --- processes ---

    def _python(self, *words: str) -> None:
        self._run(sys.executable, *words)

    def _run(self, *argv: str) -> str:
        done = subprocess.run(
            argv,
            cwd=ROOT,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(argv)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def _environment(self) -> dict[str, str]:
        host = self.docker[-1] if "--host" in self.docker else os.environ.get("DOCKER_HOST", "")
        tools = f"{ROOT / '.venv-tools' / 'bin'}:{os.environ['PATH']}:/usr/sbin:/sbin"
        own = {
            "PATH": tools,
            "NATS_IMAGE": NATS_IMAGE,
            "PG_IMAGE": PG_IMAGE,
            # The stand-in has python instead of wget.
            "NATS_HEALTH": 'python3 -c "import urllib.request as r; '
            "r.urlopen('http://127.0.0.1:8222/healthz', timeout=2)\"",
            "ENTREPOT_SECRETS": str(self.folder / "secrets"),
            "ENTREPOT_STORES": str(self.stores),
            "ENTREPOT_PORT": os.environ.get("ENTREPOT_COMPOSE_PORT", "18080"),
            "ENTREPOT_SOURCE_ALLOW_CIDRS": "172.16.0.0/12",
            "COMPOSE_DOCKER_CLI_BUILD": "0",
            "DOCKER_BUILDKIT": "0",
        }
        return os.environ | own | ({"DOCKER_HOST": host} if host else {})


def _compose_command() -> list[str]:
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if plugin.returncode == 0:
        return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    raise RuntimeError("neither `docker compose` nor docker-compose is installed")
