"""Translation of every error of botocore, aiobotocore and aiohttp into the errors of the port.

Texts are made here: the SDK's own may hold URLs with bucket, key or signature.
"""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
from botocore.exceptions import (  # type: ignore[import-untyped]
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ParamValidationError,
    ReadTimeoutError,
    SSLError,
)
from botocore.parsers import ResponseParserError  # type: ignore[import-untyped]

from entrepot_plugin.errors import (
    BadConfig,
    BucketMissing,
    Denied,
    ObjectMissing,
    OutOfSpace,
    PartsRefused,
    ResumeLost,
    StoreError,
    Unreachable,
)

_BY_CODE: dict[str, type[StoreError]] = {
    **dict.fromkeys(("NoSuchKey", "NotFound", "404", "NoSuchVersion"), ObjectMissing),
    "NoSuchBucket": BucketMissing,
    **dict.fromkeys(("NoSuchUpload", "InvalidPart"), ResumeLost),
    **dict.fromkeys(("InvalidPartOrder", "EntityTooSmall", "EntityTooLarge"), PartsRefused),
    **dict.fromkeys(("QuotaExceeded", "InsufficientStorage", "XMinioStorageFull"), OutOfSpace),
    **dict.fromkeys(
        (
            "AccessDenied",
            "AccountProblem",
            "AllAccessDisabled",
            "ExpiredToken",
            "InvalidAccessKeyId",
            "InvalidToken",
            "RequestTimeTooSkewed",
            "SignatureDoesNotMatch",
        ),
        Denied,
    ),
    **dict.fromkeys(
        (
            "InvalidBucketName",
            "AuthorizationHeaderMalformed",
            "PermanentRedirect",
            "IllegalLocationConstraintException",
        ),
        BadConfig,
    ),
    # Bytes damaged or cut on the way, or a range beyond a shorter object: the same call may work.
    **dict.fromkeys(
        (
            "BadDigest",
            "IncompleteBody",
            "InvalidRange",
            "RequestTimeout",
            "XAmzContentSHA256Mismatch",
        ),
        Unreachable,
    ),
}
_BY_STATUS: dict[int, type[StoreError]] = {
    401: Denied,
    403: Denied,
    404: ObjectMissing,
    408: Unreachable,
    413: PartsRefused,
    416: Unreachable,
    429: Unreachable,
    507: OutOfSpace,
}
_HINTS: dict[str, str] = {
    "InvalidAccessKeyId": "the server does not know this access_key",
    "SignatureDoesNotMatch": "secret_key does not belong to access_key",
    "RequestTimeTooSkewed": "the clocks of mover and server differ: run NTP on both",
    "AccessDenied": "give the key read, write, list and delete rights on the bucket",
    "NoSuchBucket": "make the bucket, or set create_bucket",
    "AuthorizationHeaderMalformed": "the region is probably wrong",
    "PermanentRedirect": "endpoint and region do not belong to this bucket",
    "InvalidBucketName": "the server does not take this bucket name",
}
_TEXT_MAX = 200
_SERVER_ERROR = 500


@contextmanager
def translating(key: str | None = None) -> Iterator[None]:
    """Whatever the SDK raises inside leaves as a StoreError; port errors pass as they are."""
    try:
        yield
    except StoreError:
        raise
    except ClientError as err:
        raise _of_answer(err, key) from err
    except (BotoCoreError, aiohttp.ClientError, TimeoutError, OSError) as err:
        raise _of_transport(err, key) from err
    except Exception as err:
        raise StoreError(f"the S3 client failed ({type(err).__name__})", key=key) from err


def error_code(err: BaseException | None) -> str:
    """The S3 code behind a translated error, or the HTTP status in text, or empty."""
    cause = err.__cause__ if isinstance(err, StoreError) else err
    return (
        str(cause.response.get("Error", {}).get("Code", ""))
        if isinstance(cause, ClientError)
        else ""
    )


def _of_answer(err: ClientError, key: str | None) -> StoreError:
    response: Any = err.response
    code = str(response.get("Error", {}).get("Code", ""))
    message = str(response.get("Error", {}).get("Message", ""))[:_TEXT_MAX]
    meta = response.get("ResponseMetadata", {})
    status = int(meta.get("HTTPStatusCode", 0))
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status)
    if kind is PartsRefused and "quota" in message.lower():
        kind = OutOfSpace
    text = f"the server answered {status} {code}: {message}"
    hint = _HINTS.get(code, "")
    if kind is Unreachable or (kind is None and (status >= _SERVER_ERROR or "Slow" in code)):
        after_s = _seconds(meta.get("HTTPHeaders", {}).get("retry-after"))
        return Unreachable(text, key=key, hint=hint, after_s=after_s)
    return (kind or StoreError)(text, key=key, hint=hint)


def _of_transport(err: Exception, key: str | None) -> StoreError:
    name = type(err).__name__
    if isinstance(err, SSLError | ssl.SSLError | aiohttp.ClientSSLError):
        return Unreachable(
            f"no trusted TLS connection ({name})",
            key=key,
            hint="give the server's certificate authority as ca_bundle",
        )
    if isinstance(err, ParamValidationError):
        return BadConfig(f"the S3 client refuses the call ({name})", key=key)
    if isinstance(err, ResponseParserError):
        return StoreError("the answer is not S3", key=key, hint="is the endpoint an S3 server?")
    if isinstance(err, ReadTimeoutError | ConnectTimeoutError | TimeoutError):
        return Unreachable(f"the server did not answer in time ({name})", key=key)
    if isinstance(err, HTTPClientError | EndpointConnectionError | aiohttp.ClientError | OSError):
        return Unreachable(
            f"no connection to the server, or it broke ({name})",
            key=key,
            hint="check the endpoint's host, port and scheme, and that it runs",
        )
    return StoreError(f"the S3 client failed ({name})", key=key)


def _seconds(text: str | None) -> float | None:
    return float(text) if text and text.isdigit() else None
