"""Swift's own virtual environment, made once per machine and kept in a cache folder.

Swift's pins never meet those of the workspace. All versions are fixed, so that the real server of
the tests is the same one everywhere.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

SWIFT_VERSION = "2.38.3"
PINS = (
    f"swift=={SWIFT_VERSION}",
    "certifi==2026.10.18",
    "cffi==2.1.1",
    "charset-normalizer==3.5.2",
    "cryptography==50.0.2",
    "dnspython==2.9.2",
    "eventlet==0.41.3",
    "greenlet==3.5.6",
    "idna==3.20",
    "lxml==6.1.3",
    "pastedeploy==3.1.0",
    "pycparser==3.12",
    "pyeclib==1.8.0",
    "requests==2.34.2",
    "setuptools==80.10.2",
    "urllib3==2.8.0",
    "xattr==1.3.0",
)
INSTALL_TIMEOUT_S = 600.0


def cache_root() -> Path:
    """$ENTREPOT_CACHE, else ~/.cache/entrepot (or where XDG_CACHE_HOME says)."""
    if chosen := os.environ.get("ENTREPOT_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "entrepot"


def ensure_swift_venv(root: Path | None = None) -> Path:
    """The interpreter of an environment that holds Swift; made on first use, safe to race."""
    root = root or cache_root()
    root.mkdir(parents=True, exist_ok=True)
    home = root / f"swift-{SWIFT_VERSION}"
    complete = home / ".complete"
    python = home / "bin" / "python"
    with (root / f"swift-{SWIFT_VERSION}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists() or complete.read_text() != "\n".join(PINS):
            shutil.rmtree(home, ignore_errors=True)
            _install(home, python)
            complete.write_text("\n".join(PINS))
    return python


def _install(home: Path, python: Path) -> None:
    """By uv, which is faster; else by pip, which knows the machine's certificates and proxies."""
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv:
        try:
            _run(uv, "venv", "-q", "-p", sys.executable, str(home))
            _run(uv, "pip", "install", "-q", "-p", str(python), *PINS)
        except RuntimeError:
            shutil.rmtree(home, ignore_errors=True)
        else:
            return
    _run(sys.executable, "-m", "venv", str(home))
    _run(str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *PINS)


def _run(*argv: str) -> None:
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{argv[0]} failed while installing Swift: {done.stderr[-1000:]}")
