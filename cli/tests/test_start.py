"""Starting is quick: help loads no noun, a noun loads no other."""

import subprocess
import sys

HEAVY = ("httpx", "rich.progress", "psutil", "entrepot_cli.nouns.zone", "nats", "asyncpg")


def loaded_by(*tokens):
    code = (
        "import sys; from entrepot_cli.__main__ import run; "
        f"run({list(tokens)!r}); print('LOADED', *sorted(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.rsplit("LOADED", 1)[1].split())


def test_help_loads_nothing_that_talks():
    assert not loaded_by("--help") & set(HEAVY)


def test_a_noun_does_not_load_the_launcher():
    loaded = loaded_by("zone", "list", "--help")
    assert "entrepot_cli.nouns.zone" in loaded
    assert "entrepot_cli.nouns.volume" not in loaded
    assert not {name for name in loaded if name.startswith("entrepot_cli.embedded")}
