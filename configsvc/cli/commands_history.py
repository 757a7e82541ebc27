"""``log blame diff rollback``: who changed what, when and why, and the way back.

They ask ``configsvc.v1.History``, which compaction does not touch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from configsvc import limits
from configsvc.cli.arguments import Commands, add_why, add_yes, key_bytes, number
from configsvc.cli.exits import CliError, Exit
from configsvc.cli.output import escape
from configsvc.cli.show import (
    RECORD_HEADS,
    difference_json,
    difference_lines,
    record_json,
    record_row,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from configsvc.cli.session import Session
    from configsvc.client import Operation
    from configsvc.proto import kv_pb2, v1_pb2
    from configsvc.proto import rpc_pb2 as rpc


def register(commands: Commands) -> None:
    """Add the commands."""
    log = commands.add("log", "the changes of a key or prefix, each with its author", run_log)
    log.add_argument("key_name", metavar="KEY")
    log.add_argument("--prefix", action="store_true", help="all keys that start with KEY")
    log.add_argument(
        "--limit", type=number(), default=0, metavar="N", help="newest N (default 1000)"
    )
    log.add_argument("--since", metavar="WHEN", help="only changes after a revision or time")
    log.add_argument("--values", action="store_true", help="show the values too")
    log.add_argument("--asc", action="store_true", help="oldest first")

    blame = commands.add("blame", "the last change of every key under a prefix", run_blame)
    blame.add_argument("key_name", metavar="PREFIX", nargs="?", default="")
    blame.add_argument(
        "--limit", type=number(), default=0, metavar="N", help="first N keys (default 1000)"
    )

    diff = commands.add("diff", "what differs between two points in time", run_diff)
    diff.add_argument("range", metavar="A..B", help="revisions, times or ages; no B: now")
    diff.add_argument("key_name", metavar="PREFIX", nargs="?", default="")

    rollback = commands.add(
        "rollback", "put every key under a prefix back to what it was", run_rollback
    )
    rollback.add_argument("key_name", metavar="PREFIX")
    rollback.add_argument("--to", required=True, metavar="WHEN", help="revision, time, or age")
    add_why(rollback)
    add_yes(rollback)


_RECORDS = 1_000  # shown unless --limit says otherwise


class _Found(NamedTuple):
    """Records of as many pages as were wanted."""

    records: list[v1_pb2.Record]
    more: bool


def _collect(
    session: Session, ask: Callable[[v1_pb2.Record | None, int], Operation[v1_pb2.LogResponse]]
) -> _Found:
    """Page after page, up to ``--limit``: a member answers with so many at once only.

    ``ask`` makes the question for what follows a record (None: from the start) and a limit.
    """
    wanted = session.args.limit or _RECORDS
    found: list[v1_pb2.Record] = []
    while True:
        question = ask(found[-1] if found else None, wanted - len(found))
        answer = session.client.do(question)
        found += answer.records
        if not answer.more or not answer.records or len(found) >= wanted:
            return _Found(found, answer.more)


def _show_records(session: Session, found: _Found) -> int:
    if session.out.as_json:
        session.out.json([record_json(record) for record in found.records])
    else:
        session.out.table(RECORD_HEADS, [record_row(record) for record in found.records])
    if found.more:
        session.warn("there are more: raise --limit")
    return Exit.OK if found.records else Exit.NO


def run_log(session: Session) -> int:
    from configsvc.client import inquiries, prefix_span

    args = session.args
    key = key_bytes(args.key_name)
    span = prefix_span(key) if args.prefix else (key, b"")
    since = revision_at(session, args.since) if args.since else 0

    def ask(last: v1_pb2.Record | None, limit: int) -> Operation[v1_pb2.LogResponse]:
        seen = last.revision if last is not None else 0
        return inquiries.log(
            *span,
            limit=limit,
            before_revision=0 if args.asc else seen,
            after_revision=max(since, seen) if args.asc else since,
            ascending=args.asc,
            values=args.values,
        )

    found = _collect(session, ask)
    if not found.records:
        session.warn(f"{escape(key)}: no changes are recorded")
    return _show_records(session, found)


def run_blame(session: Session) -> int:
    from configsvc.client import inquiries, prefix_span

    start, end = prefix_span(key_bytes(session.args.key_name))

    def ask(last: v1_pb2.Record | None, limit: int) -> Operation[v1_pb2.LogResponse]:
        return inquiries.blame(start if last is None else last.key + b"\0", end, limit=limit)

    found = _collect(session, ask)
    if not found.records:
        session.warn("no keys live there")
    return _show_records(session, found)


def revision_at(session: Session, text: str) -> int:
    """The revision that was current then; 0 is now."""
    from configsvc.client import inquiries

    when = session.when(text)
    if not when.time_ns:
        return when.revision
    probe = inquiries.at(b"\0", b"\0", time_ns=when.time_ns, limit=1, keys_only=True)
    return session.client.do(probe).revision


def run_diff(session: Session) -> int:
    from configsvc.client import inquiries, prefix_span

    args, out = session.args, session.out
    begin, dots, end = args.range.partition("..")
    if not dots or not begin:
        raise CliError(Exit.USAGE, f"{args.range!r}: write A..B, as 120..135, 2h.. or 120..")
    older, newer = revision_at(session, begin), revision_at(session, end)
    if 0 < newer < older:
        raise CliError(Exit.USAGE, f"{args.range!r}: the older end comes first ({newer}..{older})")
    answer = session.client.do(
        inquiries.diff(
            *prefix_span(key_bytes(args.key_name)), from_revision=older, to_revision=newer
        )
    )
    changes = [
        (
            one.key,
            one.before.value if one.HasField("before") else None,
            one.after.value if one.HasField("after") else None,
        )
        for one in answer.differences
    ]
    if out.as_json:
        out.json(
            {
                "from_revision": answer.from_revision,
                "to_revision": answer.to_revision,
                "differences": [difference_json(*change) for change in changes],
            }
        )
    else:
        for change in changes:
            for line in difference_lines(*change):
                out.line(line)
        out.line(
            f"{len(changes)} keys differ between revisions "
            f"{answer.from_revision} and {answer.to_revision}"
        )
    return Exit.OK


# --- rollback -------------------------------------------------------------------------------------


class Change(NamedTuple):
    """One key that a rollback changes. None: the key does not exist."""

    key: bytes
    now: kv_pb2.KeyValue | None
    then: kv_pb2.KeyValue | None


def plan_rollback(
    now: Mapping[bytes, kv_pb2.KeyValue], then: Mapping[bytes, kv_pb2.KeyValue]
) -> list[Change]:
    """Keys whose value differs, in key order."""
    changes = []
    for key in sorted(now.keys() | then.keys()):
        change = Change(key, now.get(key), then.get(key))
        if change.now is None or change.then is None or change.now.value != change.then.value:
            changes.append(change)
    return changes


def _lease_kept(change: Change) -> int:
    """A lease is kept when it is still the key's; an older one may be long gone."""
    if change.now is None or change.then is None or change.now.lease != change.then.lease:
        return 0
    return change.then.lease


