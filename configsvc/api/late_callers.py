"""Calls whose token names an index that this member has yet to apply (A16).

etcd's simple tokens carry the log index of their making. A member that is behind does not know the
user or the password of that moment, so the call waits until the index is applied, and is judged
then. The wait is bounded like that of a read; after it the token is as bad as any other.

Not here: what a token says (``identity.etcd_tokens``), the wait itself (``runtime.reads``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from configsvc.api.contract import (
    Ahead,
    Caller,
    RefusedFactory,
    StreamFactory,
    StreamHandler,
    StreamSink,
    UnaryHandler,
)
from configsvc.errors import (
    ConfigServiceError,
    InvalidAuthTokenError,
    OverloadedError,
    RequestError,
    TimeoutWaitAppliedIndexError,
)
from configsvc.limits import LATE_STREAM_BYTES_MAX
from configsvc.runtime.reads import Reads
from configsvc.runtime.waiting import Waiting

TOO_LONG: Final = "token names an entry that was not applied in time"


class LateCallers:
    """Wraps the handlers of a member that takes etcd's tokens."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    def unary(self, handler: UnaryHandler) -> UnaryHandler:
        """``handler``, which a caller reaches once it is known."""

        def call(caller: Caller, raw: bytes) -> bytes | Waiting:
            if caller.ahead is None:
                return handler(caller, raw)
            out = _LateCall(handler, caller, raw)
            out.wait(self._reads, caller.ahead)
            return out

        return call

    def stream(self, factory: StreamFactory, refused: RefusedFactory | None) -> StreamFactory:
        """``factory``, whose streams begin once their caller is known."""

        def call(caller: Caller, sink: StreamSink) -> StreamHandler:
            if caller.ahead is None:
                return factory(caller, sink)
            out = _LateStream(factory, refused, caller, sink)
            out.wait(self._reads, caller.ahead)
            return out

        return call


def _when_applied(
    reads: Reads,
    ahead: Ahead,
    go_on: Callable[[Ahead, bool], None],
    fail: Callable[[ConfigServiceError], None],
) -> Waiting:
    """Call ``go_on`` once the index is applied, or with True when it took too long."""

    def applied() -> bytes:
        go_on(ahead, False)
        return b""

    def ended(outcome: bytes | ConfigServiceError) -> None:
        if isinstance(outcome, TimeoutWaitAppliedIndexError):
            go_on(ahead, True)
        elif isinstance(outcome, ConfigServiceError):
            fail(outcome)

    waiting = reads.once_applied(ahead.needs, applied)
    waiting.bind(ended)
    return waiting


def _meet(caller: Caller, ahead: Ahead, timed_out: bool) -> None:
    """Let the caller be known, or raise what it is refused for."""
    if timed_out:
        error = InvalidAuthTokenError()
        error.detail = TOO_LONG
        raise error
    caller.become(ahead.identity.caller(ahead.metadata))


class _LateCall(Waiting):
    """A unary call whose caller is not known yet; cancelling it cancels what it waits for."""

    __slots__ = ("_caller", "_handler", "_inner", "_raw")

    def __init__(self, handler: UnaryHandler, caller: Caller, raw: bytes) -> None:
        super().__init__()
        self._handler = handler
        self._caller = caller
        self._raw = raw
        self._inner: Waiting | None = None

    def wait(self, reads: Reads, ahead: Ahead) -> None:
        """Go on once the index is applied."""
        self._inner = _when_applied(reads, ahead, self._go_on, self.complete)

    def cancel(self) -> None:
        super().cancel()
        if self._inner is not None:
            self._inner.cancel()

    def _go_on(self, ahead: Ahead, timed_out: bool) -> None:
        try:
            _meet(self._caller, ahead, timed_out)
            result = self._handler(self._caller, self._raw)
        except Exception as error:  # noqa: BLE001 - whoever is told tells bugs from refusals
            self.complete(error)  # type: ignore[arg-type]
            return
        if isinstance(result, bytes):
            self.complete(result)
        else:
            self._inner = result
            result.bind_pieces(self.complete)


class _LateStream:
    """A stream whose caller is not known yet; keeps what it is sent meanwhile, up to a bound."""

    def __init__(
        self,
        factory: StreamFactory,
        refused: RefusedFactory | None,
        caller: Caller,
        sink: StreamSink,
    ) -> None:
        self._factory = factory
        self._refused = refused
        self._caller = caller
        self._sink = _Sink(sink)
        self._waiting: Waiting | None = None
        self._handler: StreamHandler | None = None
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._half_closed = False

    def wait(self, reads: Reads, ahead: Ahead) -> None:
        """Go on once the index is applied."""
        self._waiting = _when_applied(reads, ahead, self._go_on, self._fail)

    # --- StreamHandler ---------------------------------------------------------------------------

    def on_message(self, raw: bytes) -> None:
        if self._handler is not None:
            self._handler.on_message(raw)
            return
        self._kept_bytes += len(raw) + 1  # empty ones count, too
        if self._kept_bytes > LATE_STREAM_BYTES_MAX:
            raise OverloadedError
        self._kept.append(raw)

    def on_half_close(self) -> None:
        self._half_closed = True
        if self._handler is not None:
            self._handler.on_half_close()

    def on_writable(self) -> None:
        if self._handler is not None:
            self._handler.on_writable()

    def on_cancel(self) -> None:
        self._kept.clear()
        if self._handler is not None:
            self._handler.on_cancel()
        elif self._waiting is not None:
            self._waiting.cancel()

    # --- inside ----------------------------------------------------------------------------------

    def _go_on(self, ahead: Ahead, timed_out: bool) -> None:
        try:
            handler = self._begun(ahead, timed_out)
        except Exception as error:  # noqa: BLE001 - whoever is told tells bugs from refusals
            self._fail(error)
            return
        self._handler = handler
        kept, self._kept = self._kept, []
        try:
            for raw in kept:
                if not self._sink.ended:
                    handler.on_message(raw)
            if self._half_closed and not self._sink.ended:
                handler.on_half_close()
        except Exception as error:  # noqa: BLE001 - likewise
            handler.on_cancel()
            self._fail(error)

    def _begun(self, ahead: Ahead, timed_out: bool) -> StreamHandler:
        try:
            _meet(self._caller, ahead, timed_out)
        except RequestError as error:
            if self._refused is None:
                raise
            return self._refused(error, ahead.identity, ahead.metadata, self._sink)
        return self._factory(self._caller, self._sink)

    def _fail(self, error: Exception) -> None:
        self._kept.clear()
        self._sink.finish(error)  # type: ignore[arg-type]


class _Sink:
    """The stream's sink, which knows whether the handler ended it."""

    def __init__(self, sink: StreamSink) -> None:
        self._sink = sink
        self.ended = False

    def send(self, payload: bytes) -> bool:
        return self._sink.send(payload)

    def finish(self, error: ConfigServiceError | None) -> None:
        self.ended = True
        self._sink.finish(error)
