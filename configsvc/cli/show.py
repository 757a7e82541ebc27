"""How keys, events, records and differences look, as JSON and for people."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from configsvc.cli.output import escape, json_bytes, shorten
from configsvc.cli.times import show_time

if TYPE_CHECKING:
    from configsvc.proto import kv_pb2, v1_pb2

_ONE_LINE_CHARS = 100  # longer or multi-line values are compared line by line


def kv_json(kv: kv_pb2.KeyValue, *, keys_only: bool = False) -> dict[str, Any]:
    """A key with its value and revisions."""
    found: dict[str, Any] = {**json_bytes("key", kv.key)}
    if not keys_only:
        found.update(json_bytes("value", kv.value))
    found["create_revision"] = kv.create_revision
    found["mod_revision"] = kv.mod_revision
    found["version"] = kv.version
    if kv.lease:
        found["lease"] = f"{kv.lease & 0xFFFFFFFFFFFFFFFF:x}"
    return found


def record_json(record: v1_pb2.Record) -> dict[str, Any]:
    """A change with its author."""
    found: dict[str, Any] = {
        "revision": record.revision,
        **json_bytes("key", record.key),
        "event": record.event,
        "actor": record.actor,
        "method": record.method,
        "source": record.source,
        "time": show_time(record.time_ns, exact=True),
        "reason": record.reason,
        "ticket": record.ticket,
        "seq": record.seq,
        "raft_index": record.raft_index,
        "outcome": record.outcome,
        "version": record.version,
        "create_revision": record.create_revision,
        "tombstone": record.tombstone,
    }
    for name in ("client", "cert_uri", "cert_serial", "roles"):
        if getattr(record, name):
            found[name] = getattr(record, name)
    if record.accepted_by:
        found["accepted_by"] = f"{record.accepted_by:x}"
    if record.lease:
        found["lease"] = f"{record.lease & 0xFFFFFFFFFFFFFFFF:x}"
    if record.has_value:
        found.update(json_bytes("value", record.value))
    return found


RECORD_HEADS = ("REV", "TIME", "EVENT", "ACTOR", "METHOD", "SOURCE", "SEQ", "KEY", "WHY")


def record_row(record: v1_pb2.Record) -> tuple[object, ...]:
    """A table row under ``RECORD_HEADS``."""
    why = record.reason
    if record.ticket:
        why = f"{why} [{record.ticket}]".strip()
    if record.outcome not in ("", "OK"):
        why = f"({record.outcome}) {why}".rstrip()
    key = escape(record.key)
    if record.has_value:
        key = f"{key} = {shorten(escape(record.value), 60)}"
    return (
        record.revision or "-",
        show_time(record.time_ns),
        record.event,
        record.actor or "-",
        record.method or "-",
        record.source or "-",
        record.seq,
        key,
        why or "-",
    )


def _is_one_line(*values: bytes) -> bool:
    return all(b"\n" not in one and len(one) <= _ONE_LINE_CHARS for one in values)


def difference_lines(key: bytes, before: bytes | None, after: bytes | None) -> Iterator[str]:
    """A change between two states of a key, for people. None: the key does not exist."""
    mark = "+" if before is None else "-" if after is None else "~"
    yield f"{mark} {escape(key)}"
    if before == after:
        yield "    (the same value, written again)"
        return
    old, new = before or b"", after or b""
    if _is_one_line(old, new):
        if before is not None:
            yield f"    - {escape(old)}"
        if after is not None:
            yield f"    + {escape(new)}"
        return
    lines = difflib.unified_diff(
        old.decode("utf-8", "surrogateescape").splitlines(),
        new.decode("utf-8", "surrogateescape").splitlines(),
        lineterm="",
        n=2,
    )
    for number, line in enumerate(lines):
        if number >= 2:  # the two file heads say nothing here
            yield f"    {escape(line)}"


def difference_json(key: bytes, before: bytes | None, after: bytes | None) -> dict[str, Any]:
    """The same for machines."""
    found: dict[str, Any] = {**json_bytes("key", key)}
    found["change"] = "added" if before is None else "removed" if after is None else "changed"
    if before is not None:
        found.update(json_bytes("before", before))
    if after is not None:
        found.update(json_bytes("after", after))
    return found
