"""etcdserverpb.Watch: one stream, many watchers (W1–W25)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from configsvc import limits
from configsvc.api.callers import NS, Connection, Metadata, expired
from configsvc.api.contract import NEVER_NS, Caller, ConnectionIdentity, StreamHandler, StreamSink
from configsvc.api.refusals import Refusals
from configsvc.api.service import Service, about_span
from configsvc.api.status import Code, status_of
from configsvc.auth.actions import KV_RANGE
from configsvc.codec import requests
from configsvc.errors import (
    CompactedError,
    ConfigServiceError,
    InvalidAuthTokenError,
    NoLeaderError,
    OverloadedError,
    RequestError,
    UserEmptyError,
)
from configsvc.mvcc.watch import NO_DELETE, NO_PUT
from configsvc.proto import rpc_pb2
from configsvc.runtime.member import Member
from configsvc.runtime.watch_hub import Watcher, WatchStream, control_message
from configsvc.types import KeySpan, span_of

WATCH_PATH: Final = "/etcdserverpb.Watch/Watch"
EMPTY_RANGE: Final = "mvcc: watcher range is empty"
DUPLICATE_ID: Final = "mvcc: duplicate watch ID provided on the WatchStream"
TOO_LONG: Final = f"key or range_end is longer than {limits.KEY_BYTES_MAX} bytes"
TOO_MANY: Final = "configsvc: too many watches"
EXPIRY_LOOK_S: Final = 60.0  # a certificate's time is looked at so often: the clock may be set
BAD_LOGIN: Final = (InvalidAuthTokenError, UserEmptyError)
_GO_NAMES: Final = {
    Code.PERMISSION_DENIED: "PermissionDenied",
    Code.UNAUTHENTICATED: "Unauthenticated",
    Code.INVALID_ARGUMENT: "InvalidArgument",
}


class WatchService(Service):
    """Handler of Watch."""

    def __init__(self, member: Member, refusals: Refusals) -> None:
        super().__init__(member)
        self.refusals = refusals
        self.parked = 0  # watchers of all streams that compaction ended and nobody cancelled yet

    def watch(self, caller: Caller, sink: StreamSink) -> StreamHandler:
        return self._open(caller, sink, None)

    def refused(
        self,
        error: RequestError,
        identity: ConnectionIdentity,
        metadata: Metadata,
        sink: StreamSink,
    ) -> StreamHandler:
        """A stream whose token is bad or missing refuses each watcher and lives on, as etcd's.

        Anything else that a caller is refused for ends the stream.
        """
        if not isinstance(identity, Connection) or not isinstance(error, BAD_LOGIN):
            raise error
        principal, source = identity.suspect()  # for the records; none of its rights count (ID-6)
        caller = Caller(principal, source, b"")
        caller.has_leader = (b"hasleader", b"true") in metadata
        return self._open(caller, sink, error)

    def _open(
        self, caller: Caller, sink: StreamSink, refusal: RequestError | None
    ) -> StreamHandler:
        if caller.has_leader and not self.member.lead:
            raise NoLeaderError
        if self.member.memory.tight:
            raise OverloadedError
        return WatchHandler(self, caller, sink, refusal)


class WatchHandler:
    """One Watch stream; with a ``refusal`` it is nobody's, and every watcher ends with that."""

    def __init__(
        self,
        service: WatchService,
        caller: Caller,
        sink: StreamSink,
        refusal: RequestError | None = None,
    ) -> None:
        self._service = service
        self._caller = caller
        self._sink = sink
        self._refusal = refusal
        self._ended = False
        self._hub = service.member.hub
        self._stream = WatchStream(sink, self._still_may, self._refused)
        self._compacted: set[int] = set()  # ended by compaction, not yet cancelled (W22)
        self._coming: set[int] = set()  # created once their record is on disk
        self._expiry: asyncio.TimerHandle | None = None
        self._hub.streams += 1
        service.member.streams.add(self)
        self._look_at_expiry()

    # --- client ----------------------------------------------------------------------------------

    def on_message(self, raw: bytes) -> None:
        m = requests.parse(rpc_pb2.WatchRequest, raw)
        kind = m.WhichOneof("request_union")
        if kind == "create_request":
            self._create(m.create_request)
        elif kind == "cancel_request":
            self._cancel(m.cancel_request.watch_id)
        elif kind == "progress_request":
            self._progress()

    def _create(self, m: rpc_pb2.WatchCreateRequest) -> None:
        key = m.key or b"\0"
        # The span is made once; what is authorized is what is watched (N4).
        span = span_of(key, m.range_end)
        header = self._service.header()
        if max(len(m.key), len(m.range_end)) > limits.KEY_BYTES_MAX:
            self._refuse(header, TOO_LONG)  # before it is kept, in a watcher or in a record
            return
        if span.is_empty() and self._refusal is None:  # who asks comes before what
            self._refuse(header, EMPTY_RANGE)
            return
        if m.watch_id and self._is_taken(m.watch_id):
            self._refuse(header, DUPLICATE_ID)
            return
        if self._are_too_many():
            self._refuse(header, TOO_MANY)
            return
        try:
            self._may(span)
        except RequestError as error:
            reason = _reason(error)
            self._after_record(error, lambda: self._refuse(self._service.header(), reason))
            return
        if m.start_revision < 0:
            self._refuse(header, CompactedError.text)
            return
        watch_id = m.watch_id or self._free_id()
        if self._service.member.audit.marks_read("kv.watch", span):
            about = about_span(span, KV_RANGE)

            def begin() -> bytes:
                self._coming.discard(watch_id)
                if not self._ended:
                    self._begin(m, span, watch_id)
                return b""

            self._coming.add(watch_id)
            self._service.recorded(
                self._caller, "kv.watch", about, begin, still=_judged_by_batch
            ).bind(self._failed)
        else:
            self._begin(m, span, watch_id)

    def _begin(self, m: rpc_pb2.WatchCreateRequest, span: KeySpan, watch_id: int) -> None:
        """Create a watcher that is allowed; its rights are judged again before its first batch."""
        stream, header = self._stream, self._service.header()
        self._sink.send(control_message(header, watch_id, created=True))
        store = self._service.member.store
        if 0 < m.start_revision < store.compact_revision:
            self._park(watch_id)
            return
        filters = (NO_PUT if 0 in m.filters else 0) | (NO_DELETE if 1 in m.filters else 0)
        self._hub.add(
            stream,
            watch_id,
            span,
            m.start_revision,
            filters=filters,
            prev_kv=m.prev_kv,
            progress=m.progress_notify,
            fragment=m.fragment,
        )

    def _is_taken(self, watch_id: int) -> bool:
        return (
            watch_id in self._stream.ids or watch_id in self._compacted or watch_id in self._coming
        )

    def _are_too_many(self) -> bool:
        """Whether one watcher more is too much; those that only wait to be cancelled count."""
        here = len(self._stream.ids) + len(self._compacted) + len(self._coming)
        if here >= limits.WATCHES_PER_CONNECTION_MAX:
            return True
        return len(self._hub) + self._service.parked >= limits.WATCHES_MAX

    def _free_id(self) -> int:
        stream = self._stream
        while self._is_taken(stream.next_id):
            stream.next_id += 1
        stream.next_id += 1
        return stream.next_id - 1

    def _park(self, watch_id: int) -> None:
        """Compaction ended it: it is told so and exists until it is cancelled (W22)."""
        self._compacted.add(watch_id)
        self._service.parked += 1
        self._tell_compacted(watch_id)

    def _cancel(self, watch_id: int) -> None:
        watcher = self._stream.ids.get(watch_id)
        if watcher is not None:
            self._hub.remove(watcher)
        elif watch_id in self._compacted:
            self._compacted.discard(watch_id)
            self._service.parked -= 1
        else:
            return  # unknown: no answer at all (W21)
        self._sink.send(control_message(self._service.header(), watch_id, canceled=True))

    def _progress(self) -> None:
        if self._compacted or not self._hub.all_synced(self._stream):
            return
        self._sink.send(control_message(self._service.header(), -1))

    def on_half_close(self) -> None:
        return  # events go on until the call is cancelled (W2)

    def on_cancel(self) -> None:
        self._ended = True
        if self._expiry is not None:
            self._expiry.cancel()
        self._service.parked -= len(self._compacted)
        self._compacted.clear()
        self._hub.close(self._stream)
        self._hub.streams -= 1
        self._service.member.streams.discard(self)

    def on_writable(self) -> None:
        self._hub.writable(self._stream)

    # --- rights and ends -------------------------------------------------------------------------

    def _still_may(self, span: KeySpan) -> None:
        self._may(span, again=True)

    def _may(self, span: KeySpan, *, again: bool = False) -> None:
        if self._refusal is not None:
            error = type(self._refusal)()  # each watcher's refusal is recorded by itself
            error.detail = self._refusal.detail
            error.about = about_span(span, KV_RANGE)
            raise error
        self._service.may_read(self._caller, span, again=again)

    def _refused(self, watcher: Watcher, error: ConfigServiceError) -> None:
        """The hub ended a watcher: compaction overtook it, or its rights are gone."""
        if isinstance(error, CompactedError):
            self._stream.ids.pop(watcher.watch_id, None)
            self._park(watcher.watch_id)
            return
        text = _reason(error) if isinstance(error, RequestError) else "internal error"

        def tell() -> None:
            header = self._service.header()
            self._sink.send(control_message(header, watcher.watch_id, canceled=True, reason=text))

        self._after_record(error, tell)

    def _after_record(self, error: ConfigServiceError, tell: Callable[[], None]) -> None:
        """Tell a refusal once it is recorded; the stream lives on (3.13)."""

        def then(outcome: BaseException) -> None:
            if self._ended:
                return
            if outcome is error:
                tell()
            else:
                self._failed(outcome)

        caller = self._caller
        self._service.refusals.record(error, caller.principal, caller.source, WATCH_PATH, then)

    def _failed(self, outcome: object) -> None:
        """The audit log cannot be written: the stream ends (FC-2)."""
        if isinstance(outcome, ConfigServiceError) and not self._ended:
            self.on_cancel()
            self._sink.finish(outcome)

    def _tell_compacted(self, watch_id: int) -> None:
        """Header revision 0 and no reason (W10)."""
        floor = self._service.member.store.compact_revision
        self._sink.send(
            control_message(
                self._service.header_at(0), watch_id, canceled=True, compact_revision=floor
            )
        )

    def _refuse(self, header: bytes, reason: str) -> None:
        self._sink.send(control_message(header, -1, created=True, canceled=True, reason=reason))

    @property
    def needs_leader(self) -> bool:
        """Whether the stream ends when this member sees no leader for long (X4)."""
        return self._caller.has_leader

    def leader_lost(self) -> None:
        """No leader for three election timeouts."""
        self.on_cancel()
        self._sink.finish(NoLeaderError())

    def _look_at_expiry(self) -> None:
        """End the stream when its certificate runs out: nothing of then is told (N24)."""
        if self._caller.expires_ns == NEVER_NS:
            return
        member = self._service.member
        left_s = (self._caller.expires_ns - member.time_ns()) / NS
        if left_s > 0:
            look = min(left_s, EXPIRY_LOOK_S)
            self._expiry = member.loop.call_later(look, self._look_at_expiry)
        else:
            self.on_cancel()
            self._sink.finish(expired())


def _judged_by_batch() -> None:
    """A watcher's rights are judged before its first batch, and before every other."""


def _reason(error: RequestError) -> str:
    """A refusal as Go prints a status; clients compare it."""
    code, text = status_of(error)
    name = _GO_NAMES.get(Code(code))
    return f"rpc error: code = {name} desc = {text}" if name else text
