"""Certificates for the tests of this folder."""

from __future__ import annotations

from hypothesis import settings

from tests.support.pki import pki

__all__ = ["pki"]

settings.register_profile("no-deadline", deadline=None)  # machines are shared and slow at times
settings.load_profile("no-deadline")
