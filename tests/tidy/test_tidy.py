"""The tree tests its own shape: layers, sizes, names, banned calls (docs/architecture.md)."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARIES = {
    "entrepot_contracts": "libs/contracts",
    "entrepot_chassis": "libs/chassis",
    "entrepot_plugin": "libs/plugin-api",
    "entrepot_testkit": "libs/testkit",
}
PLUGINS = {"entrepot_file": "plugins/file", "entrepot_s3": "plugins/s3"}
SERVICES = {
    name.replace("-", "_"): f"services/{name}"
    for name in ("api-gateway", "store-registry", "motion-engine", "cache-manager", "autoscaler")
}
OURS = LIBRARIES | PLUGINS | SERVICES | {"entrepot_cli": "cli"}

# Which of our own packages a package may import. The mover runs plugins it finds by entry point.
MAY_IMPORT = {
    "entrepot_contracts": set(),
    "entrepot_chassis": set(),
    "entrepot_plugin": {"entrepot_contracts"},
    "entrepot_cli": {"entrepot_contracts", "entrepot_chassis"},
    **{name: {"entrepot_contracts", "entrepot_plugin"} for name in PLUGINS},
    **{
        name: {"entrepot_contracts", "entrepot_chassis", "entrepot_plugin"} for name in SERVICES
    },
}
BANNED_NAMES = {"utils", "common", "helpers", "base", "manager", "misc"}
LINES_MAX = 500
FUNCTION_LINES_MAX = 70
# Driver packages are wrapped by one module each; nobody else touches them.
DRIVERS = {
    "nats": {"entrepot_chassis"},
    "asyncpg": {"entrepot_chassis"},
    "aiobotocore": {"entrepot_s3"},
    "botocore": {"entrepot_s3"},
}
CLOCK_CALLS = re.compile(
    r"\b(datetime\.(now|utcnow)|time\.(time|monotonic|time_ns|sleep)|uuid[145]|uuid\.uuid\d|"
    r"random\.(random|randint|choice|shuffle|uniform|Random)|secrets\.(token_\w+|choice|randbelow)|os\.urandom)\("
)
# Places that make time, ids or keys for everybody else, or that live outside the services.
CLOCK_ALLOWED = {
    "libs/chassis/src/entrepot_chassis/clock.py",
    "libs/chassis/src/entrepot_chassis/seal.py",
    "libs/plugin-api/src/entrepot_plugin/conformance/objects.py",  # test classes: fresh keys
    "libs/plugin-api/src/entrepot_plugin/conformance/volumes.py",
}

# The owner of all tasks, and a commit that must be awaited to its end even when cancelled.
TASKS_ALLOWED = {
    "libs/chassis/src/entrepot_chassis/work.py",
    "libs/chassis/src/entrepot_chassis/postgres.py",
}


def sources():
    for folder in OURS.values():
        yield from sorted((ROOT / folder / "src").rglob("*.py"))


def relative(path):
    return path.relative_to(ROOT).as_posix()


def package_of(path):
    return path.relative_to(ROOT).parts[path.relative_to(ROOT).parts.index("src") + 1]


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


@pytest.fixture(scope="module")
def trees():
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in sources()}


def test_the_walk_sees_the_whole_house(trees):
    assert {package_of(path) for path in trees} == set(OURS)


def test_imports_point_one_way(trees):
    wrong = [
        f"{relative(path)} imports {name}"
        for path, tree in trees.items()
        if package_of(path) in MAY_IMPORT
        for name in imported(tree)
        if name in OURS
        and name != package_of(path)
        and name not in MAY_IMPORT[package_of(path)]
    ]
    assert not wrong


def test_each_driver_is_wrapped_by_its_one_owner(trees):
    wrong = [
        f"{relative(path)} imports {name}"
        for path, tree in trees.items()
        for name in imported(tree)
        if name in DRIVERS and package_of(path) not in DRIVERS[name] | {"entrepot_testkit"}
    ]
    assert not wrong


def test_services_name_no_provider(trees):
    """Vendors come through the plugin door; `if provider == "s3"` in a service closes it."""
    names = {folder.split("/")[1] for folder in PLUGINS.values()}
    wrong = []
    for path, tree in trees.items():
        if package_of(path) in SERVICES:
            documents = {id(body[0].value) for body in _bodies(tree) if _is_text(body)}
            wrong += [
                f"{relative(path)}:{node.lineno} says {node.value!r}"
                for node in ast.walk(tree)
                if isinstance(node, ast.Constant)
                and id(node) not in documents
                and node.value in names - {"file"} | {"boto", "swift"}
            ]
    assert not wrong


def _bodies(tree):
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return [node.body for node in ast.walk(tree) if isinstance(node, kinds) and node.body]


def _is_text(body):
    return isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)


def test_files_are_short_and_open_with_what_they_are_responsible_for(trees):
    wrong = []
    for path, tree in trees.items():
        text = path.read_text(encoding="utf-8")
        if text.count("\n") > LINES_MAX:
            wrong.append(f"{relative(path)} has {text.count(chr(10))} lines")
        if text.strip() and not ast.get_docstring(tree):
            wrong.append(f"{relative(path)} has no opening line")
    assert not wrong


def test_functions_fit_a_screen(trees):
    wrong = [
        f"{relative(path)}:{node.lineno} {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno + 1 > FUNCTION_LINES_MAX
    ]
    assert not wrong


def test_no_file_is_named_after_nothing(trees):
    wrong = [relative(path) for path in trees if BANNED_NAMES & set(path.stem.split("_"))]
    assert not wrong


def test_clocks_ids_and_randomness_are_arguments(trees):
    wrong = [
        f"{relative(path)}:{number} {line.strip()}"
        for path in trees
        if package_of(path) not in {"entrepot_testkit", "entrepot_cli", *PLUGINS}
        and relative(path) not in CLOCK_ALLOWED
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if CLOCK_CALLS.search(line)
    ]
    assert not wrong


def test_no_task_is_left_without_an_owner(trees):
    wrong = [
        f"{relative(path)}:{node.lineno}"
        for path, tree in trees.items()
        if package_of(path) != "entrepot_testkit"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"create_task", "ensure_future"}
        and not _owned(node.func.value)
        and relative(path) not in TASKS_ALLOWED
    ]
    assert not wrong


def _owned(owner):
    """A TaskGroup (named group or tasks) owns what it starts; a loop or asyncio does not."""
    name = owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")
    return any(word in name for word in ("group", "tasks"))


def test_log_events_are_names_not_sentences(trees):
    wrong = [
        f"{relative(path)}:{node.lineno}"
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in {"log", "logger"}
        and node.args
        and (
            isinstance(node.args[0], ast.JoinedStr)
            or (isinstance(node.args[0], ast.Constant) and " " in str(node.args[0].value))
        )
    ]
    assert not wrong


def test_nothing_is_left_to_do_in_a_comment(trees):
    marks = re.compile(r"#.*\b(TODO|FIXME|XXX|HACK)\b")
    wrong = [
        f"{relative(path)}:{number}"
        for path in trees
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if marks.search(line)
    ]
    assert not wrong


def test_every_service_has_the_same_rooms():
    rooms = ["__main__.py", "settings.py", "app.py", "migrations"]
    wrong = [
        f"{folder}/src/{name}/{room}"
        for name, folder in SERVICES.items()
        for room in rooms
        if not (ROOT / folder / "src" / name / room).exists()
    ]
    wrong += [f"{f}/README.md" for f in SERVICES.values() if not (ROOT / f / "README.md").exists()]
    assert not wrong


def test_distributions_are_named_after_their_folder():
    for folder in OURS.values():
        project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
        assert project["name"] == f"entrepot-{Path(folder).name}"


def test_plugins_keep_a_quality_ledger_with_a_reason_for_every_exemption():
    for folder in PLUGINS.values():
        rules = tomllib.loads((ROOT / folder / "quality.toml").read_text())
        assert rules
        for rule, state in rules.items():
            word, _, reason = state.partition(": ")
            assert word in {"done", "todo", "exempt"}, f"{folder}: {rule}"
            assert word != "exempt" or reason, f"{folder}: {rule} is exempt without a reason"
