"""What identity can say no with. The texts are constants of ours and safe to record."""

from __future__ import annotations

from configsvc.errors import ConfigServiceError, InvalidArgumentError


class IdentityError(ConfigServiceError):
    """Root of this room's refusals."""


class CertificateRejected(IdentityError):
    """A leaf that is no acceptable identity; ``reason`` is for our own records only."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class BundleRejected(IdentityError):
    """A trust bundle with something in it that must not be an anchor (PKI-2, N62)."""


class IssueRefused(InvalidArgumentError):
    """A certificate that may not be issued: kind, name, host, lifetime or request."""


class InvalidToken(IdentityError):
    """A token that is not good. Callers say no more than that."""


class PasswordRefused(IdentityError):
    """A new password that breaks a rule; the text names the rule, never the password."""


class PoolFull(IdentityError):
    """Too many password computations wait."""
