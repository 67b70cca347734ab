"""`entrepot`: the command line. Nouns are loaded when they are used, so help stays quick."""

import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from entrepot_cli.exits import Exit, Failure

NOUNS = {
    "zone": "Zones: places with their own stores and movers.",
    "provider": "Store providers the movers have plugins for.",
    "store": "Image stores (templates, snapshots) and primary stores (volumes).",
    "template": "Templates: images that volumes are made from.",
    "volume": "Volumes: disks on primary stores.",
    "snapshot": "Snapshots: pinned generations of volumes, backed up.",
    "job": "Jobs: what the API accepted and carries out.",
    "transfer": "Transfers: bytes on their way, and how they go.",
    "mover": "Movers: the processes that move bytes.",
    "account": "Accounts: who owns templates, volumes and snapshots.",
    "key": "API keys of an account.",
    "setting": "Settings of the whole installation.",
    "events": "Changes and progress, as they happen.",
}
EMBEDDED = {
    "up": "Run everything on this machine.",
    "down": "Stop what `up` started.",
    "status": "What runs in a data folder.",
}


def build() -> App:
    app = App(
        name="entrepot",
        help="Entrepot keeps VM disk images and moves them between stores.",
        result_action="return_value",
        version_flags=[],
    )
    for name, text in EMBEDDED.items():
        app.command(f"entrepot_cli.embedded.commands:{name}", name=name, help=text)
    for name, text in NOUNS.items():
        names = [name] if name.endswith("s") else [name, f"{name}s"]
        app.command(f"entrepot_cli.nouns.{name}:app", name=names, help=text)
    return app


def run(tokens: Sequence[str]) -> int:
    """The exit code; what went wrong is on stderr."""
    try:
        build()(list(tokens), exit_on_error=False, print_error=True)
    except CycloptsError:
        return Exit.USAGE
    except Failure as failure:
        print("\n".join(failure.lines()), file=sys.stderr)
        return failure.exit_code
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:  # `| head` has read enough
        sys.stderr.close()
        return Exit.OK
    return Exit.OK


def main() -> None:
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
