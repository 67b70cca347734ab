"""Single pieces of the S3 provider: translation of errors, time limits, secrets, lazy imports."""

import asyncio
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    ParamValidationError,
    ReadTimeoutError,
)
from botocore.parsers import ResponseParserError

from entrepot_plugin.bodies import BytesBody
from entrepot_plugin.conformance.material import keys
from entrepot_plugin.errors import (
    BadConfig,
    BucketMissing,
    Denied,
    ObjectMissing,
    OutOfSpace,
    PartsRefused,
    ResumeLost,
    Stalled,
    StoreError,
    Unreachable,
)
from entrepot_plugin.plugin import secret_fields
from entrepot_plugin.quality import complaints
from entrepot_s3 import PLUGIN
from entrepot_s3.faults import translating
from entrepot_s3.objects import S3Objects
from entrepot_s3.uploads import send_bounded

SECRET = "s3cr3t-s3cr3t"


def answered(code, status, message="", headers=None):
    meta = {"HTTPStatusCode": status, "HTTPHeaders": headers or {}}
    return ClientError(
        {"Error": {"Code": code, "Message": message}, "ResponseMetadata": meta}, "Op"
    )


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (answered("NoSuchKey", 404), ObjectMissing),
        (answered("404", 404), ObjectMissing),
        (answered("NoSuchBucket", 404), BucketMissing),
        (answered("AccessDenied", 403), Denied),
        (answered("InvalidAccessKeyId", 403), Denied),
        (answered("SignatureDoesNotMatch", 403), Denied),
        (answered("RequestTimeTooSkewed", 403), Denied),
        (answered("403", 403), Denied),
        (answered("NoSuchUpload", 404), ResumeLost),
        (answered("InvalidPart", 400), ResumeLost),
        (answered("EntityTooSmall", 400), PartsRefused),
        (answered("SlowDown", 503), Unreachable),
        (answered("ServiceUnavailable", 503), Unreachable),
        (answered("InternalError", 500), Unreachable),
        (answered("BadDigest", 400), Unreachable),
        (answered("TooManyRequests", 429), Unreachable),
        (answered("QuotaExceeded", 403), OutOfSpace),
        (answered("507", 507), OutOfSpace),
        (answered("EntityTooLarge", 413, "Upload exceeds quota."), OutOfSpace),
        (answered("AuthorizationHeaderMalformed", 400), BadConfig),
        (answered("Unheard", 400), StoreError),
        (
            EndpointConnectionError(endpoint_url="http://h/bucket/key?X-Amz-Signature=z"),
            Unreachable,
        ),
        (ReadTimeoutError(endpoint_url="http://h/b"), Unreachable),
        (ParamValidationError(report="x"), BadConfig),
        (ResponseParserError("<html>"), StoreError),
        (aiohttp.ClientPayloadError("cut"), Unreachable),
        (aiohttp.ServerDisconnectedError(), Unreachable),
        (ConnectionResetError(), Unreachable),
        (TimeoutError(), Unreachable),
        (KeyError("surprise"), StoreError),
    ],
)
def test_every_error_of_the_sdk_becomes_the_right_error_of_the_port(error, kind):
    with pytest.raises(StoreError) as caught, translating("k"):
        raise error
    assert type(caught.value) is kind
    assert caught.value.key == "k"
    assert caught.value.__cause__ is error
    assert "Signature=" not in str(caught.value)
    assert "http" not in str(caught.value)


def test_an_error_of_the_port_and_a_cancellation_pass_as_they_are():
    for error in (ObjectMissing("x"), asyncio.CancelledError()):
        with pytest.raises(type(error)) as caught, translating():
            raise error
        assert caught.value is error


async def test_a_part_slower_than_the_least_rate_is_a_stall():
    async def crawling(Body):  # noqa: N803
        async for _ in Body:
            await asyncio.sleep(0.01)

    body = BytesBody(bytes(1 << 20), chunk_bytes=100)
    with pytest.raises(Stalled):
        await send_bounded(crawling, body, key="k", stall_s=30, limit_s=0.1)


async def test_a_slow_source_is_not_the_stores_fault():
    class Slow(BytesBody):
        async def __aiter__(self):
            await asyncio.sleep(0.3)
            yield self._data

    async def request(Body):  # noqa: N803
        return {"got": [bytes(chunk) async for chunk in Body]}

    answer = await send_bounded(request, Slow(b"x"), key="k", stall_s=0.05, limit_s=30)
    assert answer == {"got": [b"x"]}


