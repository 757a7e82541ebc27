"""How the configuration of every agent under test begins, and ``.format`` for it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

HEAD = """\
version = 1
[agent]
node = "n1"
state_dir = "{base}/state"
[store]
endpoints = [{endpoints}]
"""


def configuration(rest: str, base: Path, urls: Iterable[str], **parts: object) -> str:
    """``HEAD`` and what follows it, filled in; ``rest`` goes on within ``[store]``."""
    endpoints = ", ".join(f'"{url}"' for url in urls)
    return (HEAD + rest).format(base=base, endpoints=endpoints, **parts)
