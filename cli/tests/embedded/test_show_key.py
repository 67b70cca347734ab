"""The administrator's key is shown to a terminal and to nothing else."""

import os
import pty
import subprocess
import sys

SHOW = "import sys, pathlib; from entrepot_cli.embedded.commands import show_key; "
SHOW += "show_key(pathlib.Path(sys.argv[1]))"


def test_a_terminal_sees_the_key(tmp_path):
    (tmp_path / "key").write_text("ek_secret\n")
    ours, theirs = pty.openpty()
    try:
        argv = [sys.executable, "-c", SHOW, str(tmp_path / "key")]
        subprocess.run(argv, stdout=theirs, check=True)
        assert b"ek_secret" in os.read(ours, 1000)
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_pipe_or_a_log_does_not(tmp_path):
    (tmp_path / "key").write_text("ek_secret\n")
    argv = [sys.executable, "-c", SHOW, str(tmp_path / "key")]
    done = subprocess.run(argv, capture_output=True, check=True)
    assert b"ek_secret" not in done.stdout + done.stderr
