"""``completion``: scripts for the shell, made from the command tree itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from configsvc.cli.arguments import Commands
from configsvc.cli.exits import Exit

if TYPE_CHECKING:
    from configsvc.cli.session import Session


def register(commands: Commands) -> None:
    """Add the command."""
    completion = commands.add("completion", "print a completion script", run_completion)
    completion.add_argument("shell", choices=("bash", "zsh", "tcsh"))


def run_completion(session: Session) -> int:
    import shtab

    from configsvc.cli.tree import build_parser

    session.out.line(shtab.complete(build_parser(), shell=session.args.shell).rstrip("\n"))
    return Exit.OK
