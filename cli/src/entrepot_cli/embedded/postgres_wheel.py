"""The PostgreSQL inside the pgserver wheel; copied where the server's own user can reach it."""

import importlib.util
import shutil
from pathlib import Path

# Libraries that the programs find by a path relative to themselves.
_PARTS = ("pgserver/pginstall", "pgserver.libs")
_UNNEEDED = ("include", "pgxs")


def wheel_bin() -> Path | None:
    """Folder of the wheel's programs; None if it is not installed."""
    spec = importlib.util.find_spec("pgserver")  # found, not imported: its import does things
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


def copied_bin(source_bin: Path, target: Path) -> Path:
    """The same programs under `target`, for a user who may not enter where the wheel lies (an
    environment beneath /root). Made once; a copy broken off is made again.
    """
    site = source_bin.parent.parent.parent
    complete = target / ".complete"
    if not complete.exists():
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True, mode=0o755)
        for part in _PARTS:
            if (site / part).is_dir():
                ignore = shutil.ignore_patterns(*_UNNEEDED)
                shutil.copytree(site / part, target / part, symlinks=True, ignore=ignore)
        complete.touch()
    return target / "pgserver" / "pginstall" / "bin"
