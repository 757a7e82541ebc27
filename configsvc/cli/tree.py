"""All commands of ``configctl``, in the order in which ``--help`` shows them.

Only the module that a command line needs is loaded: start-up is most of a quick command's time.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Final

from configsvc import __version__
from configsvc.cli.arguments import Parser, names_in, new_parser

_MODULES: Final = {
    "kv": ("put", "get", "del", "watch", "compact"),
    "txn": ("txn",),
    "history": ("log", "blame", "diff", "rollback"),
    "member": ("member",),
    "cluster": ("status", "alarm", "defrag", "move-leader", "snapshot"),
    "lease": ("lease",),
    "audit": ("audit",),
    "auth": ("login", "user", "role"),
    "policy": ("policy", "can-i"),
    "deny": ("deny",),
    "fleet": ("fleet",),
    "lock": ("lock", "elect"),
    "service": ("service",),
    "migrate": ("migrate",),
    "pki": ("pki",),
    "debug": ("debug",),
    "completion": ("completion",),
}
_HOMES: Final = {name: module for module, names in _MODULES.items() for name in names}


def build_parser(words: Sequence[str] = ()) -> Parser:
    """The part of the tree that these words need, or all of it; imports no gRPC."""
    parser, commands = new_parser(__version__)
    first = names_in(words)[:1]
    home = _HOMES.get(first[0]) if first else None
    for module in _MODULES if home is None else (home,):
        import_module(f"configsvc.cli.commands_{module}").register(commands)
    return parser
