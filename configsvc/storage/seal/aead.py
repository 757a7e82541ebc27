"""AES-256-GCM with a fixed nonce and tag length; the library alone would take others (N48)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from configsvc.errors import ensure
from configsvc.storage.seal.errors import SealBroken

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
NUMBER_MAX: Final = (1 << 64) - 1


class Aead:
    """One key. A (key, number) pair must be used for one plaintext only: the caller's duty."""

    __slots__ = ("_gcm",)

    def __init__(self, key: bytes) -> None:
        ensure(len(key) == KEY_BYTES, "AES-256 keys have 32 bytes")
        self._gcm = AESGCM(key)

    def seal(self, number: int, aad: bytes, plaintext: bytes) -> bytes:
        """Ciphertext with its tag; the nonce is ``number``."""
        return self._gcm.encrypt(number.to_bytes(NONCE_BYTES, "little"), plaintext, aad)

    def sealer(self) -> Callable[[bytes, bytes, bytes], bytes]:
        """``seal`` without its call: takes (nonce, plaintext, associated data), for hot loops."""
        return self._gcm.encrypt

    def open(self, number: int, aad: bytes, ciphertext: bytes) -> bytes:
        """The plaintext.

        Raises:
            SealBroken: wrong key, number, associated data or bytes.
        """
        if not 0 <= number <= NUMBER_MAX or len(ciphertext) < TAG_BYTES:
            raise SealBroken("sealed bytes are cut short")
        try:
            return self._gcm.decrypt(number.to_bytes(NONCE_BYTES, "little"), ciphertext, aad)
        except InvalidTag:
            raise SealBroken("sealed bytes are not what was written") from None