async def test_a_server_that_ignores_ranges_is_found_out():
    class Stream:
        def close(self):
            self.closed = True

    class Client:
        async def get_object(self, **_):
            return {"Body": Stream(), "ResponseMetadata": {"HTTPStatusCode": 200}}

    config = PLUGIN.parse({"endpoint": "http://h", "bucket": "bkt"}, SECRETS)
    store = S3Objects(config=config, client=Client())
    with pytest.raises(StoreError, match="ignores byte ranges"):
        _ = [chunk async for chunk in store.read("k", 5, 9)]


async def test_a_listing_that_does_not_move_on_is_an_error_and_not_a_loop():
    page = {"IsTruncated": True}

    class Client:
        async def list_objects_v2(self, **_):
            return {**page, "Contents": [{"Key": "a", "Size": 1}], "NextContinuationToken": "t"}

        async def list_multipart_uploads(self, **_):
            return {**page, "Uploads": [{"Key": "other", "UploadId": "u"}]}

        async def list_parts(self, **_):
            return {**page, "Parts": [], "NextPartNumberMarker": 0}

    config = PLUGIN.parse({"endpoint": "http://h", "bucket": "bkt"}, SECRETS)
    store = S3Objects(config=config, client=Client())
    writer = await store.begin("k", 1, "token")
    for call in (lambda: keys(store, ""), lambda: store.delete("k"), writer.parts):
        with pytest.raises(StoreError, match="does not move on"):
            await call()


SECRETS = {"access_key": "AKIA-PUBLIC", "secret_key": SECRET}


def test_secrets_are_sealed_fields_and_never_printed():
    assert secret_fields(PLUGIN.schema()) == {"access_key", "secret_key", "session_token"}
    config = PLUGIN.parse({"endpoint": "http://h", "bucket": "bkt"}, SECRETS)
    assert SECRET not in repr(config)
    assert "AKIA" not in str(config)


async def test_no_error_or_probe_tells_a_secret(swift):
    for change in ({"secret_key": SECRET}, {"access_key": SECRET}):
        secrets = {"access_key": swift.access_key, "secret_key": swift.secret_key, **change}
        config = PLUGIN.parse({"endpoint": swift.endpoint, "bucket": "bkt"}, secrets)
        async with PLUGIN.open_objects(config) as store:
            report = await store.probe()
            with pytest.raises(Denied) as caught:
                await store.put("k", b"x")
        assert not report.ok
        for text in (repr(report), str(caught.value), repr(caught.value), caught.value.hint):
            assert SECRET not in text
            assert swift.secret_key not in text


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"endpoint": "ftp://h"}, "endpoint"),
        ({"endpoint": "http://user:pw@h"}, "endpoint"),
        ({"bucket": "Up_per"}, "bucket"),
        ({"prefix": "/x"}, "prefix"),
        ({"prefix": "a//b"}, "prefix"),
        ({"addressing_style": "odd"}, "addressing_style"),
        ({"part_concurrency": 0}, "part_concurrency"),
        ({"buckett": "x"}, "buckett"),
    ],
)
def test_a_bad_config_names_its_field(change, field):
    with pytest.raises(BadConfig, match=field):
        PLUGIN.parse({"endpoint": "http://h", "bucket": "bkt", **change}, SECRETS)


async def test_a_ca_bundle_that_is_not_there_is_a_port_error(swift):
    public = {"endpoint": "https://127.0.0.1:1", "bucket": "bkt", "ca_bundle": "/absent.pem"}
    with pytest.raises(StoreError):
        async with PLUGIN.open_objects(PLUGIN.parse(public, SECRETS)) as store:
            await store.stat("k")


async def test_the_environment_and_home_of_the_mover_do_not_matter(swift, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "absent")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "other")
    secrets = {"access_key": swift.access_key, "secret_key": swift.secret_key}
    public = {"endpoint": swift.endpoint, "bucket": "environment", "create_bucket": True}
    async with PLUGIN.open_objects(PLUGIN.parse(public, secrets)) as store:
        assert (await store.put("k", b"x")).size_bytes == 1


def test_importing_the_plugin_does_not_import_the_sdk():
    check = (
        "import sys; from entrepot_s3 import PLUGIN; PLUGIN.schema(); "
        "sys.exit(any(m.split('.')[0] in {'aiobotocore', 'botocore', 'aiohttp'} for m in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


def test_the_quality_report_is_complete():
    assert complaints(Path(__file__).parents[1] / "quality.toml") == []
