"""Makes the keys and passwords that compose.yaml mounts, once: deploy/secrets/ (never committed).

    .venv/bin/python deploy/make_secrets.py [DIR]

DIR/compose.env  passwords and the user ids containers run as, for `--env-file`
DIR/nats.conf    listeners, JetStream with sync_interval always, grants from the catalogue
DIR/*.nk         one NATS seed per service, mover and stream admin, 0600
"""

import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path

from entrepot_cli.embedded import grants, nkeys

FOLDER = Path(__file__).resolve().parent / "secrets"
NOBODY = 65534
NAMES = (*grants.SERVICES, grants.MOVER, grants.ADMIN)
NATS = """\
listen: 0.0.0.0:4222
http: 0.0.0.0:8222
jetstream {{ store_dir: /data, sync_interval: always }}
{authorization}
"""


def main(folder: Path) -> None:
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    seeds = {name: kept(folder / f"{name}.nk", nkeys.new_seed) for name in NAMES}
    public = {name: nkeys.public_key(seed) for name, seed in seeds.items()}
    (folder / "nats.conf").write_text(NATS.format(authorization=grants.authorization(public)))
    kept(folder / "compose.env", passwords)
    print(folder)


def kept(path: Path, make: Callable[[], str]) -> str:
    """The secret of an earlier run, or a new one: readable by the containers' user only."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(make())
        if os.geteuid() == 0 and path.suffix == ".nk":
            os.chown(path, NOBODY, NOBODY)
    return path.read_text()


def passwords() -> str:
    user, group = (NOBODY, NOBODY) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    lines = [f"ENTREPOT_UID={user}", f"ENTREPOT_GID={group}"]
    names = ["POSTGRES", *(name.replace("-", "_").upper() for name in grants.SERVICES)]
    lines += [f"{name}_PASSWORD={secrets.token_hex(24)}" for name in names]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
