"""What sealing can say no with."""

from __future__ import annotations

from configsvc.errors import ConfigServiceError


class SealBroken(ConfigServiceError):
    """Ciphertext, or something it is bound to, is not what was written. Never an empty value."""
