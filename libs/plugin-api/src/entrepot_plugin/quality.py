"""The rules a provider reports on in its quality.toml: done, todo, or exempt with a reason."""

import tomllib
from pathlib import Path

RULES = frozenset(
    {
        "config_schema",
        "config_errors_name_the_field",
        "lazy_sdk_import",
        "conformance_objects",
        "conformance_volumes",
        "real_server",
        "errors_translated",
        "secrets_hidden",
        "path_traversal",
        "bounded_calls",
        "resume",
        "zombie_safe",
        "probe_with_remedies",
        "links",
        "copies_inside",
        "capacity",
        "checksums_by_store",
    }
)
_EXEMPT = "exempt: "


def complaints(path: Path) -> list[str]:
    """What is wrong with a quality.toml; rules of one's own are welcome."""
    rules = tomllib.loads(path.read_text())
    wrong = [f"{rule}: not reported" for rule in sorted(RULES - rules.keys())]
    for rule, state in rules.items():
        exempt = isinstance(state, str) and len(state) > len(_EXEMPT) and state.startswith(_EXEMPT)
        if state not in {"done", "todo"} and not exempt:
            wrong.append(f"{rule}: {state!r} is not done, todo or exempt with a reason")
    return wrong
