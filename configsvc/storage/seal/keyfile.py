"""The key-encryption key in a file outside the data directory (ENC-4).

The file is one line: format, key id, 32 random bytes in base64. It is 0600 and never in a backup.
What it wraps (segment keys, seeds) is stored with its key id, so a wrong file is told apart from
damage.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import stat
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from configsvc.errors import ConfigError
from configsvc.storage.seal.aead import KEY_BYTES, NONCE_BYTES, TAG_BYTES
from configsvc.storage.seal.errors import SealBroken

FORMAT: Final = "configsvc-kek-v1"
FILE_BYTES_MAX: Final = 4_096


class KeyFile:
    """One key-encryption key: wraps and unwraps short secrets.

    ``key_id`` is 16 hex digits made from the key; it may be shown and stored.
    """

    def __init__(self, key: bytes, path: str = "") -> None:
        """``key``: 32 secret bytes; ``path`` is for messages only."""
        self.path = path
        self.key_id = hashlib.sha256(b"configsvc/kek-id/v1" + key).hexdigest()[:16]
        self._gcm = AESGCM(key)

    def __repr__(self) -> str:
        return f"KeyFile(key_id={self.key_id})"

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> KeyFile:
        """Make a new key in a new file, 0600, synced.

        Raises:
            ConfigError: the file exists already or cannot be written; exit 78.
        """
        key = os.urandom(KEY_BYTES)
        made = cls(key, str(path))
        line = f"{FORMAT} {made.key_id} {base64.b64encode(key).decode()}\n"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            raise ConfigError(
                f"key file {path}: {error.strerror}", "name a new file in an existing directory"
            ) from None
        try:
            os.write(descriptor, line.encode())
            os.fsync(descriptor)
        except OSError as error:
            os.unlink(path)  # half a key would be taken for damage later
            raise ConfigError(f"key file {path}: {error.strerror}", "see to its disk") from None
        finally:
            os.close(descriptor)
        parent = os.open(Path(path).resolve().parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
        return made

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, data_dir: str | os.PathLike[str] | None = None
    ) -> KeyFile:
        """Read a key.

        Args:
            path: The file; not a symlink.
            data_dir: The key must lie outside: who copies the one shall not get the other.

        Raises:
            ConfigError: missing, reachable by others, not a key file, or inside ``data_dir``;
                exit 78, nothing touched.
        """
        if data_dir is not None and Path(path).resolve().is_relative_to(Path(data_dir).resolve()):
            raise ConfigError(
                f"key file {path}: lies inside the data directory", "move it out of there"
            )
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise ConfigError(
                f"key file {path}: {error.strerror}",
                "bring the key back, or name it with --encryption-key-file",
            ) from None
        try:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode):
                raise ConfigError(f"key file {path}: not a regular file", "name a regular file")
            if facts.st_mode & 0o077:
                raise ConfigError(f"key file {path}: others may reach it", f"chmod 600 {path}")
            if facts.st_uid not in (os.geteuid(), 0):
                raise ConfigError(f"key file {path}: owned by somebody else", f"chown it: {path}")
            raw = os.read(descriptor, FILE_BYTES_MAX + 1)
        finally:
            os.close(descriptor)
        return cls._parse(raw, str(path))

    @classmethod
    def _parse(cls, raw: bytes, path: str) -> KeyFile:
        parts = raw.decode("ascii", "replace").split()
        problem = ConfigError(
            f"key file {path}: not a {FORMAT} file",
            "restore the file that this store was made with",
        )
        if len(parts) != 3 or parts[0] != FORMAT:
            raise problem
        try:
            key = base64.b64decode(parts[2], validate=True)
        except (binascii.Error, ValueError):
            raise problem from None
        if len(key) != KEY_BYTES:
            raise problem
        made = cls(key, path)
        if made.key_id != parts[1]:
            raise problem
        return made

    def wrap(self, seed: bytes, aad: bytes) -> bytes:
        """``seed`` sealed under this key with a random nonce."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._gcm.encrypt(nonce, seed, aad)

    def unwrap(self, blob: bytes, aad: bytes) -> bytes:
        """What ``wrap`` sealed.

        Raises:
            SealBroken: another key, other associated data, or damaged bytes.
        """
        if len(blob) < NONCE_BYTES + TAG_BYTES:
            raise SealBroken("wrapped key is cut short")
        try:
            return self._gcm.decrypt(blob[:NONCE_BYTES], blob[NONCE_BYTES:], aad)
        except InvalidTag:
            raise SealBroken("wrapped key does not open") from None
