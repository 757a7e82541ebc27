"""configsvc.v1.History: log, blame, diff and ranges as of a time, also after compaction.

READ on the span is needed, for values, names and authors alike, deleted keys included (3.5).

Answers may be long: they are encoded where they are read, on a reader thread, and in parts, so
that neither the loop nor the interpreter's lock is held for all of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final, TypeVar

from configsvc.api.contract import Caller
from configsvc.api.service import Service, about_span
from configsvc.audit.actors import decode_actor
from configsvc.auth.actions import KV_RANGE
from configsvc.codec import requests
from configsvc.codec.answers import to_protobuf
from configsvc.errors import EmptyKeyError, FutureRevError, InvalidArgumentError
from configsvc.limits import RANGE_PIECE_KEYS
from configsvc.mvcc.messages import RangeOp
from configsvc.proto import v1_pb2
from configsvc.runtime.waiting import Pieces, Waiting
from configsvc.types import KeySpan, span_of

LIMIT_DEFAULT: Final = 1_000

T = TypeVar("T")


class HistoryService(Service):
    """Handlers of History."""

    def log(self, caller: Caller, raw: bytes) -> Waiting:
        """Changes of a key or span with their authors, newest first unless asked otherwise."""
        m = requests.parse(v1_pb2.LogRequest, raw)
        span = self._span(m)
        limit = m.limit or LIMIT_DEFAULT

        def ask() -> list[bytes]:
            page = self.member.reader.key_history(
                span,
                limit=limit,
                before=m.before_revision,
                after=m.after_revision,
                newest_first=not m.ascending,
            )
            return _log(page, values=m.values)

        return self._asked(caller, span, ask)

    def blame(self, caller: Caller, raw: bytes) -> Waiting:
        """The last change of each key that lives in the span."""
        m = requests.parse(v1_pb2.BlameRequest, raw)
        span = self._span(m)
        self._not_future(m.revision)

        def ask() -> list[bytes]:
            limit = m.limit or LIMIT_DEFAULT
            return _log(
                self.member.reader.blame(span, revision=m.revision, limit=limit), values=False
            )

        return self._asked(caller, span, ask)

    def diff(self, caller: Caller, raw: bytes) -> Waiting:
        """Keys that differ between two revisions."""
        m = requests.parse(v1_pb2.DiffRequest, raw)
        span = self._span(m)
        older = m.from_revision
        newer = m.to_revision or self.member.store.revision
        self._not_future(max(older, newer))
        if older < 1:
            raise InvalidArgumentError("from_revision: at least 1, the empty store")

        def ask() -> list[bytes]:
            found = self.member.reader.diff(span, older, newer)
            end = v1_pb2.DiffResponse(from_revision=older, to_revision=newer)
            return [*_parts(found, _differences), end.SerializeToString()]

        return self._asked(caller, span, ask)

    def at(self, caller: Caller, raw: bytes) -> Waiting:
        """A range as it stood at a revision or a time."""
        m = requests.parse(v1_pb2.AtRequest, raw)
        span = self._span(m)
        if m.revision and m.time_ns:
            raise InvalidArgumentError("revision, time_ns: give one of them")
        self._not_future(m.revision)
        current = self.member.store.revision

        def ask() -> list[bytes]:
            reader = self.member.reader
            revision = m.revision or (reader.at_time(m.time_ns) if m.time_ns else current)
            op = RangeOp(span, limit=m.limit, keys_only=m.keys_only)
            result = reader.range_at(op, revision)
            head = v1_pb2.AtResponse(revision=revision)
            end = v1_pb2.AtResponse(more=result.more, count=result.count)
            kvs = _parts(result.kvs, lambda some: v1_pb2.AtResponse(kvs=to_protobuf(some)))
            return [head.SerializeToString(), *kvs, end.SerializeToString()]

        return self._asked(caller, span, ask)

    def _span(self, m: Any) -> KeySpan:
        if not m.key:
            raise EmptyKeyError
        return span_of(m.key, m.range_end)

    def _not_future(self, revision: int) -> None:
        if revision > self.member.store.revision:
            raise FutureRevError

    def _asked(self, caller: Caller, span: KeySpan, ask: Callable[[], list[bytes]]) -> Waiting:
        """Linearizable: everything acknowledged before the question is part of the answer."""

        def start() -> Waiting:
            self.may_read(caller, span)
            if not self.member.audit.marks_read("history.read", span):
                return put()
            about = about_span(span, KV_RANGE)
            return self.recorded(
                caller, "history.read", about, put, still=lambda: self.may_read(caller, span)
            )

        def put() -> Waiting:
            return self.member.gate.ask(self.member.applied, ask, answer)

        def answer(found: list[bytes]) -> Pieces:
            return Pieces((self.header(), *found))

        return self.linearizable(caller, start)


def _parts(items: Iterable[T], message: Callable[[list[T]], Any]) -> Iterator[bytes]:
    """Encoded messages of some items each."""
    left = iter(items)
    while some := list(islice(left, RANGE_PIECE_KEYS)):
        yield message(some).SerializeToString()


def _log(page: Any, *, values: bool) -> list[bytes]:
    def some(rows: list[Any]) -> Any:
        return v1_pb2.LogResponse(records=[_record(row, values=values) for row in rows])

    end = v1_pb2.LogResponse(more=page.more)
    return [*_parts(page.rows, some), end.SerializeToString()]


def _differences(found: list[Any]) -> Any:
    out = v1_pb2.DiffResponse()
    for d in found:
        item = out.differences.add(key=d.key)
        if d.before is not None:
            item.before.CopyFrom(to_protobuf([d.before])[0])
        if d.after is not None:
            item.after.CopyFrom(to_protobuf([d.after])[0])
    return out


def _record(row: Any, *, values: bool) -> v1_pb2.Record:
    change, commit, actor, opening = row
    said = dict(decode_actor(actor.record)) if actor is not None else {}
    out = v1_pb2.Record(
        revision=change.revision,
        key=change.key,
        event=_event(commit.event, tombstone=change.tombstone),
        actor=actor_name(said),
        method=said.get("method", ""),
        source=said.get("ip", ""),
        time_ns=commit.time_ns,
        seq=commit.seq,
        raft_index=commit.raft_index,
        outcome=commit.outcome,
        client=" ".join(x for x in (said.get("client", ""), said.get("client_version", "")) if x),
        cert_uri=said.get("cert_uri", ""),
        cert_serial=said.get("cert_serial", ""),
        version=change.version,
        lease=change.lease,
        tombstone=change.tombstone,
        create_revision=change.create_revision,
    )
    if opening is not None:
        out.reason, out.ticket = opening.reason, opening.ticket
    if values and not change.tombstone:
        out.has_value, out.value = True, change.value
    return out


def _event(event: str, *, tombstone: bool) -> str:
    """What happened to this key: a transaction's change is named by its own kind."""
    if event == "kv.txn":
        return "kv.delete" if tombstone else "kv.put"
    return event


def actor_name(said: dict[str, str]) -> str:
    """``user/alice``, ``agent/web-1``, ``system``; "erased" when the record is gone."""
    if not said:
        return "erased"
    kind, user = said.get("kind", ""), said.get("user", "")
    if kind in ("system", "none"):
        return "system" if kind == "system" else "anonymous"
    return user if "/" in user else f"{kind}/{user}"
