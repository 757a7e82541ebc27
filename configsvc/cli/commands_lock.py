"""``lock`` and ``elect``: run a command while holding a lock or leading.

Always true: the command is stopped as soon as the lease may be gone. Even so it can be late, by a
stalled machine for example: whatever it changes should refuse smaller fencing tokens than the
largest it has seen. The token grows from holder to holder.

Away from a terminal the command leads a process group of its own, and signals go to the whole
group: nothing it started outlives the lock. On a terminal Ctrl-C reaches it anyway, and it must
be able to read there, so it shares our group.

A killed holder (SIGKILL) can stop nothing any more: a guard that hears of its end does, well before
the lease runs out and the next holder starts.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Final

from configsvc.cli.arguments import Commands, Parser, add_why, key_bytes, number
from configsvc.cli.exits import CliError, Exit
from configsvc.cli.output import escape, json_bytes
from configsvc.cli.stopping import Stopped, orderly, signal_of

if TYPE_CHECKING:
    from configsvc.cli.session import Session
    from configsvc.client import LeaseKeeper

_GRACE_S: Final = 5.0  # from SIGTERM to SIGKILL of a command that lost its lock
_TTL_S: Final = 10
_GUARD: Final = """
read -r target || exit 0
read -r _
kill -s TERM -- "$target"; sleep 1; kill -s KILL -- "$target"
"""


def register(commands: Commands) -> None:
    """Add the commands."""
    lock = commands.add("lock", "run a command while holding a lock", run_lock)
    lock.add_argument("name", metavar="NAME", type=_name)
    _shared(lock)
    elect = commands.add("elect", "run a command while leading, or show who leads", run_elect)
    elect.add_argument("name", metavar="NAME", type=_name)
    elect.add_argument("--value", default="", metavar="TEXT", help="what others see of the leader")
    elect.add_argument("--show", action="store_true", help="only say who leads")
    _shared(elect)


def _name(text: str) -> str:
    """Without a name every key there is would be a holder, to be waited for."""
    if not text.strip("/"):
        raise argparse.ArgumentTypeError(f"{text!r} is no name")
    return text


def _shared(parser: Parser) -> None:
    parser.add_argument(
        "--ttl", type=number(1), default=_TTL_S, metavar="SECONDS", help="of the lease"
    )
    parser.epilog = "The command to run follows after --, as: -- rsync -a /src /dst"
    add_why(parser)


def run_lock(session: Session) -> int:
    return _hold(session, b"")


def run_elect(session: Session) -> int:
    if session.args.show:
        return _show_leader(session)
    return _hold(session, key_bytes(session.args.value))


def _hold(session: Session, value: bytes) -> int:
    from configsvc.client import LeaseLostError, acquire, hold_lease

    args = session.args
    check_command(args.command)
    with orderly(), hold_lease(session.client, args.ttl, why=session.why) as keeper:
        try:
            name = key_bytes(args.name)
            held = acquire(session.client, name, keeper, value=value, why=session.why)
            return run_fenced(session, keeper, held.key, held.token)
        except LeaseLostError as error:
            raise CliError(Exit.CONFLICT, str(error)) from None
        finally:
            _let_go(session, keeper)


def _show_leader(session: Session) -> int:
    from configsvc.client import current_leader

    kv = current_leader(session.client, key_bytes(session.args.name))
    if kv is None:
        raise CliError(Exit.NO, f"{session.args.name}: nobody leads")
    if session.out.as_json:
        shown = {**json_bytes("key", kv.key), **json_bytes("value", kv.value)}
        session.out.json({**shown, "fencing_token": kv.create_revision})
    else:
        session.out.line(f"{escape(kv.value)} (fencing token {kv.create_revision})")
    return Exit.OK


def check_command(command: list[str]) -> None:
    """Stop before anything is held for a command that cannot be run.

    Raises:
        CliError: usage; there is no such program.
    """
    if command and shutil.which(command[0]) is None:
        raise CliError(Exit.USAGE, f"{command[0]}: no such command")


def _let_go(session: Session, keeper: LeaseKeeper) -> None:
    """Revoke the lease: the key goes, the next holder need not wait for the TTL."""
    from configsvc.client import operations
    from configsvc.errors import ConfigServiceError

    if keeper.lost.is_set():
        return
    try:
        session.client.do(operations.lease_revoke(keeper.lease_id))
    except ConfigServiceError as error:
        session.warn(f"the lease runs out by itself, it could not be revoked: {error}")


def run_fenced(session: Session, keeper: LeaseKeeper, key: bytes, token: int) -> int:
    """Run the command, or hold on until interrupted when there is none.

    Returns the command's exit code; a command killed by a signal gives 128 + its number.

    Raises:
        CliError: conflict; the lease was lost, the command was stopped.
    """
    command: list[str] = session.args.command
    if not command:
        session.out.done(
            f"{escape(key)} held, fencing token {token}",
            fencing_token=token,
            **json_bytes("key", key),
        )
        session.out.flush()
        keeper.lost.wait()
        raise CliError(Exit.CONFLICT, "the lease is gone")
    environment = {
        **os.environ,
        "CONFIGCTL_FENCING_TOKEN": str(token),
        "CONFIGCTL_LOCK_KEY": os.fsdecode(key),
        "CONFIGCTL_LEASE": f"{keeper.lease_id & 0xFFFFFFFFFFFFFFFF:x}",
    }
    child = _Child(command, environment)
    done = threading.Event()
    watcher = threading.Thread(
        target=_stop_when_lost, args=(keeper, child, done), name="lock-watcher", daemon=True
    )
    watcher.start()
    code = child.wait()
    done.set()
    watcher.join()
    if keeper.lost.is_set():
        raise CliError(Exit.CONFLICT, "the lease was lost, the command was stopped")
    return code if code >= 0 else 128 - code


class _Child:
    """The command, with what it starts."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._apart = not (sys.stdin and sys.stdin.isatty())
        self._guard = _Guard()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the user's own command
                command, env=environment, process_group=0 if self._apart else None
            )
        except BaseException:
            self._guard.dismiss()
            raise
        self._guard.watch(-self._process.pid if self._apart else self._process.pid)

    def send(self, signum: int) -> None:
        """Signal it; no effect once it has ended."""
        if not self._apart:
            self._process.send_signal(signum)
        elif self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signum)

    def wait(self) -> int:
        """Wait; what interrupts us is handed on, and the command decides."""
        try:
            while True:
                try:
                    return self._process.wait()
                except KeyboardInterrupt as interrupt:
                    if self._apart or isinstance(interrupt, Stopped):
                        self.send(signal_of(interrupt))
        finally:
            self._guard.dismiss()


class _Guard:
    """A process that ends the command when its input ends, as it does when we are gone."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - a constant and a number
            ["/bin/sh", "-c", _GUARD, "configctl-guard", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # what is sent to our group is not meant for it
        )

    def watch(self, target: int) -> None:
        """Tell whom to end: a process, or a group if negative."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(b"%d\n" % target)

    def dismiss(self) -> None:
        """End it before its input ends: the number may be another's by then."""
        self._process.kill()
        self._process.communicate()


def _stop_when_lost(keeper: LeaseKeeper, child: _Child, done: threading.Event) -> None:
    while not done.wait(0.05):
        if keeper.lost.is_set():
            child.send(signal.SIGTERM)
            if not done.wait(_GRACE_S):
                child.send(signal.SIGKILL)
            return
