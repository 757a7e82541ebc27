"""etcdserverpb.KV: ranges, puts, deletes, transactions, compaction."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from configsvc.api.contract import Caller, StreamHandler, StreamSink
from configsvc.api.facts import facts_of
from configsvc.api.large_answers import (
    LargeRanges,
    from_history,
    is_large,
    is_large_txn,
    large_deletion,
    large_range,
    large_txn,
)
from configsvc.api.range_stream import RangeStream
from configsvc.api.service import Service, about_span, raise_refused
from configsvc.apply.commands import Effects
from configsvc.auth.actions import KV_RANGE
from configsvc.codec import answers, requests
from configsvc.codec import command as codec
from configsvc.limits import RANGE_PIECE_KEYS
from configsvc.mvcc.messages import (
    DeferredRange,
    DeleteOp,
    PutOp,
    PutResult,
    RangeOp,
    TxnOp,
    TxnResult,
)
from configsvc.mvcc.shape import COMPARE, RANGE, check_request, quota_cost, walk
from configsvc.mvcc.store import NeedHistory
from configsvc.proto import rpc_pb2
from configsvc.runtime.member import Member
from configsvc.runtime.waiting import Waiting
from configsvc.types import KeySpan

_READS: Final = (RANGE, COMPARE)


class KvService(Service):
    """Handlers of KV."""

    def __init__(self, member: Member) -> None:
        super().__init__(member)
        self.ranges = LargeRanges(member.slices)

    # --- reads -----------------------------------------------------------------------------------

    def range(self, caller: Caller, raw: bytes) -> bytes | Waiting:
        """Range (R1–R15)."""
        op = requests.range_op(requests.parse(rpc_pb2.RangeRequest, raw))
        check_request(op)
        if op.serializable:
            self.standing(caller)
            return self._range_answer(caller, op)
        return self.linearizable(caller, lambda: self._range_answer(caller, op))

    def _range_answer(self, caller: Caller, op: RangeOp) -> bytes | Waiting:
        self.may_read(caller, op.span)
        if self.member.audit.marks_read("kv.range", op.span):
            about = about_span(op.span, KV_RANGE)
            return self.recorded(
                caller,
                "kv.range",
                about,
                lambda: self._ranged(op),
                still=lambda: self.may_read(caller, op.span),
            )
        return self._ranged(op)

    def _ranged(self, op: RangeOp) -> bytes | Waiting:
        header = self.header()
        store = self.member.store
        try:
            if is_large(store, op):
                return large_range(self.member, self.ranges, header, op)
            return header + answers.range_body(store.range(op))
        except NeedHistory:
            return from_history(self.member, header, op)

    # --- writes ----------------------------------------------------------------------------------

    def put(self, caller: Caller, raw: bytes) -> Waiting:
        """Put (P1–P6)."""
        op = requests.put_of(raw)
        check_request(op)
        self.within_quota(quota_cost(op))
        return self.propose(
            caller, codec.OP_PUT, raw, self._put_answer, facts=facts_of(self.member, op)
        )

    def _put_answer(self, effects: Effects) -> bytes:
        result: Any = effects[3]
        if type(result) is not PutResult:
            raise_refused(effects)
        member = self.member
        revision, prev = result
        header = member.headers.field(revision, member.term)
        return header if prev is None else header + answers.put_body(result)

    def delete_range(self, caller: Caller, raw: bytes) -> Waiting:
        """DeleteRange (D1–D3)."""
        check_request(requests.delete_op(requests.parse(rpc_pb2.DeleteRangeRequest, raw)))
        return self.propose(caller, codec.OP_DELETE_RANGE, raw, self._delete_answer)

    def _delete_answer(self, effects: Effects) -> bytes | Waiting:
        raise_refused(effects)
        result: Any = effects.result
        header = self.header_at(result.revision)
        if len(result.prevs) > RANGE_PIECE_KEYS:
            return large_deletion(self.member.slices, header, result)
        return header + answers.delete_body(result)

    def txn(self, caller: Caller, raw: bytes) -> bytes | Waiting:
        """Txn (T1–T18): through the log when any branch could write, else a read."""
        op = requests.txn_op(requests.parse(rpc_pb2.TxnRequest, raw))
        check_request(op)
        if _may_write(op):
            self.within_quota(quota_cost(op))
            answer = self._txn_answer
            marked = self._marked(op)
            if marked:
                answer = partial(self._txn_recorded, caller, marked)
            return self.propose(caller, codec.OP_TXN, raw, answer, facts=facts_of(self.member, op))
        if _all_serializable(op):
            return self._read_txn(caller, op)
        return self.linearizable(caller, lambda: self._read_txn(caller, op))

    def _read_txn(self, caller: Caller, op: TxnOp) -> bytes | Waiting:
        self._may_read_all(caller, op)
        marked = self._marked(op)
        if not marked:
            return self._txn_read(op)
        return self._all_recorded(
            caller,
            marked,
            lambda: self._txn_read(op),
            still=lambda: self._may_read_all(caller, op),
        )

    def _may_read_all(self, caller: Caller, op: TxnOp) -> None:
        self.standing(caller)
        for span in _read_spans(op):
            self.may_read(caller, span)

    def _marked(self, op: TxnOp) -> list[KeySpan]:
        """What ``op`` reads or compares, at any depth, and whoever reads that is recorded."""
        marks = self.member.audit.marks_read
        found = [v.span for v in walk(op) if v.kind in _READS and marks("kv.range", v.span)]
        return list(dict.fromkeys(found))

    def _all_recorded(
        self,
        caller: Caller,
        spans: list[KeySpan],
        answer: Callable[[], bytes | Waiting],
        *,
        still: Callable[[], None],
    ) -> Waiting:
        """A record for each span; the answer waits for the last, thus for all."""
        *others, last = spans
        for span in others:
            self.member.audit.note(
                "kv.range",
                caller.principal,
                caller.source,
                resource=about_span(span, KV_RANGE),
                reason=caller.reason,
                ticket=caller.ticket,
            )
        return self.recorded(caller, "kv.range", about_span(last, KV_RANGE), answer, still=still)

    def _txn_read(self, op: TxnOp) -> bytes | Waiting:
        result = self.member.state.read_txn(op)
        return self._filled(self.member.store.revision, result, made=False)

    def _txn_recorded(
        self, caller: Caller, marked: list[KeySpan], effects: Effects
    ) -> bytes | Waiting:
        """What a write read on its way is recorded as any read is; apply has judged it."""
        raise_refused(effects)
        return self._all_recorded(
            caller, marked, lambda: self._txn_answer(effects), still=lambda: None
        )

    def _txn_answer(self, effects: Effects) -> bytes | Waiting:
        raise_refused(effects)
        result: Any = effects.result
        return self._filled(result.revision, result, made=True)

    def _filled(self, revision: int, result: TxnResult, *, made: bool) -> bytes | Waiting:
        """Encode; reads at old revisions are fetched from history first (deferred reads)."""
        header = self.header_at(revision)
        deferred = _deferred(result)
        if not deferred:
            if is_large_txn(result):
                return large_txn(self.ranges, header, result, made=made)
            return header + answers.txn_body(result)
        reader = self.member.reader

        def ask() -> bytes:
            found = [reader.range_at(d.op, d.op.revision) for d in deferred]
            return header + answers.txn_body(_fill(result, iter(found)))

        return self.member.gate.ask(self.member.applied, ask, lambda answer: answer)

    def compact(self, caller: Caller, raw: bytes) -> Waiting:
        """Compact (C1–C6): the floor moves at apply; the rows stay for auditors."""
        requests.parse(rpc_pb2.CompactionRequest, raw)
        self.not_corrupt()
        return self.propose(caller, codec.OP_COMPACTION, raw)

    # --- RangeStream -----------------------------------------------------------------------------

    def range_stream(self, caller: Caller, sink: StreamSink) -> StreamHandler:
        """RangeStream (S1–S6)."""
        return RangeStream(self, self.member.slices, caller, sink)


def _may_write(op: TxnOp) -> bool:
    """Any put, delete or nested txn in either branch makes it a write (T16)."""
    return any(type(o) in (PutOp, DeleteOp, TxnOp) for o in (*op.success, *op.failure))


def _all_serializable(op: TxnOp) -> bool:
    """A txn with no ops at all counts as serializable (T17)."""
    return all(type(o) is RangeOp and o.serializable for o in (*op.success, *op.failure))


def _read_spans(op: TxnOp) -> list[Any]:
    spans = [c.span for c in op.compares]
    spans += [o.span for o in (*op.success, *op.failure) if type(o) is RangeOp]
    return spans


def _deferred(result: TxnResult) -> list[DeferredRange]:
    found: list[DeferredRange] = []
    for response in result.responses:
        if type(response) is DeferredRange:
            found.append(response)
        elif type(response) is TxnResult:
            found += _deferred(response)
    return found


def _fill(result: TxnResult, found: Any) -> TxnResult:
    return result._replace(responses=tuple(_filled_in(r, found) for r in result.responses))


def _filled_in(response: Any, found: Any) -> Any:
    """What was read at an old revision keeps the header of its step in the transaction (H5)."""
    if type(response) is DeferredRange:
        return next(found)._replace(revision=response.revision)
    return _fill(response, found) if type(response) is TxnResult else response
