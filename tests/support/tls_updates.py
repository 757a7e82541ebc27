"""TLS 1.3 records made by hand: the KeyUpdate messages that Python's ``ssl`` cannot send.

The secret comes from the key log of the client's context. After the first record made here the
``ssl`` object no longer knows the client's keys: it may read on, and not write.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

HANDSHAKE: Final = 22  # types of what is inside a record
APPLICATION_DATA: Final = 23


def client_secret(key_log: Path) -> bytes:
    """The first secret of the client's records in the newest connection of a key log."""
    lines = key_log.read_text().splitlines()
    told = [line.split()[2] for line in lines if line.startswith("CLIENT_TRAFFIC_SECRET_0 ")]
    return bytes.fromhex(told[-1])


class Records:
    """The client's records from now on, for the AES-GCM suites; ``sent`` counts those before."""

    def __init__(self, secret: bytes, sent: int = 0) -> None:
        # The digest's length tells the suite: AES-256 goes with SHA-384, AES-128 with SHA-256.
        wide = len(secret) == hashes.SHA384.digest_size
        self._digest: hashes.HashAlgorithm = hashes.SHA384() if wide else hashes.SHA256()
        self._key_bytes = 32 if wide else 16
        self._take(secret)
        self._sent = sent

    def _take(self, secret: bytes) -> None:
        self._secret = secret
        self._cipher = AESGCM(self._expand(b"key", self._key_bytes))
        self._iv = int.from_bytes(self._expand(b"iv", 12), "big")
        self._sent = 0

    def _expand(self, label: bytes, size: int) -> bytes:
        full = b"tls13 " + label
        info = size.to_bytes(2, "big") + bytes((len(full),)) + full + b"\0"
        return HKDFExpand(self._digest, size, info).derive(self._secret)

    def record(self, kind: int, content: bytes, padding: int = 0) -> bytes:
        """One record with ``content`` of that kind, and zeros behind it."""
        inner = content + bytes((kind,)) + bytes(padding)
        head = b"\x17\x03\x03" + (len(inner) + 16).to_bytes(2, "big")
        nonce = (self._iv ^ self._sent).to_bytes(12, "big")
        self._sent += 1
        return head + self._cipher.encrypt(nonce, inner, head)

    def key_update(self, *, asked: bool) -> bytes:
        """Change the keys; ``asked`` wants the other side to do the same, which answers."""
        made = self.record(HANDSHAKE, b"\x18\0\0\1" + bytes((asked,)))
        self._take(self._expand(b"traffic upd", self._digest.digest_size))
        return made

    def data(self, content: bytes, padding: int = 0) -> bytes:
        """One record of application data; empty ones are allowed."""
        return self.record(APPLICATION_DATA, content, padding)
