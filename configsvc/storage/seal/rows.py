"""Sealing of SQL fields: a seed, one derived key per transaction, a counted nonce (ENC-2, ENC-3).

A 96-bit random nonce would allow only 2^32 uses of a key; so each transaction derives its own key
from the seed and 24 random bytes, and counts its fields. Both stand beside the ciphertext. What a
field belongs to (table, key, revision, field) is associated data: swapped ciphertexts fail.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from configsvc.errors import ensure
from configsvc.storage.seal.aead import KEY_BYTES, NONCE_BYTES, Aead
from configsvc.storage.seal.errors import SealBroken

INFO_BYTES: Final = 24
LABEL: Final = b"configsvc/seal/rows/v1"
DERIVED_KEPT: Final = 1_024  # derived keys kept for reading, least recently used first to go


class SealBatch:
    """The sealing of one transaction; a transaction tried again takes a new batch."""

    __slots__ = ("_aead", "_prefix", "_used", "info")

    def __init__(self, info: bytes, aead: Aead, prefix: bytes) -> None:
        self.info = info  # 24 bytes, stored beside the rows
        self._aead = aead
        self._prefix = prefix
        self._used = -1

    def seal(self, number: int, aad: bytes, plaintext: bytes) -> bytes:
        """Ciphertext of one field; numbers must grow within the batch."""
        ensure(number > self._used, "a field number is used once per batch")
        self._used = number
        return self._aead.seal(number, self._prefix + aad, plaintext)

    def field(self, front: bytes, aad: bytes, flag: int = 0) -> Callable[[bytes, bytes], bytes]:
        """Seals one kind of field, each under the batch's next number; for hot loops.

        Args:
            front: Put before every result.
            aad: Front of the associated data of every field.
            flag: Bits set in the number as it is stored; the nonce is the number without them.

        Returns:
            (rest of the associated data, plaintext) to ``front ‖ number (4 bytes) ‖ ciphertext``.
        """
        encrypt, prefix = self._aead.sealer(), self._prefix + aad

        def seal(rest: bytes, plaintext: bytes) -> bytes:
            number = self._used + 1
            self._used = number
            nonce = number.to_bytes(NONCE_BYTES, "little")
            stored = (number | flag).to_bytes(4, "big")
            return front + stored + encrypt(nonce, plaintext, prefix + rest)

        return seal

    @property
    def count(self) -> int:
        """One more than the highest number used."""
        return self._used + 1


class RowSealer:
    """Seals and opens fields under one seed.

    Args:
        seed: 32 secret bytes.
        seed_id: Name of the seed, bound to every field.
        context: What the store is (cluster id, epoch, ...), bound to every field.
    """

    def __init__(self, seed: bytes, seed_id: str, context: bytes) -> None:
        ensure(len(seed) == KEY_BYTES, "seeds have 32 bytes")
        self._seed = seed
        name = seed_id.encode()
        self._prefix = b"".join(
            (len(name).to_bytes(2, "big"), name, len(context).to_bytes(2, "big"), context)
        )
        self._derived: OrderedDict[bytes, Aead] = OrderedDict()
        self._lock = Lock()  # writer and readers of the history share a sealer

    def begin(self) -> SealBatch:
        """A batch with fresh random bytes."""
        info = os.urandom(INFO_BYTES)
        return SealBatch(info, self._derive(info), self._prefix)

    def open(self, info: bytes, number: int, aad: bytes, ciphertext: bytes) -> bytes:
        """The plaintext of one field.

        Raises:
            SealBroken: the field, or anything it is bound to, is not what was written.
        """
        return self._key(info).open(number, self._prefix + aad, ciphertext)

    def opener(self, info: bytes) -> Callable[[int, bytes, bytes], bytes]:
        """``open`` for fields of one batch: takes (number, associated data, ciphertext).

        For a run of fields; it keeps the batch's derived key for as long as it lives.
        """
        open_field, prefix = self._key(info).open, self._prefix
        return lambda number, aad, ciphertext: open_field(number, prefix + aad, ciphertext)

    def _key(self, info: bytes) -> Aead:
        """The derived key of a batch; a derivation costs several times an opening."""
        if len(info) != INFO_BYTES:
            raise SealBroken("seal batch of the wrong length")
        with self._lock:
            aead = self._derived.get(info)
            if aead is not None:
                self._derived.move_to_end(info)
                return aead
        aead = self._derive(info)
        with self._lock:
            self._derived[info] = aead
            if len(self._derived) > DERIVED_KEPT:
                self._derived.popitem(last=False)
        return aead

    def _derive(self, info: bytes) -> Aead:
        hkdf = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info + LABEL)
        return Aead(hkdf.derive(self._seed))
