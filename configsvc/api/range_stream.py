"""RangeStream: one range at one pinned revision, in chunks, as fast as the client reads (S1–S6).

Memory answers slice by slice, SQL page by page; a stream may begin with the first and go on with
the second, at the same revision, when an install replaced the store or the client rested for so
long that memory does not reach back any more.

Always true:
  * A slice is bounded as those of a large Range are; a chunk is about a megabyte.
  * A client that does not read stops the work, and holds nothing back that could be forgotten.
  * Before each chunk the rights are judged anew: a slow reader does not outlive its own (JWT-13).

Not here: finding the keys (``mvcc.cursor``), whose turn it is (``runtime.slices``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from configsvc.api.contract import Caller, StreamSink
from configsvc.api.large_answers import portions
from configsvc.api.service import Service, about_span
from configsvc.auth.actions import KV_RANGE
from configsvc.codec import answers, requests
from configsvc.codec.varint import bytes_field
from configsvc.errors import ConfigServiceError, InvalidArgumentError, UnimplementedError
from configsvc.limits import RANGE_PIECE_KEYS
from configsvc.mvcc.cursor import RangeCursor
from configsvc.mvcc.messages import RangeOp, RangeResult
from configsvc.mvcc.ranges import has_filters
from configsvc.mvcc.shape import check_request
from configsvc.mvcc.store import NeedHistory
from configsvc.proto import rpc_pb2
from configsvc.runtime.slices import Slices
from configsvc.runtime.waiting import Waiting

FIRST_KEYS: Final = 10  # of the first chunk
CHUNK_KEYS_MAX: Final = 10_000
CHUNK_BYTES: Final = 1 << 20  # what a chunk aims at (S5)
_DESCEND: Final = 2


class RangeStream:
    """One running stream; each call is a slice of it."""

    def __init__(self, service: Service, slices: Slices, caller: Caller, sink: StreamSink) -> None:
        self._service = service
        self._slices = slices
        self._caller = caller
        self._sink = sink
        self._op: RangeOp | None = None
        self._revision = 0
        self._cursor: RangeCursor | None = None
        self._steps: Iterator[None] = iter(())
        self._count: int | None = None  # keys of the whole range; None: not known yet
        self._given = 0  # keys sent
        self._chunk = FIRST_KEYS  # keys that the next chunk aims at
        self._parts: list[bytes] = []  # of the next chunk
        self._keys = self._size = 0  # likewise
        self._next_start = b""  # where SQL goes on
        self._resting = self._in_history = self._ended = False

    # --- StreamHandler ---------------------------------------------------------------------------

    def on_message(self, raw: bytes) -> None:
        """The request."""
        op = requests.range_op(requests.parse(rpc_pb2.RangeRequest, raw))
        check_request(op)
        if op.sort_order == _DESCEND or op.sort_target != 0:
            raise UnimplementedError("RangeStream does not support custom sort orders")
        if has_filters(op):
            raise UnimplementedError("RangeStream does not support revision filters")
        if self._op is not None:
            raise InvalidArgumentError("RangeStream takes one request")
        self._op = op
        if op.serializable:
            begun = self._start(op)
            if isinstance(begun, Waiting):
                begun.bind(self._finish_on_error)
        else:
            linearizable = self._service.linearizable(self._caller, lambda: self._start(op))
            linearizable.bind(self._finish_on_error)

    def on_writable(self) -> None:
        """The client has read."""
        if self._resting and not self._ended:
            self._resting = False
            if self._in_history:
                self._page()
            else:
                self._slices.add(self)

    def on_half_close(self) -> None:
        """There is one request, and it was read."""

    def on_cancel(self) -> None:
        """The client is gone."""
        self._ended = True
        self._forget()

    # --- beginning -------------------------------------------------------------------------------

    def _start(self, op: RangeOp) -> bytes | Waiting:
        if self._ended:
            return b""
        service = self._service
        try:
            service.may_read(self._caller, op.span)
            service.member.store.check_revision(op.revision)
        except ConfigServiceError as error:
            self._end(error)
            return b""
        if service.member.audit.marks_read("kv.range", op.span):
            about = about_span(op.span, KV_RANGE)
            return service.recorded(
                self._caller,
                "kv.range",
                about,
                lambda: self._begin(op),
                still=lambda: service.may_read(self._caller, op.span),
            )
        return self._begin(op)

    def _begin(self, op: RangeOp) -> bytes:
        if self._ended:
            return b""
        store = self._service.member.store
        store.tally.ranges += 1
        self._revision = op.revision if op.revision > 0 else store.revision
        self._next_start = op.span.start
        try:
            cursor = RangeCursor(store, op.span, self._revision, follow_floor=True)
        except NeedHistory:
            self._go_to_history(op)
        except ConfigServiceError as error:
            self._end(error)
        else:
            self._cursor = cursor
            self._steps = self._run(op, cursor)
            self._slices.add(self)
        return b""

    def _finish_on_error(self, result: bytes | ConfigServiceError) -> None:
        if isinstance(result, ConfigServiceError):
            self._end(result)

    # --- from memory -----------------------------------------------------------------------------

    def __call__(self) -> bool:
        """The next slice; whether there is more to do just now."""
        if self._ended:
            return False
        try:
            next(self._steps)
        except StopIteration:
            return False
        except NeedHistory:
            if self._op is not None:
                self._go_to_history(self._op)
            return False
        except ConfigServiceError as error:
            self._end(error)
            return False
        return self._goes_on

    def _run(self, op: RangeOp, cursor: RangeCursor) -> Iterator[None]:
        while not self._ended:
            want = min(RANGE_PIECE_KEYS, self._chunk - self._keys)
            if op.limit > 0:
                want = min(want, op.limit - self._given - self._keys)
            found = cursor.next_chunk(want)
            if not found and not cursor.done:
                yield  # there is much to undo first
                continue
            self._count = cursor.count
            if op.count_only or not found:
                self._last()
                return
            for portion in portions(found):
                part = answers.key_values(portion, keys_only=op.keys_only)
                self._parts.append(part)
                self._keys += len(portion)
                self._size += len(part)
                if self._keys >= self._chunk or self._size >= CHUNK_BYTES or self._is_last(op):
                    self._send_chunk(op)
                yield

    # --- from SQL --------------------------------------------------------------------------------

    def _go_to_history(self, op: RangeOp) -> None:
        """Go on where the cursor stands, or begin."""
        if self._cursor is not None:
            self._next_start = self._cursor.position
        self._forget()
        self._in_history = True
        if self._count is not None:
            self._page()
            return
        member = self._service.member
        ask = op._replace(count_only=True, limit=0, revision=self._revision)
        self._ask(lambda: member.reader.range_at(ask, self._revision), self._counted)

    def _counted(self, result: RangeResult | ConfigServiceError) -> None:
        if self._ended:
            return
        if isinstance(result, ConfigServiceError):
            self._end(result)
            return
        self._count = result.count
        if not result.count or (self._op is not None and self._op.count_only):
            self._last()
        else:
            self._page()

    def _page(self) -> None:
        op, revision = self._op, self._revision
        if op is None or self._ended:
            return
        want = self._chunk - self._keys
        if op.limit > 0:
            want = min(want, op.limit - self._given - self._keys)
        page = op._replace(
            span=op.span._replace(start=self._next_start), revision=revision, limit=max(1, want)
        )
        reader = self._service.member.reader

        def read() -> tuple[bytes, int, bytes]:
            kvs = reader.range_at(page, revision).kvs
            return answers.key_values(kvs), len(kvs), kvs[-1].key + b"\0" if kvs else b""

        self._ask(read, self._deliver)

    def _deliver(self, found: tuple[bytes, int, bytes] | ConfigServiceError) -> None:
        op = self._op
        if op is None or self._ended:
            return
        if isinstance(found, ConfigServiceError):
            self._end(found)
            return
        part, keys, self._next_start = found
        self._parts.append(part)
        self._keys += keys
        self._size += len(part)
        if keys:
            self._send_chunk(op)
        else:
            self._last()
        if self._goes_on:
            self._page()

    @property
    def _goes_on(self) -> bool:
        return not self._ended and not self._resting

    def _ask(self, question: Any, done: Any) -> None:
        member = self._service.member
        try:
            member.store.check_revision(self._revision)
            member.gate.run(member.applied, question, done)
        except ConfigServiceError as error:
            self._end(error)

    # --- sending ---------------------------------------------------------------------------------

    def _is_last(self, op: RangeOp) -> bool:
        sent = self._given + self._keys
        return sent >= (self._count or 0) or 0 < op.limit <= sent

    def _send_chunk(self, op: RangeOp) -> None:
        if self._is_last(op):
            self._last()
            return
        if not self._still_may():
            return
        self._given += self._keys
        self._chunk = _next_chunk(self._chunk, self._size)
        if not self._sink.send(bytes_field(1, self._taken())):
            self._resting = True
            if self._cursor is not None:
                self._cursor.rest()

    def _last(self) -> None:
        """Header, more and count come with the last chunk only (S3)."""
        if not self._still_may():
            return
        count, sent = self._count or 0, self._given + self._keys
        counting = self._op is not None and self._op.count_only
        end = answers.range_tail(more=sent < count and not counting, count=count)
        self._sink.send(bytes_field(1, self._service.header() + self._taken() + end))
        self._end(None)

    def _still_may(self) -> bool:
        """Whether the rights still hold; if not the stream has ended with that."""
        if self._op is not None:
            try:
                self._service.may_read(self._caller, self._op.span, again=True)
            except ConfigServiceError as error:
                self._end(error)
        return not self._ended

    def _taken(self) -> bytes:
        taken = b"".join(self._parts)
        self._parts.clear()
        self._keys = self._size = 0
        return taken

    def _end(self, error: ConfigServiceError | None) -> None:
        if not self._ended:
            self._ended = True
            self._forget()
            self._sink.finish(error)

    def _forget(self) -> None:
        if self._cursor is not None:
            self._cursor.close()
            self._cursor = None


def _next_chunk(keys: int, size: int) -> int:
    """Aim at about a megabyte a chunk (S5)."""
    if size > CHUNK_BYTES:
        return max(1, keys // 2)
    return min(CHUNK_KEYS_MAX, keys * 2)
