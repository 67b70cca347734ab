"""What every provider must do, as pytest classes: subclass, give the fixtures, run.

    class TestMine(ObjectStoreConformance):
        traits = PLUGIN.traits
        @pytest.fixture
        async def store(self): ...           # an opened store, empty or with a prefix of its own
        @pytest.fixture
        def store_fresh(self): ...           # () -> context manager of a second client of the same
        @pytest.fixture
        async def store_broken(self): ...    # one whose config cannot work

The assertions of a package are rewritten by pytest only if asked: put
`pytest.register_assert_rewrite("entrepot_plugin.conformance")` into a conftest.py.
"""

from entrepot_plugin.conformance.objects import ObjectStoreConformance
from entrepot_plugin.conformance.volumes import VolumeStoreConformance

__all__ = ["ObjectStoreConformance", "VolumeStoreConformance"]
