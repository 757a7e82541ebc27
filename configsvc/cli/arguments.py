"""Argument parsing shared by all commands.

Global options may stand before or after the command. An error is one line that names the way
out, exit 2. Nothing here imports gRPC: starting up must be quick.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn

from configsvc.cli.exits import Exit

if TYPE_CHECKING:
    from configsvc.cli.session import Session

Run = Callable[["Session"], int]


VALUE_FLAGS: Final = {
    "--endpoints": ("URLS", "https://host:port,… of any members"),
    "--cacert": ("FILE", "the cluster's server CA, PEM"),
    "--cert": ("FILE", "your certificate, PEM"),
    "--key": ("FILE", "its private key, PEM"),
    "--user": ("NAME", "act with a token of this user as well"),
    "--token-file": ("FILE", "a token to send; - is standard input"),
    "--timeout": ("TIME", "for each call, as 5s (the default)"),
    "--context": ("FILE", "settings file, TOML"),
}


class Parser(argparse.ArgumentParser):
    """Parser with one-line errors and without abbreviations."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("allow_abbrev", False)
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**options)

    def error(self, message: str) -> NoReturn:
        """Print one line and exit 2."""
        line = " ".join(message.split())
        print(f"{self.prog}: {line} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(int(Exit.USAGE))


def _add_globals(parser: Parser, *, suppress: bool) -> None:
    absent: Any = argparse.SUPPRESS if suppress else None
    off: Any = argparse.SUPPRESS if suppress else False
    group = parser.add_argument_group("connection and output")
    hide: Any = argparse.SUPPRESS if suppress else None

    for flag, (metavar, help_) in VALUE_FLAGS.items():
        group.add_argument(flag, default=absent, help=hide or help_, metavar=metavar)
    for flag, help_ in (
        ("--json", "print JSON"),
        ("--raw", "print values as they are when the output is no terminal"),
    ):
        group.add_argument(flag, action="store_true", default=off, help=hide or help_)


def names_in(words: Sequence[str]) -> list[str]:
    """The words that are neither options nor values of global options, up to ``--``."""
    names: list[str] = []
    skip = False
    for word in words:
        if word == "--":
            break
        if skip or word.startswith("-"):
            skip = not skip and word in VALUE_FLAGS
        else:
            names.append(word)
    return names


class Commands:
    """A group of commands under construction."""

    def __init__(self, parser: Parser, shared: Parser) -> None:
        self._shared = shared
        self._actions = parser.add_subparsers(
            metavar="COMMAND", required=True, parser_class=Parser, dest=argparse.SUPPRESS
        )

    def add(self, name: str, help_: str, run: Run, **more: Any) -> Parser:
        """A command that ``run`` carries out."""
        parser: Parser = self._actions.add_parser(
            name, help=help_, description=help_, parents=[self._shared], **more
        )
        parser.set_defaults(run=run)
        return parser

    def group(self, name: str, help_: str) -> Commands:
        """A command with commands of its own."""
        parser = self._actions.add_parser(name, help=help_, description=help_)
        return Commands(parser, self._shared)


def new_parser(version: str) -> tuple[Parser, Commands]:
    """The empty top of the tree."""
    parser = Parser(
        prog="configctl",
        description="Operate a configsvc cluster: values, history, audit, rights, members.",
        epilog="exit: 0 ok, 1 no or not found, 2 usage, 3 denied, 4 unavailable or outcome "
        "unknown, 5 conflict, 78 configuration",
    )
    parser.add_argument("--version", action="version", version=f"configctl {version}")
    _add_globals(parser, suppress=False)
    shared = Parser(add_help=False)
    _add_globals(shared, suppress=True)
    return parser, Commands(parser, shared)


# --- options that several commands share ----------------------------------------------------------


def add_why(parser: Parser) -> None:
    """``--reason`` and ``--ticket`` of a change."""
    parser.add_argument("--reason", metavar="TEXT", help="why; kept with the change for ever")
    parser.add_argument("--ticket", metavar="ID", help="the change's ticket")


def add_yes(parser: Parser) -> None:
    """``--yes`` of a destructive command."""
    parser.add_argument("--yes", action="store_true", help="do it without asking")


def add_span(parser: Parser) -> None:
    """``--prefix`` and ``--from-key``."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--prefix", action="store_true", help="all keys that start with KEY")
    which.add_argument("--from-key", action="store_true", help="all keys from KEY on")
    which.add_argument("--range-end", metavar="END", help="all keys from KEY up to END, not END")


def number(least: int = 0) -> Callable[[str], int]:
    """An argument's type: a whole number from ``least`` on that a request's field can hold."""

    def read(text: str) -> int:
        try:
            found = int(text)
        except ValueError:
            found = least - 1
        if not least <= found < 2**63:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} on")
        return found

    return read


def seconds(text: str) -> float:
    """An argument's type: a pause in seconds, more than none."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return found


def key_bytes(text: str) -> bytes:
    """A key from the command line, whatever bytes it holds."""
    return text.encode("utf-8", "surrogateescape")


def span_of_args(args: argparse.Namespace) -> tuple[bytes, bytes]:
    """``key`` and ``range_end`` of a request."""
    from configsvc.client import prefix_span

    key = key_bytes(args.key_name)
    if args.prefix:
        return prefix_span(key)
    if args.from_key:
        return key or b"\0", b"\0"
    return key, key_bytes(args.range_end or "")
