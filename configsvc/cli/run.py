"""From words to an exit code: the frame around every command."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from typing import Final

from configsvc.cli.arguments import names_in
from configsvc.cli.exits import CliError, Exit, exit_of, line_of
from configsvc.cli.output import escape
from configsvc.cli.session import Session
from configsvc.cli.settings import refuse_secrets
from configsvc.cli.stopping import signal_of
from configsvc.errors import ConfigServiceError

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


def run_words(words: Sequence[str]) -> int:
    """Parse and carry out; every outcome becomes an exit code."""
    try:
        refuse_secrets(words, os.environ)
        from configsvc.cli.tree import build_parser

        head, command = split_command(words)
        args = build_parser(head).parse_args(head)
        args.command = command
    except CliError as error:
        return _fail(error)
    except SystemExit as stop:  # argparse: --help or usage
        return stop.code if isinstance(stop.code, int) else int(Exit.USAGE)
    session = Session(args)
    try:
        code = int(args.run(session))
        sys.stdout.flush()
        return code
    except ConfigServiceError as error:
        return _fail(error, session.about_certificate(error))
    except KeyboardInterrupt as interrupt:
        return 128 + signal_of(interrupt)
    except BrokenPipeError:
        # The reader went away, as `head` does: no complaint, and none at exit either.
        _drop_output()
        return int(Exit.OK)
    except Exception as error:  # noqa: BLE001 - the last line of defence: no traceback, no secret
        if isinstance(error, OSError) and error.errno in _FULL and error.filename is None:
            return _output_failed(error)
        where = error.__traceback__
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        place = f"{where.tb_frame.f_code.co_name}:{where.tb_lineno}" if where else "?"
        print(f"configctl: a bug: {type(error).__name__} in {place}", file=sys.stderr)
        return int(Exit.BUG)
    finally:
        session.close()


def split_command(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take what follows ``--`` away from commands that run a program of the user's."""
    if "--" not in words:
        return list(words), []
    at = list(words).index("--")
    names = names_in(words)
    if names[:1] in (["lock"], ["elect"]) or names[:2] == ["service", "register"]:
        return list(words[:at]), list(words[at + 1 :])
    return list(words), []


def _output_failed(error: OSError) -> int:
    """What was asked for may have happened; whoever asked was not told."""
    _drop_output()
    print(f"configctl: standard output: {error.strerror}", file=sys.stderr)
    return int(Exit.UNAVAILABLE)


def _drop_output() -> None:
    """Nothing more can be written, and the interpreter must not try at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(error: ConfigServiceError, more: str = "") -> int:
    print(f"configctl: {escape(line_of(error) + more)}", file=sys.stderr)
    return int(exit_of(error))
