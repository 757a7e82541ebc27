"""All commands of ``configctl``, in the order in which ``--help`` shows them."""

from __future__ import annotations

from configsvc import __version__
from configsvc.cli import (
    commands_auth,
    commands_cluster,
    commands_history,
    commands_kv,
    commands_lease,
)
from configsvc.cli.arguments import Parser, new_parser

_GROUPS = (
    commands_kv,
    commands_history,
    commands_cluster,
    commands_lease,
    commands_auth,
)


def build_parser() -> Parser:
    """The whole tree; imports no gRPC."""
    parser, commands = new_parser(__version__)
    for group in _GROUPS:
        group.register(commands)
    return parser
