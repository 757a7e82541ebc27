"""``policy check|test|show|load`` and ``can-i``: rules as files, and what they decide."""

from __future__ import annotations

import argparse
import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING

from configsvc import limits
from configsvc.cli.arguments import Commands, add_span, add_why, add_yes, number, span_of_args
from configsvc.cli.exits import CliError, Exit
from configsvc.cli.output import escape
from configsvc.errors import PolicyInvalidError

if TYPE_CHECKING:
    from configsvc.auth.bundle import Bundle
    from configsvc.cli.session import Session
    from configsvc.proto import v1_pb2


def register(commands: Commands) -> None:
    """Add the commands."""
    policy = commands.group("policy", "access rules as files")
    check = policy.add("check", "read a bundle as the server would", run_check)
    check.add_argument("file", metavar="FILE")
    test = policy.add("test", "run the tests that a bundle brings along", run_test)
    test.add_argument("file", metavar="FILE")
    policy.add("show", "print the running bundle", run_show)
    load = policy.add("load", "replace the running bundle", run_load)
    load.add_argument("file", metavar="FILE")
    load.add_argument("--allow-lockout", action="store_true", help="even if it shuts you out")
    add_why(load)
    add_yes(load)

    can_i = commands.add("can-i", "would an action be allowed, and why", run_can_i)
    can_i.add_argument("action", metavar="ACTION", help="as kv.put, kv.range, lease.grant")
    can_i.add_argument("key_name", metavar="KEY", nargs="?", default="")
    add_span(can_i)
    can_i.add_argument("--as", dest="as_whom", default="", metavar="KIND/NAME")
    can_i.add_argument("--explain", action="store_true", help="show every rule that was looked at")
    can_i.add_argument("--value-bytes", type=number(-1), default=-1, metavar="N")
    can_i.add_argument("--value-format", default="", metavar="FORMAT")
    can_i.add_argument("--source", type=_address, metavar="IP", help="as if from this address")
    add_why(can_i)


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no IP address") from None


def _source(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            data = file.read(limits.POLICY_BYTES_MAX + 1)
        if len(data) > limits.POLICY_BYTES_MAX:
            raise CliError(Exit.USAGE, f"{path}: larger than a bundle may be")
        return data.decode("utf-8")
    except OSError as error:
        raise CliError(Exit.USAGE, f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CliError(Exit.USAGE, f"{path}: is not UTF-8") from None


def _parsed(path: str) -> Bundle:
    from configsvc.auth.bundle import parse_bundle

    try:
        return parse_bundle(_source(path), path)
    except PolicyInvalidError as error:
        raise CliError(Exit.USAGE, str(error)) from None


def _tested(path: str) -> Bundle:
    from configsvc.auth.policy_tests import run_tests

    bundle = _parsed(path)
    failures = run_tests(bundle)
    if failures:
        first = "; ".join(str(failure) for failure in failures[:5])
        raise CliError(Exit.NO, f"{path}: {len(failures)} tests fail: {first}")
    return bundle


def run_check(session: Session) -> int:
    path = session.args.file
    policy = _parsed(path).policy
    session.out.done(f"{path}: ok", bundle=policy.name, version=policy.version)
    return Exit.OK


def run_test(session: Session) -> int:
    path = session.args.file
    policy = _tested(path).policy
    session.out.done(f"{path}: all tests pass", bundle=policy.name, version=policy.version)
    return Exit.OK


def run_show(session: Session) -> int:
    from configsvc.client import inquiries

    answer = session.client.do(inquiries.policy_show())
    if session.out.as_json:
        session.out.json(
            {
                "name": answer.name,
                "version": answer.version,
                "auth_revision": answer.auth_revision,
                "source": answer.source,
            }
        )
    else:
        session.out.line(f"# {escape(answer.name)}@{answer.version}")
        session.out.value(answer.source.encode())
    return Exit.OK


def run_load(session: Session) -> int:
    """Checked and tested here first: what the server would refuse is told sooner and with place."""
    from configsvc.client import inquiries

    args = session.args
    fresh = _tested(args.file).policy
    running = session.client.do(inquiries.policy_show())
    session.confirm(
        [
            f"replaces {running.name}@{running.version} by {fresh.name}@{fresh.version}: "
            "the new rules judge everything at once, open watches included"
        ]
    )
    operation = inquiries.policy_load(_source(args.file), allow_lockout=args.allow_lockout)
    answer = session.client.do(operation, why=session.why)
    session.out.done(
        f"running {escape(answer.name)}@{answer.version}",
        name=answer.name,
        version=answer.version,
    )
    return Exit.OK


# --- can-i ----------------------------------------------------------------------------------------


def run_can_i(session: Session) -> int:
    """0 allowed, 3 denied, 2 usage, 4 cannot tell."""
    from configsvc.client import inquiries
    from configsvc.proto import v1_pb2

    args, why = session.args, session.why
    key, end = span_of_args(args) if args.key_name or args.prefix else (b"", b"")
    answer = session.client.do(
        inquiries.can_i(
            v1_pb2.CanIRequest(
                action=args.action,
                key=key,
                range_end=end,
                **{"as": args.as_whom},
                reason=why.reason,
                ticket=why.ticket,
                value_bytes=args.value_bytes,
                explain=args.explain,
                value_format=args.value_format,
                source_ip=args.source or "",
            )
        )
    )
    _show_answer(session, answer)
    return Exit.OK if answer.allowed else Exit.DENIED


def _show_answer(session: Session, answer: v1_pb2.CanIResponse) -> None:
    if session.out.as_json:
        session.out.json(
            {
                "allowed": answer.allowed,
                "rule": answer.rule,
                "auth_revision": answer.auth_revision,
                "policy": answer.policy,
                "steps": [
                    {"kind": step.kind, "rule": step.rule, "verdict": step.verdict}
                    for step in answer.steps
                ],
            }
        )
        return
    verdict = "ALLOW" if answer.allowed else "DENY"
    session.out.line(
        f"{verdict}  rule={escape(answer.rule)}  auth_rev={answer.auth_revision}  "
        f"policy={escape(answer.policy)}"
    )
    if answer.steps:
        rows = [
            (number, step.kind, step.rule, step.verdict)
            for number, step in enumerate(answer.steps, start=1)
        ]
        session.out.table(("#", "KIND", "RULE", "VERDICT"), rows)
