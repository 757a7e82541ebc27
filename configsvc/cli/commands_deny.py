"""``deny``: certificates, identities and tokens that the cluster refuses from now on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from configsvc.cli.arguments import Commands, Parser, add_why
from configsvc.cli.exits import CliError, Exit
from configsvc.cli.output import escape
from configsvc.cli.times import parse_deadline, show_time

if TYPE_CHECKING:
    from configsvc.cli.session import Session
    from configsvc.proto import v1_pb2

_KINDS: Final = ("serial", "identity", "jti", "kid")
_ENDED: Final = ("user", "all")
_VALUE: Final = (
    "a certificate's serial (hex), an identity (user/NAME, agent/NAME, a URI), "
    "a token's jti, a token key's kid"
)


def register(commands: Commands) -> None:
    """Add the commands."""
    deny = commands.group("deny", "certificates, identities and tokens that are refused")
    add = deny.add("add", "refuse it on every member from now on, open watches included", run_add)
    add.add_argument("kind", choices=_KINDS + _ENDED, help="all: every token of before")
    add.add_argument("value", metavar="VALUE", nargs="?", default="", help=f"{_VALUE}, a user")
    add.add_argument("--until", metavar="TIME", help="a time, or how long from now, as 30d")
    add.add_argument("--allow-lockout", action="store_true", help="even if it shuts you out")
    add_why(add)
    remove = deny.add("remove", "let it in again", run_remove)
    _entry(remove)
    add_why(remove)
    deny.add("list", "what is refused", run_list)


def _entry(parser: Parser) -> None:
    parser.add_argument("kind", choices=_KINDS)
    parser.add_argument("value", metavar="VALUE", help=_VALUE)


def _value(kind: str, text: str) -> str:
    """``text`` as a member wants it: serials come as openssl, browsers and people write them."""
    if kind == "serial":
        digits = text.lower().removeprefix("serial=").replace(":", "")
        return digits.removeprefix("0x").lstrip("0")
    return text


def _fields(entry: v1_pb2.Denial) -> dict[str, str]:
    return {"kind": entry.what, "value": entry.value, "until": show_time(entry.until_ns)}


def run_add(session: Session) -> int:
    from configsvc.client import inquiries

    args = session.args
    if (args.kind == "all") == bool(args.value):
        raise CliError(Exit.USAGE, "give a VALUE, and none with all")
    operation = inquiries.deny_add(
        args.kind,
        _value(args.kind, args.value),
        until_ns=parse_deadline(args.until, time.time_ns()) if args.until else 0,
        allow_lockout=args.allow_lockout,
    )
    entry = session.client.do(operation, why=session.why).entry
    if args.kind in _ENDED:
        whose = f"of user {escape(entry.value)}" if entry.value else "of everybody"
        session.out.done(f"tokens {whose} have ended", kind=entry.what, value=entry.value)
    else:
        until = show_time(entry.until_ns) or "somebody removes it"
        line = f"{entry.what} {escape(entry.value)} is denied until {until}"
        session.out.done(line, **_fields(entry))
    return Exit.OK


def run_remove(session: Session) -> int:
    from configsvc.client import inquiries

    args = session.args
    operation = inquiries.deny_remove(args.kind, _value(args.kind, args.value))
    entry = session.client.do(operation, why=session.why).entry
    line = f"{entry.what} {escape(entry.value)} is not denied any more"
    session.out.done(line, kind=entry.what, value=entry.value)
    return Exit.OK


def run_list(session: Session) -> int:
    from configsvc.client import inquiries

    found: list[v1_pb2.Denial] = []
    more = True
    while more:
        answer = session.client.do(inquiries.deny_list(after=found[-1] if found else None))
        found += answer.entries
        more = answer.more and bool(answer.entries)
    if session.out.as_json:
        session.out.json([_fields(entry) for entry in found])
        return Exit.OK
    rows = [(entry.what, entry.value, show_time(entry.until_ns) or "-") for entry in found]
    session.out.table(("KIND", "VALUE", "UNTIL"), rows)
    return Exit.OK
