"""The keys of this service: what is sealed to it, what it seals, what it keeps sealed."""

from typing import Protocol

from entrepot_chassis.seal import AtRest, KeyPair, SealError, seal


class Unopenable(Exception):
    """A box that was not sealed to this key, or not whole."""


class Keys(Protocol):
    @property
    def public_key(self) -> str:
        """What AddStore.details must be sealed to: base64 of a raw X25519 key."""
        ...

    def open(self, box: bytes) -> bytes:
        """Raises Unopenable."""
        ...

    def seal(self, recipient: str, data: bytes) -> bytes:
        """For the holder of `recipient`'s private key only. Raises Unopenable for no such key."""
        ...

    def encrypt(self, data: bytes, aad: str) -> bytes:
        """For our own tables, bound to `aad`."""
        ...

    def decrypt(self, box: bytes, aad: str) -> bytes:
        """Raises Unopenable when the box was moved to another place or changed."""
        ...


class ServiceKeys:
    """The real ones, from two key files."""

    def __init__(self, pair: KeyPair, at_rest: AtRest) -> None:
        self._pair = pair
        self._at_rest = at_rest

    @property
    def public_key(self) -> str:
        return self._pair.public_key

    def open(self, box: bytes) -> bytes:
        try:
            return self._pair.open(box)
        except SealError as err:
            raise Unopenable from err

    def seal(self, recipient: str, data: bytes) -> bytes:
        try:
            return seal(recipient, data)
        except (SealError, ValueError) as err:
            raise Unopenable from err

    def encrypt(self, data: bytes, aad: str) -> bytes:
        return self._at_rest.encrypt(data, aad)

    def decrypt(self, box: bytes, aad: str) -> bytes:
        try:
            return self._at_rest.decrypt(box, aad)
        except SealError as err:
            raise Unopenable from err
