"""``put get del watch compact``: values, now and at a revision."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from configsvc import limits
from configsvc.cli.arguments import (
    Commands,
    add_span,
    add_why,
    add_yes,
    key_bytes,
    number,
    span_of_args,
)
from configsvc.cli.exits import CliError, Exit
from configsvc.cli.output import escape, sparing
from configsvc.cli.show import kv_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from configsvc.cli.session import Session
    from configsvc.client import Operation, WatchOptions
    from configsvc.proto import kv_pb2
    from configsvc.proto import rpc_pb2 as rpc

_SORT = ("key", "version", "create", "mod", "value")


def register(commands: Commands) -> None:
    """Add the commands."""
    put = commands.add("put", "write a key", run_put)
    put.add_argument("key_name", metavar="KEY")
    put.add_argument("value", metavar="VALUE", nargs="?", help="the value; - reads standard input")
    put.add_argument("--file", metavar="FILE", help="read the value from a file")
    put.add_argument("--lease", metavar="ID", type=lease_id, default=0, help="hex id of a lease")
    put.add_argument("--prev", action="store_true", help="show the value before")
    put.add_argument("--ignore-value", action="store_true", help="keep the value, change the lease")
    put.add_argument("--ignore-lease", action="store_true", help="keep the lease")
    add_why(put)

    get = commands.add("get", "read keys, now or in the past", run_get)
    get.add_argument("key_name", metavar="KEY")
    add_span(get)
    when = get.add_mutually_exclusive_group()
    when.add_argument("--rev", type=number(), default=0, metavar="REV", help="at a revision")
    when.add_argument("--at", metavar="WHEN", help="as of a revision, a time, or an age like 2h")
    get.add_argument("--keys-only", action="store_true")
    get.add_argument("--count-only", action="store_true")
    get.add_argument("--limit", type=number(), default=0, metavar="N")
    get.add_argument("--sort-by", choices=_SORT, default="key")
    get.add_argument("--order", choices=("asc", "desc"))
    get.add_argument("--serializable", action="store_true", help="any member's view, maybe late")

    delete = commands.add("del", "delete keys", run_delete)
    delete.add_argument("key_name", metavar="KEY")
    add_span(delete)
    delete.add_argument("--prev", action="store_true", help="show what was deleted")
    add_why(delete)
    add_yes(delete)

    watch = commands.add("watch", "print changes as they happen", run_watch)
    watch.add_argument("key_name", metavar="KEY")
    add_span(watch)
    watch.add_argument(
        "--rev", type=number(), default=0, metavar="REV", help="from this revision on"
    )
    watch.add_argument("--prev", action="store_true", help="show the values before")
    watch.add_argument("--count", type=number(), default=0, metavar="N", help="end after N changes")

    compact = commands.add("compact", "free memory; the history keeps everything", run_compact)
    compact.add_argument("revision", type=number(), metavar="REV")
    add_why(compact)
    add_yes(compact)


def lease_id(text: str) -> int:
    """A lease id as printed: hex without prefix; ids with the top bit set are negative."""
    try:
        number = int(text, 16)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no lease id (hex)") from None
    if not 0 <= number < 2**64:
        raise argparse.ArgumentTypeError(f"{text!r} is no lease id (hex)")
    return number - 2**64 if number >= 2**63 else number


def _value(args: argparse.Namespace) -> bytes:
    if (args.value is None) == (args.file is None):
        if args.ignore_value and args.value is None:
            return b""
        raise CliError(Exit.USAGE, "give a VALUE, - for standard input, or --file")
    bound = limits.REQUEST_BYTES_MAX + 1
    if args.file is not None:
        try:
            with Path(args.file).open("rb") as file:
                return file.read(bound)
        except OSError as error:
            raise CliError(Exit.USAGE, f"{args.file}: {error.strerror}") from None
    if args.value == "-":
        return sys.stdin.buffer.read(bound)
    return key_bytes(args.value)


def run_put(session: Session) -> int:
    from configsvc.client import operations

    args = session.args
    operation = operations.put(
        key_bytes(args.key_name),
        _value(args),
        lease=args.lease,
        prev_kv=args.prev,
        ignore_value=args.ignore_value,
        ignore_lease=args.ignore_lease,
    )
    answer = session.client.do(operation, why=session.why)
    if session.out.as_json:
        found: dict[str, object] = {"revision": answer.header.revision}
        if answer.HasField("prev_kv"):
            found["prev"] = kv_json(answer.prev_kv)
        session.out.json(found)
        return Exit.OK
    session.out.line(f"revision {answer.header.revision}")
    if answer.HasField("prev_kv"):
        session.out.value(answer.prev_kv.value)
    return Exit.OK


def _range_operation(args: argparse.Namespace) -> Operation[rpc.RangeResponse]:
    from configsvc.client import operations
    from configsvc.proto import rpc_pb2

    key, end = span_of_args(args)
    order = {None: "NONE", "asc": "ASCEND", "desc": "DESCEND"}[args.order]
    if args.order is None and args.sort_by != "key":
        order = "ASCEND"
    return operations.range_(
        key,
        end,
        limit=args.limit,
        revision=args.rev,
        sort_order=getattr(rpc_pb2.RangeRequest, order),
        sort_target=getattr(rpc_pb2.RangeRequest, args.sort_by.upper()),
        serializable=args.serializable,
        keys_only=args.keys_only,
        count_only=args.count_only,
    )


def _read_past(session: Session) -> tuple[Sequence[kv_pb2.KeyValue], int, int]:
    """Keys, count and revision from the history, which compaction does not touch."""
    from configsvc.client import inquiries

    args = session.args
    if args.sort_by != "key" or args.order == "desc" or args.serializable:
        raise CliError(Exit.USAGE, "--at reads in key order: leave --sort-by, --order away")
    when = session.when(args.at)
    key, end = span_of_args(args)
    answer = session.client.do(
        inquiries.at(
            key,
            end,
            revision=when.revision,
            time_ns=when.time_ns,
            limit=args.limit,
            keys_only=args.keys_only,
        )
    )
    return answer.kvs, answer.count, answer.revision


def run_get(session: Session) -> int:
    args, out = session.args, session.out
    if args.at is not None:
        kvs, count, revision = _read_past(session)
    else:
        answer = session.client.do(_range_operation(args))
        kvs, count, revision = answer.kvs, answer.count, answer.header.revision
    if args.count_only:
        if out.as_json:
            out.json({"count": count, "revision": revision})
        else:
            out.line(str(count))
        return Exit.OK
    single = not (args.prefix or args.from_key or args.range_end)
    if out.as_json:
        shown = [kv_json(kv, keys_only=args.keys_only) for kv in kvs]
        if single:
            out.json(shown[0] if shown else None)
        else:
            out.json(shown)
    else:
        for kv in kvs:
            if args.keys_only:
                out.line(escape(kv.key))
            elif single or out.raw:
                out.value(kv.value)
            else:
                out.line(f"{escape(kv.key)} = {escape(kv.value)}")
    if single and not kvs:
        raise CliError(Exit.NO, f"{escape(key_bytes(args.key_name))}: no such key")
    return Exit.OK


def run_delete(session: Session) -> int:
    from configsvc.client import operations

    args, out = session.args, session.out
    key, end = span_of_args(args)
    if end and not args.yes:
        found = session.client.do(operations.range_(key, end, keys_only=True, limit=10))
        plan = [f"will delete {found.count} keys:"]
        plan += [f"  {escape(kv.key)}" for kv in found.kvs]
        session.confirm(plan + (["  …"] if found.more else []))
    answer = session.client.do(operations.delete(key, end, prev_kv=args.prev), why=session.why)
    if out.as_json:
        shown: dict[str, object] = {"deleted": answer.deleted, "revision": answer.header.revision}
        if args.prev:
            shown["prev"] = [kv_json(kv) for kv in answer.prev_kvs]
        out.json(shown)
    else:
        out.line(f"{answer.deleted} deleted")
        for kv in answer.prev_kvs:
            out.line(f"{escape(kv.key)} = {escape(kv.value)}")
    return Exit.OK if answer.deleted else Exit.NO


def _watch_options(args: argparse.Namespace) -> WatchOptions:
    from configsvc.client import WatchOptions

    key, end = span_of_args(args)
    return WatchOptions(key, end, start_revision=args.rev, prev_kv=args.prev)


def run_watch(session: Session) -> int:
    from configsvc.client import Watch

    left = session.args.count
    with Watch(
        session.client,
        _watch_options(session.args),
        connect_timeout_s=session.client.settings.timeout_s,
        on_lost=sparing(lambda line: session.warn(f"no connection, trying on: {line}")),
    ) as watch:
        for batch in watch:
            for event in batch.events:
                _show_event(session, event)
                left -= 1
                if left == 0:
                    session.out.flush()
                    return Exit.OK
            session.out.flush()
    return Exit.OK


def _show_event(session: Session, event: kv_pb2.Event) -> None:
    put = event.type == 0
    kv, out = event.kv, session.out
    had = event.HasField("prev_kv")
    if out.as_json:
        shown: dict[str, object] = {"type": "PUT" if put else "DELETE"}
        shown.update(kv_json(kv) if put else kv_json(kv, keys_only=True))
        if had:
            shown["prev"] = kv_json(event.prev_kv)
        out.json(shown)
        return
    line = f"{kv.mod_revision} {'PUT' if put else 'DELETE'} {escape(kv.key)}"
    if put:
        line += f" = {escape(kv.value)}"
    if had:
        line += f" (was {escape(event.prev_kv.value)})"
    out.line(line)


def run_compact(session: Session) -> int:
    from configsvc.client import operations

    revision = session.args.revision
    session.confirm([f"etcd clients will no longer read below revision {revision}; history stays"])
    session.client.do(operations.compact(revision), why=session.why)
    session.out.done(f"compacted to {revision}", revision=revision)
    return Exit.OK
