"""configsvc.v1.History: log, blame, diff and ranges as of a time, also after compaction.

READ on the span is needed, for values, names and authors alike, deleted keys included (3.5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from configsvc.api.contract import Caller
from configsvc.api.service import Service, about_span
from configsvc.audit.actors import decode_actor
from configsvc.auth.actions import KV_RANGE
from configsvc.codec import requests
from configsvc.codec.answers import to_protobuf
from configsvc.errors import EmptyKeyError, FutureRevError, InvalidArgumentError
from configsvc.mvcc.messages import KeyValue, RangeOp
from configsvc.proto import v1_pb2
from configsvc.runtime.waiting import Waiting
from configsvc.types import KeySpan, span_of

LIMIT_DEFAULT: Final = 1_000


class HistoryService(Service):
    """Handlers of History."""

    def log(self, caller: Caller, raw: bytes) -> Waiting:
        """Changes of a key or span with their authors, newest first unless asked otherwise."""
        m = requests.parse(v1_pb2.LogRequest, raw)
        span = self._span(m)
        limit = m.limit or LIMIT_DEFAULT

        def ask() -> Any:
            return self.member.reader.key_history(
                span,
                limit=limit,
                before=m.before_revision,
                after=m.after_revision,
                newest_first=not m.ascending,
            )

        def answer(page: Any) -> bytes:
            out = v1_pb2.LogResponse(more=page.more)
            out.records.extend(_record(row, values=m.values) for row in page.rows)
            return self.header() + out.SerializeToString()

        return self._asked(caller, span, ask, answer)

    def blame(self, caller: Caller, raw: bytes) -> Waiting:
        """The last change of each key that lives in the span."""
        m = requests.parse(v1_pb2.BlameRequest, raw)
        span = self._span(m)
        self._not_future(m.revision)

        def answer(page: Any) -> bytes:
            out = v1_pb2.LogResponse(more=page.more)
            out.records.extend(_record(row, values=False) for row in page.rows)
            return self.header() + out.SerializeToString()

        return self._asked(
            caller,
            span,
            lambda: self.member.reader.blame(
                span, revision=m.revision, limit=m.limit or LIMIT_DEFAULT
            ),
            answer,
        )

    def diff(self, caller: Caller, raw: bytes) -> Waiting:
        """Keys that differ between two revisions."""
        m = requests.parse(v1_pb2.DiffRequest, raw)
        span = self._span(m)
        older = m.from_revision
        newer = m.to_revision or self.member.store.revision
        self._not_future(max(older, newer))
        if older < 1:
            raise InvalidArgumentError("from_revision: at least 1, the empty store")

        def answer(found: Iterable[Any]) -> bytes:
            out = v1_pb2.DiffResponse(from_revision=older, to_revision=newer)
            for d in found:
                item = out.differences.add(key=d.key)
                if d.before is not None:
                    item.before.CopyFrom(to_protobuf([d.before])[0])
                if d.after is not None:
                    item.after.CopyFrom(to_protobuf([d.after])[0])
            return self.header() + out.SerializeToString()

        return self._asked(
            caller, span, lambda: self.member.reader.diff(span, older, newer), answer
        )

    def at(self, caller: Caller, raw: bytes) -> Waiting:
        """A range as it stood at a revision or a time."""
        m = requests.parse(v1_pb2.AtRequest, raw)
        span = self._span(m)
        if m.revision and m.time_ns:
            raise InvalidArgumentError("revision, time_ns: give one of them")
        self._not_future(m.revision)
        current = self.member.store.revision

        def ask() -> tuple[int, Any]:
            reader = self.member.reader
            revision = m.revision or (reader.at_time(m.time_ns) if m.time_ns else current)
            op = RangeOp(span, limit=m.limit, keys_only=m.keys_only)
            return revision, reader.range_at(op, revision)

        def answer(found: tuple[int, Any]) -> bytes:
            revision, result = found
            out = v1_pb2.AtResponse(revision=revision, more=result.more, count=result.count)
            kvs: list[KeyValue] = list(result.kvs)
            out.kvs.extend(to_protobuf(kvs))
            return self.header() + out.SerializeToString()

        return self._asked(caller, span, ask, answer)

    def _span(self, m: Any) -> KeySpan:
        if not m.key:
            raise EmptyKeyError
        return span_of(m.key, m.range_end)

    def _not_future(self, revision: int) -> None:
        if revision > self.member.store.revision:
            raise FutureRevError

    def _asked(
        self,
        caller: Caller,
        span: KeySpan,
        ask: Callable[[], Any],
        answer: Callable[[Any], bytes],
    ) -> Waiting:
        """Linearizable: everything acknowledged before the question is part of the answer."""

        def start() -> Waiting:
            self.may_read(caller, span)
            if not self.member.audit.marks_read("history.read", span):
                return put()
            about = about_span(span, KV_RANGE)
            return self.recorded(caller, "history.read", about, put)

        def put() -> Waiting:
            return self.member.gate.ask(self.member.applied, ask, answer)

        return self.linearizable(caller, start)


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
