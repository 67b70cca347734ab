"""Only enabled plugins are loaded; absent, doubled or foreign ones refuse to start, in words."""

import sys
from importlib.metadata import entry_points

import pytest

from entrepot_plugin.discovery import STORES, PluginProblem, installed, load_named, load_stores
from entrepot_plugin.plugin import API_VERSION

PROVIDER = """
from msgspec import Struct
from entrepot_plugin.plugin import StorePlugin
from entrepot_plugin.traits import StoreTraits
class Config(Struct, frozen=True, kw_only=True):
    path: str
PLUGIN = StorePlugin(name="{name}", version="1", config=Config, api={api},
                     traits=StoreTraits(scopes=(), roles=()))
"""


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """Installs a distribution of one module, as pip would lay it out."""

    def install(package, *, name="odd", source=None, api=API_VERSION):
        module = package.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(source or PROVIDER.format(name=name, api=api))
        info = tmp_path / f"{module}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[{STORES}]\n{name} = {module}:PLUGIN\n")
        return module

    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield install
    for module in set(sys.modules) - before:
        if module.startswith("odd"):
            del sys.modules[module]


def test_a_strangers_provider_comes_through_the_same_door_as_ours(distribution):
    distribution("odd-store")
    plugins = load_stores(["odd", "file"])
    assert {name: plugin.name for name, plugin in plugins.items()} == {"odd": "odd", "file": "file"}
    assert plugins["odd"].parse({"path": "/x"}, {}).path == "/x"


def test_what_is_not_enabled_is_not_imported(distribution):
    module = distribution("odd-store")
    load_stores(["file"])
    assert module not in sys.modules
    assert "odd" in installed(STORES)


def test_an_absent_plugin_is_named_with_what_is_installed():
    with pytest.raises(PluginProblem, match=r"'nfs9'.*file.*s3"):
        load_stores(["nfs9"])


def test_a_name_claimed_twice_names_both_claimants(distribution):
    distribution("odd-one")
    distribution("odd-two")
    with pytest.raises(PluginProblem, match="odd-one, odd-two"):
        load_stores(["odd"])


def test_a_plugin_of_another_api_is_refused(distribution):
    distribution("odd-store", api=API_VERSION + 1)
    with pytest.raises(PluginProblem, match=f"speaks api {API_VERSION + 1}"):
        load_stores(["odd"])


def test_something_that_is_no_plugin_is_refused(distribution):
    distribution("odd-store", source="PLUGIN = object()\n")
    with pytest.raises(PluginProblem, match="no StorePlugin"):
        load_stores(["odd"])
    assert load_named(STORES, "odd") is not None


def test_both_built_in_stores_are_found_by_entry_point():
    assert {"file", "s3"} <= {point.name for point in entry_points(group=STORES)}
    assert set(load_stores(["file", "s3"])) == {"file", "s3"}
