"""Sealing secrets: to a public key (X25519, HKDF, AES-256-GCM) and at rest (AES-256-GCM)."""

import base64
import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)


class SealError(Exception):
    """Not for us, tampered with, or no box."""


_KEY_BYTES = 32
_NONCE_BYTES = 12
_KEY_ID_BYTES = 8
_VERSION = b"\x01"
_INFO = b"entrepot seal v1"
_OWNER_ONLY = 0o600


class KeyPair:
    """Receives sealed boxes. A box names no sender; it proves only that it is whole."""

    def __init__(self, private: X25519PrivateKey) -> None:
        self._private = private
        self._public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @classmethod
    def new(cls) -> "KeyPair":
        return cls(X25519PrivateKey.generate())

    @classmethod
    def load_or_make(cls, path: Path | str) -> "KeyPair":
        """The key in the file, made (mode 0600) when there is none."""
        fresh = X25519PrivateKey.generate().private_bytes(
            Encoding.Raw, PrivateFormat.Raw, NoEncryption()
        )
        return cls(X25519PrivateKey.from_private_bytes(_key_file(Path(path), fresh)))

    @property
    def public_key(self) -> str:
        return base64.b64encode(self._public).decode()

    def open(self, box: bytes) -> bytes:
        """What was sealed for us; SealError otherwise."""
        head = len(_VERSION) + _KEY_BYTES
        if len(box) < head + _NONCE_BYTES or not box.startswith(_VERSION):
            raise SealError("not a sealed box of a known version")
        sender, nonce = box[len(_VERSION) : head], box[head : head + _NONCE_BYTES]
        try:
            shared = self._private.exchange(X25519PublicKey.from_public_bytes(sender))
            key = _derive(shared, sender, self._public)
            return AESGCM(key).decrypt(nonce, box[head + _NONCE_BYTES :], _INFO)
        except (InvalidTag, ValueError) as err:
            raise SealError("sealed for another key, or changed on the way") from err


def seal(public_key: str, data: bytes) -> bytes:
    """A box only the holder of the private key can open; each call gives another box."""
    try:
        raw = base64.b64decode(public_key, validate=True)
        recipient = X25519PublicKey.from_public_bytes(raw)
        ephemeral = X25519PrivateKey.generate()
        shared = ephemeral.exchange(recipient)
    except ValueError as err:
        raise SealError("not a public key") from err
    sender = ephemeral.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    nonce = os.urandom(_NONCE_BYTES)
    sealed = AESGCM(_derive(shared, sender, raw)).encrypt(nonce, data, _INFO)
    return _VERSION + sender + nonce + sealed


class AtRest:
    """One symmetric key from a file. `aad` binds a box to its place (owner, store, column)."""

    def __init__(self, key: bytes) -> None:
        assert len(key) == _KEY_BYTES, "an AES-256 key"
        self._cipher = AESGCM(key)
        digest = Hash(SHA256())
        digest.update(b"entrepot key id v1" + key)
        self._key_id = digest.finalize()[:_KEY_ID_BYTES]

    @classmethod
    def load_or_make(cls, path: Path | str) -> "AtRest":
        return cls(_key_file(Path(path), os.urandom(_KEY_BYTES)))

    @property
    def key_id(self) -> str:
        return self._key_id.hex()

    def encrypt(self, data: bytes, aad: str) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        head = _VERSION + self._key_id
        return head + nonce + self._cipher.encrypt(nonce, data, head + aad.encode())

    def decrypt(self, box: bytes, aad: str) -> bytes:
        head_bytes = len(_VERSION) + _KEY_ID_BYTES
        head, rest = box[:head_bytes], box[head_bytes:]
        if not head.startswith(_VERSION) or len(rest) < _NONCE_BYTES:
            raise SealError("not a box of a known version")
        if head[len(_VERSION) :] != self._key_id:
            raise SealError(f"encrypted with key {head[len(_VERSION) :].hex()}, ours is another")
        try:
            return self._cipher.decrypt(
                rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], head + aad.encode()
            )
        except InvalidTag as err:
            raise SealError("moved from its place, or changed") from err


def _derive(shared: bytes, sender: bytes, recipient: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=_KEY_BYTES, salt=sender + recipient, info=_INFO).derive(
        shared
    )


def _key_file(path: Path, fresh: bytes) -> bytes:
    """Key bytes of the file; if there is none, `fresh` written so that a crash leaves no half."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _OWNER_ONLY)
        with os.fdopen(descriptor, "wb") as file:
            file.write(base64.b64encode(fresh) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(part, path)  # fails if another process was first: its key counts
        except FileExistsError:
            pass
        finally:
            part.unlink()
    try:
        key = base64.b64decode(path.read_bytes().strip(), validate=True)
    except ValueError as err:
        raise SealError(f"no key in {path}") from err
    if len(key) != _KEY_BYTES:
        raise SealError(f"no key in {path}")
    return key
