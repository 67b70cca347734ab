"""API keys: making them, taking their text apart, and checking a secret in constant time.

A key's text is `ek_<key id>_<secret>`; it is shown once. Only SHA-256 of the secret is kept: the
secret is 32 random bytes, so a slow hash would buy nothing.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Callable

from msgspec import Struct

SECRET_BYTES = 32
AUTHORIZATION_CHARS_MAX = 256
_KEY = re.compile(r"ek_([0-9a-f]{32})_([A-Za-z0-9_-]{43})\Z")
_NOBODY = hashlib.sha256(b"no key has this secret").digest()

Entropy = Callable[[int], bytes]


class KeyText(Struct, frozen=True, kw_only=True):
    """What a presented credential claims. Its repr says nothing."""

    key_id: str
    secret: str

    def __repr__(self) -> str:
        return "KeyText(***)"


class MintedKey(Struct, frozen=True, kw_only=True):
    """A new key: the text for its owner, the hash for us."""

    text: str
    secret_hash: bytes

    def __repr__(self) -> str:
        return "MintedKey(***)"


def mint(key_id: str, entropy: Entropy) -> MintedKey:
    secret = base64.urlsafe_b64encode(entropy(SECRET_BYTES)).rstrip(b"=").decode()
    return MintedKey(text=f"ek_{key_id.replace('-', '')}_{secret}", secret_hash=hash_of(secret))


def parse_authorization(header: str | None) -> KeyText | None:
    """The key of an `Authorization: Bearer` header; None when there is none or it is malformed."""
    if header is None or len(header) > AUTHORIZATION_CHARS_MAX:
        return None
    scheme, _, text = header.partition(" ")
    match = _KEY.match(text.strip())
    if scheme.lower() != "bearer" or match is None:
        return None
    raw = match[1]
    key_id = f"{raw[:8]}-{raw[8:12]}-{raw[12:16]}-{raw[16:20]}-{raw[20:]}"
    return KeyText(key_id=key_id, secret=match[2])


def matches(secret: str, secret_hash: bytes | None) -> bool:
    """Constant time, and the same work when the key is unknown (`secret_hash` None)."""
    known = secret_hash if secret_hash is not None else _NOBODY
    same = hmac.compare_digest(hash_of(secret), known)
    return same and secret_hash is not None


def hash_of(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
