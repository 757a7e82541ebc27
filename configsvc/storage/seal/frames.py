"""Sealing of log frames: a random key per segment, the frame number as nonce (W2, ENC-2)."""

from __future__ import annotations

from configsvc.errors import ensure
from configsvc.storage.seal.aead import Aead


class FrameSealer:
    """Seals the frames of one segment; numbers only grow, so no (key, nonce) repeats."""

    __slots__ = ("_aead", "_last")

    def __init__(self, key: bytes) -> None:
        self._aead = Aead(key)
        self._last = -1

    def seal(self, frame_number: int, header: bytes, payload: bytes) -> bytes:
        """Ciphertext of a frame's payload; ``header`` (without its CRCs) is bound to it."""
        ensure(frame_number > self._last, "a frame number is used once per segment key")
        self._last = frame_number
        return self._aead.seal(frame_number, header, payload)

    def open(self, frame_number: int, header: bytes, ciphertext: bytes) -> bytes:
        """The payload.

        Raises:
            SealBroken: the frame is not what was written.
        """
        return self._aead.open(frame_number, header, ciphertext)
