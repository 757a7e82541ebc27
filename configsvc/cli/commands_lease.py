"""``lease``: keys that disappear by themselves."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from configsvc.cli.arguments import Commands, add_why, add_yes, number
from configsvc.cli.commands_kv import lease_id
from configsvc.cli.exits import CliError, Exit
from configsvc.cli.output import escape, json_bytes

if TYPE_CHECKING:
    from configsvc.cli.session import Session

_KEYS_SHOWN = 10


def register(commands: Commands) -> None:
    """Add the commands."""
    lease = commands.group("lease", "leases: keys that disappear by themselves")
    grant = lease.add("grant", "a new lease", run_grant)
    grant.add_argument("ttl", metavar="SECONDS", type=number(1))
    add_why(grant)
    revoke = lease.add("revoke", "end a lease and delete its keys", run_revoke)
    revoke.add_argument("lease", metavar="ID", type=lease_id)
    add_why(revoke)
    add_yes(revoke)
    keep = lease.add("keepalive", "renew a lease until interrupted", run_keepalive)
    keep.add_argument("lease", metavar="ID", type=lease_id)
    keep.add_argument("--once", action="store_true", help="renew once and end")
    ttl = lease.add("ttl", "the time that a lease has left", run_ttl)
    ttl.add_argument("lease", metavar="ID", type=lease_id)
    ttl.add_argument("--keys", action="store_true", help="show its keys too")
    lease.add("list", "all leases", run_list)


def show_id(lease: int) -> str:
    """A lease id as etcd's tools print it: hex, 64 bits."""
    return f"{lease & 0xFFFFFFFFFFFFFFFF:x}"


def run_grant(session: Session) -> int:
    from configsvc.client import operations

    answer = session.client.do(operations.lease_grant(session.args.ttl), why=session.why)
    if session.out.as_json:
        session.out.json({"lease": show_id(answer.ID), "ttl": answer.TTL})
    else:
        session.out.line(f"{show_id(answer.ID)} lasts {answer.TTL} s")
    return Exit.OK


def run_revoke(session: Session) -> int:
    from configsvc.client import operations

    lease = session.args.lease
    if not session.args.yes:
        answer = session.client.do(operations.lease_ttl(lease, keys=True))
        if answer.keys:
            plan = [f"deletes {len(answer.keys)} keys:"]
            plan += [f"  {escape(key)}" for key in sorted(answer.keys)[:_KEYS_SHOWN]]
            session.confirm(plan + (["  …"] if len(answer.keys) > _KEYS_SHOWN else []))
    session.client.do(operations.lease_revoke(lease), why=session.why)
    session.out.done(f"revoked {show_id(lease)}", lease=show_id(lease))
    return Exit.OK


def run_keepalive(session: Session) -> int:
    from configsvc.client import LeaseKeeper

    since = session.monotonic()
    lease = session.args.lease
    ttl = session.client.renew(lease)
    session.out.done(f"{show_id(lease)} lasts {ttl} s", lease=show_id(lease), ttl=ttl)
    session.out.flush()
    if session.args.once:
        return Exit.OK
    lost = threading.Event()
    with LeaseKeeper(session.client, lease, ttl, since=since, on_lost=lost.set):
        lost.wait()
    raise CliError(Exit.NO, f"lease {show_id(lease)} is gone")


def run_ttl(session: Session) -> int:
    from configsvc.client import operations

    args = session.args
    answer = session.client.do(operations.lease_ttl(args.lease, keys=args.keys))
    if answer.TTL < 0:
        raise CliError(Exit.NO, f"lease {show_id(args.lease)}: no such lease")
    if session.out.as_json:
        found: dict[str, object] = {
            "lease": show_id(answer.ID),
            "ttl": answer.TTL,
            "granted_ttl": answer.grantedTTL,
        }
        if args.keys:
            found["keys"] = [json_bytes("key", key) for key in sorted(answer.keys)]
        session.out.json(found)
        return Exit.OK
    session.out.line(f"{answer.TTL} s left of {answer.grantedTTL} s")
    for key in sorted(answer.keys):
        session.out.line(escape(key))
    return Exit.OK


def run_list(session: Session) -> int:
    from configsvc.client import operations

    answer = session.client.do(operations.lease_list())
    leases = [show_id(one.ID) for one in answer.leases]
    if session.out.as_json:
        session.out.json(leases)
    else:
        for lease in leases:
            session.out.line(lease)
    return Exit.OK
