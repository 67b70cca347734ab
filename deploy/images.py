"""Builds the images of compose.yaml: one wheelhouse for all, one closure per image.

    .venv/bin/python deploy/images.py [--base IMAGE] [--docker "docker -H unix:///..."]

The wheelhouse (build/wheels) holds the locked third-party wheels and those of the workspace.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WHEELS = ROOT / "build" / "wheels"
BASE = "python:3.11-slim-bookworm"
# image -> (module it runs, distributions it is made of)
IMAGES = {
    "api-gateway": ("api_gateway", ("entrepot-api-gateway",)),
    "store-registry": ("store_registry", ("entrepot-store-registry",)),
    "motion-engine": ("motion_engine", ("entrepot-motion-engine",)),
    "cache-manager": ("cache_manager", ("entrepot-cache-manager",)),
    "autoscaler": ("autoscaler", ("entrepot-autoscaler",)),
    "mover": ("motion_engine.mover", ("entrepot-motion-engine", "entrepot-file", "entrepot-s3")),
    "streams": ("entrepot_cli.embedded.streams_job", ("entrepot-cli",)),
}
# Build backends are needed to build, not to run; test tools stay out of images.
EXPORT = ("export", "--frozen", "--no-dev", "--no-emit-workspace", "--no-hashes", "--all-packages")
LEFT_OUT = ("entrepot-testkit",)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default=BASE)
    parser.add_argument("--docker", default="docker")
    options = parser.parse_args()
    wheelhouse()
    for image, (module, distributions) in IMAGES.items():
        build(shlex.split(options.docker), options.base, image, module, distributions)


def wheelhouse() -> None:
    """Fill build/wheels afresh from the lock file and the tree."""
    shutil.rmtree(WHEELS, ignore_errors=True)
    WHEELS.mkdir(parents=True)
    requirements = WHEELS.parent / "requirements.txt"
    left_out = [word for name in LEFT_OUT for word in ("--no-emit-package", name)]
    run(uv(), *EXPORT, *left_out, "--quiet", "--output-file", str(requirements))
    run(uv(), "build", "--quiet", "--all-packages", "--wheel", "--out-dir", str(WHEELS))
    # `wheel`, not `download`: what is published as source only is built here, not in the image.
    run(
        pip(),
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(WHEELS),
        "--requirement",
        str(requirements),
    )


def build(
    docker: list[str], base: str, image: str, module: str, distributions: tuple[str, ...]
) -> None:
    run(
        *docker,
        "build",
        "--quiet",
        "--file",
        "deploy/Dockerfile",
        "--network",
        "none",
        "--build-arg",
        f"BASE={base}",
        "--build-arg",
        f"MODULE={module}",
        "--build-arg",
        f"DISTRIBUTIONS={' '.join(distributions)}",
        "--tag",
        f"entrepot/{image}",
        ".",
    )
    print(f"entrepot/{image}", flush=True)


def uv() -> str:
    tools = ROOT / ".venv-tools" / "bin" / "uv"
    return (
        str(tools) if tools.exists() else shutil.which("uv") or sys.exit("run `make setup` first")
    )


def pip() -> str:
    """Pip of a small environment of its own: the workspace's has none."""
    environment = ROOT / "build" / "pip"
    if not (environment / "bin" / "pip").exists():
        run(uv(), "venv", "--quiet", "--seed", "--python", sys.executable, str(environment))
    return str(environment / "bin" / "pip")


def run(*argv: str) -> None:
    # The classic builder is in every engine; BuildKit is a separate plugin in some.
    env = os.environ | {"DOCKER_BUILDKIT": "0"}
    subprocess.run(argv, cwd=ROOT, env=env, check=True, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