def rollback_txn(
    changes: Sequence[Change],
    now: Mapping[bytes, kv_pb2.KeyValue],
    span: tuple[bytes, bytes],
    revision: int,
) -> Operation[rpc.TxnResponse]:
    """One transaction that does it all, or nothing when a key under the prefix moved.

    A comparison over the whole span catches what was written since ``revision``. It cannot see
    what was deleted since: that takes one comparison per key, for the keys that change always,
    for the others as long as there is room in a transaction.
    """
    from configsvc.client import Txn, operations
    from configsvc.client import txn as compare

    txn = Txn().when(compare.modified(*span) < revision + 1)
    guarded = [change.key for change in changes]
    changing = set(guarded)
    others = [key for key in now if key not in changing]
    if len(guarded) + len(others) < limits.TXN_OPS_MAX:
        guarded += others
    for key in guarded:
        txn.when(compare.modified(key) == (now[key].mod_revision if key in now else 0))
    for change in changes:
        if change.then is None:
            txn.then(operations.delete(change.key))
            continue
        put = operations.put(change.key, change.then.value, lease=_lease_kept(change))
        txn.then(put)
    return txn.operation()


def _rollback_plan_lines(changes: Sequence[Change], target: int) -> list[str]:
    lines = [f"rolling back to revision {target} changes {len(changes)} keys:"]
    for change in changes:
        before = None if change.now is None else change.now.value
        after = None if change.then is None else change.then.value
        lines += difference_lines(change.key, before, after)
        if change.then is not None and change.then.lease != _lease_kept(change):
            lines.append("    (its lease is not restored)")
    return lines


class _Situation(NamedTuple):
    """What a rollback starts from."""

    span: tuple[bytes, bytes]
    now: dict[bytes, kv_pb2.KeyValue]
    revision: int  # at which ``now`` was read
    target: int
    changes: list[Change]


def _look(session: Session) -> _Situation:
    from configsvc.client import inquiries, prefix_span

    prefix = key_bytes(session.args.key_name)
    when = session.when(session.args.to)
    if not (when.revision or when.time_ns):
        raise CliError(Exit.USAGE, "--to needs a point in the past")
    present = session.client.get_prefix(prefix)
    span = prefix_span(prefix)
    past = session.client.do(inquiries.at(*span, revision=when.revision, time_ns=when.time_ns))
    if past.more:
        raise CliError(Exit.USAGE, "too many keys for one rollback: narrow the prefix")
    now = {kv.key: kv for kv in present.kvs}
    changes = plan_rollback(now, {kv.key: kv for kv in past.kvs})
    if len(changes) >= limits.TXN_OPS_MAX:
        raise CliError(
            Exit.USAGE,
            f"{len(changes)} keys differ, one transaction holds {limits.TXN_OPS_MAX - 1}: "
            "narrow the prefix",
        )
    return _Situation(span, now, present.header.revision, past.revision, changes)


def run_rollback(session: Session) -> int:
    out, found = session.out, _look(session)
    if not found.changes:
        text = f"nothing differs from revision {found.target}"
        out.done(text, changed=0, target_revision=found.target)
        return Exit.OK
    plan = _rollback_plan_lines(found.changes, found.target)
    session.confirm(plan)
    txn = rollback_txn(found.changes, found.now, found.span, found.revision)
    answer = session.client.do(txn, why=session.why)
    if not answer.succeeded:
        raise CliError(
            Exit.CONFLICT, "a key moved meanwhile, nothing was changed: look again, then repeat"
        )
    revision = answer.header.revision
    if session.args.yes and not out.as_json:
        for line in plan:
            out.line(line)
    out.done(
        f"done in revision {revision}",
        changed=len(found.changes),
        target_revision=found.target,
        revision=revision,
    )
    return Exit.OK
