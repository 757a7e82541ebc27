"""``configctl``: the operator's command line.

Always true: ``--version`` loads nothing; gRPC loads only when a command talks to a cluster; every
failure is one line on standard error and one of the exit codes of ``cli.exits``; no traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from configsvc import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words == ["--version"]:
        print(f"configctl {__version__}")
        return 0
    from configsvc.cli.run import run_words

    return run_words(words)


if __name__ == "__main__":
    sys.exit(main())
