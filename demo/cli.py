"""Runs the `entrepot` command the way a user does, and reads its JSON."""

import json
import os
import subprocess
from collections.abc import Mapping
from typing import Any

from entrepot_testkit.embedded import ENTREPOT, EmbeddedStack

COMMAND_S = 180


class CliRefused(Exception):
    """The command ended with an error; `code` is the stable code, the text what it printed."""

    def __init__(self, words: str, exit_code: int, printed: str) -> None:
        super().__init__(f"entrepot {words}: exit {exit_code}: {printed.strip()}")
        lines = [line for line in printed.splitlines() if line.startswith("error: ")]
        self.code = lines[0].split(": ")[1] if lines else ""
        self.message = lines[0].split(": ", 2)[2] if lines else printed


class Cli:
    """The command line of one stack, as its administrator."""

    def __init__(self, stack: EmbeddedStack) -> None:
        self._env = {
            **os.environ,
            "ENTREPOT_URL": stack.url,
            "ENTREPOT_KEY_FILE": str(stack.admin_key_file),
        }

    def __call__(self, *words: str, env: Mapping[str, str] | None = None) -> Any:
        """What the command prints as JSON. Secrets go in by `env`, never as arguments."""
        done = subprocess.run(
            [*ENTREPOT, *words, "--output", "json"],
            check=False,
            capture_output=True,
            text=True,
            env={**self._env, **(env or {})},
            timeout=COMMAND_S,
        )
        if done.returncode != 0:
            raise CliRefused(" ".join(words[:2]), done.returncode, done.stderr)
        return json.loads(done.stdout)
