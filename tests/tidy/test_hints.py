"""Whoever is refused is told what to do: each Refused and Problem our code makes has a hint."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    path
    for room in ("services", "plugins", "libs")
    for path in sorted((ROOT / room).glob("*/src/**/*.py"))
    if "entrepot_testkit" not in path.parts  # the tests' own movers
]
MADE = {"Refused", "Problem"}


def without_hint(text):
    """Lines of calls that give no hint, or an empty one."""
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    return [
        call.lineno
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id in MADE and not _hinted(call)
    ]


def _hinted(call):
    given = {word.arg: word.value for word in call.keywords}
    if None in given:  # **fields: told elsewhere
        return True
    hint = given.get("hint")
    return hint is not None and not (isinstance(hint, ast.Constant) and not hint.value)


def test_every_refusal_has_a_hint():
    assert len(SOURCES) > 100
    found = {
        f"{path.relative_to(ROOT)}:{line}"
        for path in SOURCES
        for line in without_hint(path.read_text())
    }
    assert found == set()


def test_a_refusal_without_a_hint_is_found():
    text = 'Refused(1, "a")\nRefused(1, "a", hint="b")\nProblem(code=1, hint="")\nProblem(**all)\n'
    assert without_hint(text) == [1, 3]
