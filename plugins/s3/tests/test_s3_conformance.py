"""The S3 provider keeps the promises of the object port, on a real Swift."""

import pytest

from entrepot_plugin.conformance import ObjectStoreConformance
from entrepot_s3 import PLUGIN

MORE = {"list_page_max": 1, "create_bucket": True, "prefix": "some/where"}


def config(swift, **more):
    public = {"endpoint": swift.endpoint, "bucket": "conformance", **more}
    return PLUGIN.parse(public, {"access_key": swift.access_key, "secret_key": swift.secret_key})


class TestS3Objects(ObjectStoreConformance):
    """Pages are made small, so that every listing has several."""

    traits = PLUGIN.traits

    @pytest.fixture
    async def store(self, swift):
        async with PLUGIN.open_objects(config(swift, **MORE)) as store:
            yield store

    @pytest.fixture
    def store_fresh(self, swift):
        return lambda: PLUGIN.open_objects(config(swift, **MORE))

    @pytest.fixture(params=["no bucket", "wrong secret", "nobody there"])
    async def store_broken(self, request, swift):
        broken = {
            "no bucket": config(swift, bucket="absent"),
            "wrong secret": PLUGIN.parse(
                {"endpoint": swift.endpoint, "bucket": "conformance"},
                {"access_key": swift.access_key, "secret_key": "wrong"},
            ),
            "nobody there": config(swift, endpoint="http://127.0.0.1:9"),
        }
        async with PLUGIN.open_objects(broken[request.param]) as store:
            yield store
