"""Prepares a fresh machine: Debian tools, uv, the locked virtual environment, Swift's own one.

Runs on the bare python3 of Debian 12 (no pip, no venv), so it uses the standard library only.
Root is asked for only when a Debian package is missing, and the reason is printed first.
"""

import configparser
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".venv-tools"
UV_WANTED = "uv>=0.13,<0.14"
PYTHON_MIN = (3, 11)
INDEX_KEYS = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
# program -> (Debian package, what it is for)
PROGRAMS = {
    "qemu-img": ("qemu-utils", "builds and compares the qcow2 images of the demo and the tests"),
    "qemu-io": ("qemu-utils", "writes into volumes the way a guest would"),
    "mke2fs": ("e2fsprogs", "makes the real filesystem inside the demo's image"),
    "curl": ("curl", "fetches extract links the way a user would"),
}


def main() -> None:
    if sys.version_info < PYTHON_MIN:
        sys.exit(f"Entrepot needs Python 3.11 or newer; this is {sys.version.split()[0]}.")
    os.environ["PATH"] += ":/usr/sbin:/sbin"  # mke2fs, for users whose PATH leaves them out
    uv = find_uv()
    install_packages(missing_packages(uv_missing=uv is None))
    environment = uv_environment()
    uv = uv or bootstrap_uv()
    sync(uv, environment)
    prepare_swift(uv, environment)
    say("ready: .venv/bin/entrepot")


def say(text: str) -> None:
    print(f"setup: {text}", flush=True)


def run(*argv: str | Path, env: dict[str, str] | None = None) -> None:
    subprocess.run([str(arg) for arg in argv], cwd=ROOT, env=env, check=True)


# --- Debian packages ------------------------------------------------------------------------


def missing_packages(*, uv_missing: bool) -> dict[str, list[str]]:
    """Package -> reasons, for everything this machine lacks."""
    wanted: dict[str, list[str]] = {}
    for program, (package, reason) in PROGRAMS.items():
        if shutil.which(program) is None:
            wanted.setdefault(package, []).append(f"{program} {reason}")
    if uv_missing and not can_make_venvs():
        wanted["python3-venv"] = ["python3 -m venv bootstraps uv, which installs everything else"]
    if not Path("/etc/ssl/certs/ca-certificates.crt").exists():
        wanted["ca-certificates"] = ["package registries are asked over https"]
    return wanted


def can_make_venvs() -> bool:
    """Debian ships `venv` without `ensurepip`; pip must come from somewhere."""
    return all(importlib.util.find_spec(name) for name in ("venv", "ensurepip"))


def install_packages(wanted: dict[str, list[str]]) -> None:
    if not wanted:
        return
    for package, reasons in wanted.items():
        say(f"Debian package {package} is missing: {'; '.join(reasons)}")
    command = ["apt-get", "install", "-y", "--no-install-recommends", *sorted(wanted)]
    if shutil.which("apt-get") is None:
        sys.exit("setup: there is no apt-get here; install the equivalents of the above by hand.")
    as_root = [] if os.geteuid() == 0 else ["sudo"]
    if as_root and shutil.which("sudo") is None:
        sys.exit(f"setup: run this as root, then again make: {' '.join(command)}")
    if as_root:
        say(f"asking for root only to run: {' '.join(command)}")
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive"]
    first = subprocess.run([*as_root, *quiet, *command], check=False)
    if first.returncode != 0:  # lists of a fresh machine are empty or old
        run(*as_root, *quiet, "apt-get", "update")
        run(*as_root, *quiet, *command)


# --- uv -------------------------------------------------------------------------------------


def find_uv() -> Path | None:
    places = (shutil.which("uv"), TOOLS / "bin" / "uv", Path.home() / ".local" / "bin" / "uv")
    for place in places:
        if place is None or not Path(place).is_file():
            continue
        answer = subprocess.run([place, "--version"], capture_output=True, text=True, check=False)
        if answer.returncode == 0 and new_enough(answer.stdout):
            return Path(place)
    return None


