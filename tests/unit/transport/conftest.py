"""Certificates for the tests of this folder."""

from __future__ import annotations

from tests.support.pki import pki

__all__ = ["pki"]
