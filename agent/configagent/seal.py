"""The node's own secret, and what is kept under it.

One 32-byte key per node, in a private file. From it come the keys of stored generations and stored
inputs (AES-256-GCM, bound to what they belong to) and the key of digests that must not let anybody
guess a short secret (J2).
"""

from __future__ import annotations

import marshal
import os
import secrets
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from configagent.config import check_secret_file
from configagent.errors import SettingsError
from configagent.paths import write_new

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
Contents = dict[str, bytes]


class NodeKey:
    """The node's key and what is derived from it."""

    def __init__(self, key: bytes, node: str) -> None:
        self._aead = AESGCM(_derive(key, b"configagent generation"))
        self._inputs = AESGCM(_derive(key, b"configagent inputs"))
        self._node = node
        self.digest_key = _derive(key, b"configagent digest")

    def seal(self, set_name: str, generation: int, contents: Contents) -> bytes:
        """Contents of a generation, readable on this node only."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        bound = self._bound(set_name, generation)
        return nonce + self._aead.encrypt(nonce, marshal.dumps(contents), bound)

    def open(self, set_name: str, generation: int, sealed: bytes) -> Contents:
        """The contents again.

        Raises:
            ValueError: changed, of another node, set or generation.
        """
        bound = self._bound(set_name, generation)
        try:
            plain = self._aead.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound)
        except InvalidTag:
            raise ValueError(f"generation {generation} of {set_name} was changed") from None
        found: Contents = marshal.loads(plain)  # noqa: S302  # authenticated above
        return found

    def seal_inputs(self, bound: str, plain: bytes) -> bytes:
        """Inputs of a set; ``bound`` names the only place where they may be opened again."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._inputs.encrypt(nonce, plain, f"{self._node}\0{bound}".encode())

    def open_inputs(self, bound: str, sealed: bytes) -> bytes:
        """The inputs again.

        Raises:
            ValueError: changed, or of another place.
        """
        nonce, text = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            return self._inputs.decrypt(nonce, text, f"{self._node}\0{bound}".encode())
        except InvalidTag:
            raise ValueError("the inputs were changed") from None

    def _bound(self, set_name: str, generation: int) -> bytes:
        return f"{self._node}\0{set_name}\0{generation}".encode()


def _derive(key: bytes, purpose: bytes) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, None, purpose).derive(key)


def load_key(path: str, node: str, *, create: bool) -> NodeKey:
    """Read the key file; ``create`` makes one where there is none.

    Raises:
        SettingsError: missing, too short.
        InsecureError: others may read it.
    """
    if create and not os.path.exists(path):
        folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
        try:
            write_new(
                folder, os.path.basename(path), secrets.token_bytes(KEY_BYTES), 0o600,
                os.geteuid(), os.getegid(),
            )  # fmt: skip
            os.fsync(folder)
        finally:
            os.close(folder)
    check_secret_file(path)
    with open(path, "rb") as file:
        key = file.read(4 * KEY_BYTES)
    if len(key) < KEY_BYTES:
        raise SettingsError(f"{path}: a key needs {KEY_BYTES} bytes")
    return NodeKey(key[:KEY_BYTES], node)
