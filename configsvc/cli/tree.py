"""All commands of ``configctl``, in the order in which ``--help`` shows them."""

from __future__ import annotations

from configsvc import __version__
from configsvc.cli import (
    commands_audit,
    commands_auth,
    commands_cluster,
    commands_completion,
    commands_debug,
    commands_fleet,
    commands_history,
    commands_kv,
    commands_lease,
    commands_lock,
    commands_pki,
    commands_policy,
    commands_service,
    commands_txn,
)
from configsvc.cli.arguments import Parser, new_parser

_GROUPS = (
    commands_kv,
    commands_txn,
    commands_history,
    commands_cluster,
    commands_lease,
    commands_audit,
    commands_auth,
    commands_policy,
    commands_fleet,
    commands_lock,
    commands_pki,
    commands_service,
    commands_debug,
    commands_completion,
)


def build_parser() -> Parser:
    """The whole tree; imports no gRPC."""
    parser, commands = new_parser(__version__)
    for group in _GROUPS:
        group.register(commands)
    return parser
