"""etcdserverpb.KV: ranges, puts, deletes, transactions, compaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from configsvc.api.contract import Caller, StreamHandler, StreamSink
from configsvc.api.facts import facts_of
from configsvc.api.large_answers import from_history, is_large, large_range
from configsvc.api.service import Service, about_span, raise_refused
from configsvc.apply.commands import Effects
from configsvc.auth.actions import KV_RANGE
from configsvc.codec import answers, requests
from configsvc.codec import command as codec
from configsvc.codec.varint import bytes_field, varint
from configsvc.errors import (
    CompactedError,
    ConfigServiceError,
    FutureRevError,
    InvalidArgumentError,
    UnimplementedError,
)
from configsvc.mvcc.messages import (
    DeferredRange,
    DeleteOp,
    PutOp,
    PutResult,
    RangeOp,
    RangeResult,
    TxnOp,
    TxnResult,
)
from configsvc.mvcc.shape import check_request, quota_cost
from configsvc.mvcc.store import NeedHistory
from configsvc.proto import rpc_pb2
from configsvc.runtime.member import Member
from configsvc.runtime.slices import Slices
from configsvc.runtime.waiting import Waiting

STREAM_FIRST_KEYS: Final = 10  # keys of the first chunk of a RangeStream
STREAM_CHUNK_KEYS_MAX: Final = 10_000


class KvService(Service):
    """Handlers of KV."""

    def __init__(self, member: Member) -> None:
        super().__init__(member)
        self.slices = Slices(member.loop)  # of all large ranges

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
            return self.recorded(caller, "kv.range", about, lambda: self._ranged(op))
        return self._ranged(op)

    def _ranged(self, op: RangeOp) -> bytes | Waiting:
        header = self.header()
        store = self.member.store
        try:
            if is_large(store, op):
                return large_range(self.member, self.slices, header, op)
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

    def _delete_answer(self, effects: Effects) -> bytes:
        raise_refused(effects)
        result: Any = effects.result
        return self.header_at(result.revision) + answers.delete_body(result)

    def txn(self, caller: Caller, raw: bytes) -> bytes | Waiting:
        """Txn (T1–T18): through the log when any branch could write, else a read."""
        op = requests.txn_op(requests.parse(rpc_pb2.TxnRequest, raw))
        check_request(op)
        if _may_write(op):
            self.within_quota(quota_cost(op))
            return self.propose(
                caller, codec.OP_TXN, raw, self._txn_answer, facts=facts_of(self.member, op)
            )
        if _all_serializable(op):
            return self._read_txn(caller, op)
        return self.linearizable(caller, lambda: self._read_txn(caller, op))

    def _read_txn(self, caller: Caller, op: TxnOp) -> bytes | Waiting:
        self.standing(caller)
        marked = None
        for span in _read_spans(op):
            self.may_read(caller, span)
            if self.member.audit.marks_read("kv.range", span):
                marked = span
        if marked is None:
            return self._txn_read(op)
        about = about_span(marked, KV_RANGE)
        return self.recorded(caller, "kv.range", about, lambda: self._txn_read(op))

    def _txn_read(self, op: TxnOp) -> bytes | Waiting:
        result = self.member.state.read_txn(op)
        return self._filled(self.member.store.revision, result)

    def _txn_answer(self, effects: Effects) -> bytes | Waiting:
        raise_refused(effects)
        result: Any = effects.result
        return self._filled(result.revision, result)

    def _filled(self, revision: int, result: TxnResult) -> bytes | Waiting:
        """Encode; reads at old revisions are fetched from history first (deferred reads)."""
        header = self.header_at(revision)
        deferred = _deferred(result)
        if not deferred:
            return header + answers.txn_body(result)
        reader = self.member.reader
        return self.member.gate.ask(
            self.member.applied,
            lambda: [reader.range_at(d.op, d.op.revision) for d in deferred],
            lambda found: header + answers.txn_body(_fill(result, iter(found))),
        )

    def compact(self, caller: Caller, raw: bytes) -> Waiting:
        """Compact (C1–C6): the floor moves at apply; the rows stay for auditors."""
        requests.parse(rpc_pb2.CompactionRequest, raw)
        self.not_corrupt()
        return self.propose(caller, codec.OP_COMPACTION, raw)

    # --- RangeStream -----------------------------------------------------------------------------

    def range_stream(self, caller: Caller, sink: StreamSink) -> StreamHandler:
        """RangeStream (S1–S6)."""
        return _RangeStream(self, caller, sink)


class _RangeStream:
    """Pages of one range at one pinned revision; a slow reader stops the paging."""

    def __init__(self, service: KvService, caller: Caller, sink: StreamSink) -> None:
        self._service = service
        self._caller = caller
        self._sink = sink
        self._op: RangeOp | None = None
        self._revision = 0
        self._count = 0
        self._left = 0  # keys still wanted under limit; 0: all
        self._chunk = STREAM_FIRST_KEYS
        self._ended = False
        self._busy = False
        self._next_start = b""

    def on_message(self, raw: bytes) -> None:
        op = requests.range_op(requests.parse(rpc_pb2.RangeRequest, raw))
        check_request(op)
        if op.sort_order == 2 or op.sort_target != 0:
            raise UnimplementedError("RangeStream does not support custom sort orders")
        bounds = (
            op.min_mod_revision
            or op.max_mod_revision
            or op.min_create_revision
            or op.max_create_revision
        )
        if bounds:
            raise UnimplementedError("RangeStream does not support revision filters")
        if self._op is not None:
            raise InvalidArgumentError("RangeStream takes one request")
        self._op = op
        if op.serializable:
            begun = self._start()
            if isinstance(begun, Waiting):
                begun.bind(self._finish_on_error)
        else:
            self._service.linearizable(self._caller, self._start).bind(self._finish_on_error)

    def _finish_on_error(self, result: bytes | ConfigServiceError) -> None:
        if isinstance(result, ConfigServiceError):
            self._end(result)

    def _start(self) -> bytes | Waiting:
        op, service = self._op, self._service
        store = service.member.store
        if op is None or self._ended:
            return b""
        try:
            service.may_read(self._caller, op.span)
            store.check_revision(op.revision)
        except ConfigServiceError as error:
            self._end(error)
            return b""
        if service.member.audit.marks_read("kv.range", op.span):
            about = about_span(op.span, KV_RANGE)
            return service.recorded(self._caller, "kv.range", about, lambda: self._begin(op))
        return self._begin(op)

    def _begin(self, op: RangeOp) -> bytes:
        store = self._service.member.store
        if self._ended:
            return b""
        self._revision = op.revision if op.revision > 0 else store.revision
        self._left = op.limit
        self._count_first(op)
        return b""

    def _count_first(self, op: RangeOp) -> None:
        def counted(result: RangeResult | ConfigServiceError) -> None:
            if isinstance(result, ConfigServiceError):
                self._end(result)
                return
            self._count = result.count
            if op.count_only or not result.count:
                self._last(b"", more=False)
            else:
                self._page(op.span.start)

        self._read(op._replace(count_only=True, limit=0, revision=self._revision), counted)

    def _page(self, start: bytes) -> None:
        op = self._op
        if op is None or self._ended:
            return
        want = min(self._chunk, self._left) if self._left else self._chunk
        page = op._replace(span=op.span._replace(start=start), revision=self._revision, limit=want)
        self._read(page, self._deliver)

    def _read(self, op: RangeOp, done: Callable[[RangeResult | ConfigServiceError], None]) -> None:
        member = self._service.member
        try:
            member.store.check_revision(self._revision)
            done(member.store.range(op))
        except NeedHistory:
            reader = member.reader
            member.gate.run(member.applied, lambda: reader.range_at(op, op.revision), done)
        except (CompactedError, FutureRevError) as error:
            self._end(error)

    def _deliver(self, result: RangeResult | ConfigServiceError) -> None:
        if isinstance(result, ConfigServiceError):
            self._end(result)
            return
        if self._ended:
            return
        kvs = b"".join(bytes_field(2, answers.key_value(kv)) for kv in result.kvs)
        if self._left:
            self._left -= len(result.kvs)
        limit_hit = self._op is not None and self._op.limit > 0 and self._left <= 0
        if not result.more or limit_hit:
            self._last(kvs, more=result.more)
            return
        keep_going = self._sink.send(bytes_field(1, kvs))
        self._chunk = _next_chunk(self._chunk, len(kvs))
        self._next_start = result.kvs[-1].key + b"\0"
        if keep_going:
            self._page(self._next_start)
        else:
            self._busy = True

    def _last(self, kvs: bytes, *, more: bool) -> None:
        body = self._service.header() + kvs
        if more:
            body += b"\x18\x01"
        if self._count:
            body += b"\x20" + varint(self._count)
        self._sink.send(bytes_field(1, body))
        self._end(None)

    def _end(self, error: ConfigServiceError | None) -> None:
        if not self._ended:
            self._ended = True
            self._sink.finish(error)

    def on_writable(self) -> None:
        if self._busy:
            self._busy = False
            self._page(self._next_start)

    def on_half_close(self) -> None:
        return

    def on_cancel(self) -> None:
        self._ended = True


def _next_chunk(keys: int, size: int) -> int:
    """Aim at about a megabyte a chunk (S5)."""
    if size > 1 << 20:
        return max(1, keys // 2)
    return min(STREAM_CHUNK_KEYS_MAX, keys * 2)


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