def new_enough(version_line: str) -> bool:
    """The lock file was written by 0.13; older ones read revision 3 of it since 0.8."""
    numbers = version_line.split()[1].split(".")
    return (int(numbers[0]), int(numbers[1])) >= (0, 8)


def bootstrap_uv() -> Path:
    say(f"installing {UV_WANTED} into {TOOLS.name}")
    run(sys.executable, "-m", "venv", TOOLS)
    run(TOOLS / "bin" / "python", "-m", "pip", "install", "--quiet", UV_WANTED)
    return TOOLS / "bin" / "uv"


def uv_environment() -> dict[str, str]:
    """Uv does not read pip's settings; a machine set up for pip must work all the same."""
    env = dict(os.environ)
    env.pop("VIRTUAL_ENV", None)
    if certificate := env.get("PIP_CERT") or pip_setting("cert"):
        env.setdefault("SSL_CERT_FILE", certificate)
    if timeout := env.get("PIP_DEFAULT_TIMEOUT"):
        env.setdefault("UV_HTTP_TIMEOUT", timeout)
    if index := env.get("PIP_INDEX_URL") or pip_setting("index-url"):
        env.setdefault("UV_DEFAULT_INDEX", index)
    if extra := env.get("PIP_EXTRA_INDEX_URL") or pip_setting("extra-index-url"):
        env.setdefault("UV_INDEX", extra)
    if host := env.get("PIP_TRUSTED_HOST") or pip_setting("trusted-host"):
        env.setdefault("UV_INSECURE_HOST", host)
    links = (env.get("PIP_FIND_LINKS") or pip_setting("find-links") or "").split()
    if usable := [link for link in links if "://" in link or Path(link).is_dir()]:
        env.setdefault("UV_FIND_LINKS", ",".join(usable))
    return env


def pip_setting(name: str) -> str | None:
    home = Path.home()
    places = ["/etc/pip.conf", home / ".pip/pip.conf", home / ".config/pip/pip.conf"]
    if chosen := os.environ.get("PIP_CONFIG_FILE"):
        places.append(chosen)
    settings = configparser.ConfigParser(interpolation=None)
    settings.read([str(place) for place in places])
    return settings.get("global", name, fallback=None)


def sync(uv: Path, env: dict[str, str]) -> None:
    """The locked environment. The lock names files of pypi.org; a mirror needs the other way."""
    python = ["--python", sys.executable]
    mirrored = any(env.get(key) for key in INDEX_KEYS) or env.get("PIP_NO_INDEX")
    if not mirrored:
        run(uv, "sync", "--all-packages", "--frozen", "--quiet", *python, env=env)
        return
    say("an own package index is set: installing the locked versions from there")
    if not (ROOT / ".venv" / "bin" / "python").exists():
        run(uv, "venv", "--quiet", *python, ROOT / ".venv", env=env)
    members = [
        item
        for pattern in ("libs/*", "plugins/*", "services/*", "cli")
        for item in sorted(ROOT.glob(pattern))
        if (item / "pyproject.toml").exists()
    ]
    offline = ["--no-index"] if env.get("PIP_NO_INDEX") else []
    with tempfile.NamedTemporaryFile(suffix=".txt") as wanted:
        run(
            uv,
            "export",
            "--quiet",
            "--frozen",
            "--all-packages",
            "--no-emit-workspace",
            "--output-file",
            wanted.name,
            env=env,
        )
        run(uv, "pip", "install", "--quiet", *offline, "--requirements", wanted.name, env=env)
    editable = [part for member in members for part in ("--editable", str(member))]
    run(uv, "pip", "install", "--quiet", "--no-deps", *offline, *editable, env=env)


def prepare_swift(uv: Path, env: dict[str, str]) -> None:
    """OpenStack Swift, the real S3 server of demo and tests, lives in its own environment."""
    code = "from entrepot_testkit.swift_venv import ensure_swift_venv; ensure_swift_venv()"
    run(ROOT / ".venv" / "bin" / "python", "-c", code, env={**env, "UV": str(uv)})


if __name__ == "__main__":
    main()
