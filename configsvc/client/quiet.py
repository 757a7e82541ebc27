"""gRPC, loaded so that its core writes nothing to standard error.

It logs each failed handshake there, in several lines of its own; what it says in an error's text
is what callers get and show (``errors.explain``). The core looks at the environment once, when it
is loaded: children of this process see nothing of it. Whoever sets ``GRPC_VERBOSITY`` is heeded.

Always true: loaded before any module of this package that loads gRPC.
"""

from __future__ import annotations

import os
from typing import Final

_NAME: Final = "GRPC_VERBOSITY"


def _load() -> None:
    ours = _NAME not in os.environ
    if ours:
        os.environ[_NAME] = "NONE"
    try:
        import grpc  # noqa: F401
    finally:
        if ours:
            del os.environ[_NAME]


_load()
