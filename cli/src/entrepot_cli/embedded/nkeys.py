"""NATS user keys: an Ed25519 pair written the way nats-server and its clients read it."""

import base64
import binascii

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

_SEED, _USER = 18 << 3, 20 << 3  # first letters S and U in base 32
_SEED_HEAD_BYTES, _CHECK_BYTES = 2, 2


def new_seed() -> str:
    """Text of a fresh user seed (SU...): the secret half."""
    raw = Ed25519PrivateKey.generate().private_bytes(
        Encoding.Raw, PrivateFormat.Raw, NoEncryption()
    )
    return _encode(bytes((_SEED | _USER >> 5, (_USER & 31) << 3)) + raw)


def public_key(seed: str) -> str:
    """Text of the public half (U...), which the server's configuration names."""
    packed = base64.b32decode(seed.strip() + "=" * (-len(seed.strip()) % 8))
    raw = packed[_SEED_HEAD_BYTES:-_CHECK_BYTES]
    public = Ed25519PrivateKey.from_private_bytes(raw).public_key()
    return _encode(bytes((_USER,)) + public.public_bytes(Encoding.Raw, PublicFormat.Raw))


def _encode(payload: bytes) -> str:
    check = binascii.crc_hqx(payload, 0).to_bytes(_CHECK_BYTES, "little")
    return base64.b32encode(payload + check).decode().rstrip("=")
