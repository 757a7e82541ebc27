"""The ``configsvc`` command: one member process.

``--version`` and ``--help`` answer before anything heavy is imported (P13).
"""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Parse, then run a member until a signal; the exit code says why it ended."""
    from configsvc import __version__
    from configsvc.config import ADVERTISED_ETCD_VERSION
    from configsvc.errors import ConfigError
    from configsvc.server.flags import help_text, parse

    argv = sys.argv[1:]
    check_only = argv[:1] == ["check-config"]
    try:
        parsed = parse(argv[1:] if check_only else argv, os.environ)
    except ConfigError as error:
        print(f"configsvc: {error}", file=sys.stderr)
        if error.remedy:
            print(f"  {error.remedy}", file=sys.stderr)
        return int(error.code)
    if parsed.version:
        print(f"configsvc Version: {__version__}")
        print(f"etcd Version: {ADVERTISED_ETCD_VERSION}")
        return 0
    if parsed.help:
        print(help_text())
        return 0
    from configsvc.server.etcd_tokens import open_etcd_tokens

    try:
        open_etcd_tokens(parsed.config)  # its key files are judged before anything is made
    except ConfigError as error:
        print(f"configsvc: {error}\n  {error.remedy}", file=sys.stderr)
        return int(error.code)
    if check_only:
        for warning in parsed.warnings:
            print(f"warning: {warning}")
        print("settings are usable")
        return 0
    from configsvc.server.dev_key import make_dev_key
    from configsvc.server.run import main as run

    try:
        make_dev_key(parsed.config)
    except ConfigError as error:
        print(f"configsvc: {error}\n  {error.remedy}", file=sys.stderr)
        return int(error.code)
    return run(parsed.config, parsed.warnings)


if __name__ == "__main__":
    sys.exit(main())
