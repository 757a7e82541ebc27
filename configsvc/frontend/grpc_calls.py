"""gRPC calls that are not answered at once: half-read ones, waiting ones, streams.

Each sits in its stream's ``context`` and is told what happens there: ``feed``, ``half_close``,
``cancel``, ``writable``, ``expire``. ``Http2Session`` is their only caller, the runtime calls
``UnaryCall`` (as ``Finish``) and ``StreamCall`` (as ``StreamSink``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from configsvc.api.call_counts import OK
from configsvc.api.contract import Answer, Method, Pieces, StreamHandler, Waiting
from configsvc.errors import ConfigServiceError, OverloadedError, ensure
from configsvc.http2 import grpc
from configsvc.http2.grpc import GrpcFault, MessageReader
from configsvc.http2.stream import CLOSED, Stream
from configsvc.limits import (
    CONNECTION_OUT_BYTES_MAX,
    STREAM_OUT_BYTES_HARD,
    STREAM_OUT_BYTES_SOFT,
)

if TYPE_CHECKING:
    from configsvc.frontend.http2_session import Http2Session

_DEADLINE_TEXT = "context deadline exceeded"


class UnaryRead:
    """A unary call whose request came in pieces."""

    begun = False
    deadline: float | None = None  # counts from the moment when the request is whole

    def __init__(self, session: Http2Session, stream: Stream) -> None:
        self._session = session
        self._stream = stream
        self._reader = MessageReader()
        self._message: bytes | None = None

    @property
    def held(self) -> int:
        """Bytes kept for this call."""
        return self._reader.held + len(self._message or b"")

    @property
    def need(self) -> int:
        """Bytes kept when the message is complete."""
        return self._reader.need + len(self._message or b"")

    def feed(self, chunk: bytes) -> None:
        """Take body bytes; a unary call has exactly one message."""
        try:
            for message in self._reader.feed(chunk):
                if self._message is not None:
                    raise GrpcFault(grpc.UNIMPLEMENTED, "unary call with several messages")
                self._message = message
        except GrpcFault as fault:
            self._message = None
            self._reader = MessageReader()
            self._session.turn_away(self._stream, fault.code, fault.text)

    def half_close(self) -> None:
        """The request is whole: answer it, or say what is missing."""
        message, self._message = self._message, None
        if self._reader.held:
            self._session.turn_away(self._stream, grpc.INTERNAL, "message cut short")
        elif message is None:
            self._session.turn_away(
                self._stream, grpc.UNIMPLEMENTED, "unary call without a message"
            )
        else:
            self._session.call_unary(self._stream, message)

    def cancel(self) -> None:
        """Nothing has started yet."""

    def writable(self) -> None:
        """Nothing is sent from here."""


class EndingCall:
    """A refused call whose status waits for its record; whatever still comes in is dropped."""

    __slots__ = ()

    begun = False  # counted with the status that it waits for
    deadline: float | None = None
    held = 0
    need = 0

    def feed(self, chunk: bytes) -> None:
        """Not wanted any more."""

    def half_close(self) -> None:
        """The status is on its way."""

    def cancel(self) -> None:
        """Nothing waits here."""

    def writable(self) -> None:
        """Nothing is sent from here."""


ENDING: Final = EndingCall()


class UnaryCall:
    """A unary call that waits for the runtime; the object itself is its ``Finish``."""

    __slots__ = ("_session", "_stream", "_waiting", "deadline")

    begun = True
    held = 0

    def __init__(
        self, session: Http2Session, stream: Stream, waiting: Waiting, deadline: float | None
    ) -> None:
        self._session = session
        self._stream = stream
        self._waiting = waiting
        self.deadline = deadline  # on the loop's clock
        session.shared.admission.unary += 1
        session.tally.unary += 1

    def __call__(self, result: Answer | ConfigServiceError) -> None:
        """The answer is there."""
        session = self._session
        stream = self._stream
        if stream.state == CLOSED:
            return
        self._release()
        if isinstance(result, bytes):
            stream.head.context.counts.handled[OK] += 1
            grpc.answer(session.outbox, stream, result)
        elif isinstance(result, Pieces):
            stream.head.context.counts.handled[OK] += 1
            grpc.answer_pieces(session.outbox, stream, result.parts, result.size)
        else:
            session.fail_call(stream, result)
        session.wake()

    def cancel(self) -> None:
        """Reset, or the connection is lost."""
        self._release()
        self._waiting.cancel()

    def expire(self) -> None:
        """The caller's time is up."""
        self.cancel()
        self._session.end_call(self._stream, grpc.DEADLINE_EXCEEDED, _DEADLINE_TEXT)

    def feed(self, chunk: bytes) -> None:
        """Cannot happen: the request was whole."""
        ensure(False, "body bytes after the end of a request")

    def half_close(self) -> None:
        """Cannot happen: the request was whole."""
        ensure(False, "second end of a request")

    def writable(self) -> None:
        """A unary answer is sent whole: nobody waits for room."""

    def _release(self) -> None:
        self._stream.context = None
        self._session.shared.admission.unary -= 1
        self._session.tally.unary -= 1


class StreamCall:
    """A running stream: the sink of its handler, and the handler's only caller."""

    def __init__(self, session: Http2Session, stream: Stream, method: Method) -> None:
        self._session = session
        self._stream = stream
        self._reader = MessageReader()
        self._handler: StreamHandler | None = None
        self._counts = method.counts
        self._single = not method.client_stream
        self._messages = 0
        self._ended = False
        self.deadline: float | None = None
        session.shared.admission.run_stream(session.tally, 1)

    def start(self, handler: StreamHandler) -> None:
        """Attach the handler that was made with this sink."""
        self._handler = handler

    @property
    def begun(self) -> bool:
        """Whether it is still to be counted as ended."""
        return not self._ended

    @property
    def held(self) -> int:
        """Bytes of the incomplete message."""
        return self._reader.held

    @property
    def need(self) -> int:
        """Bytes of that message when it is complete."""
        return self._reader.need

    # --- StreamSink ---------------------------------------------------------------------------

    def send(self, payload: bytes) -> bool:
        """Queue one message; False above the bound, see ``StreamSink``."""
        if self._ended:
            return False
        session, stream = self._session, self._stream
        if stream.queued > STREAM_OUT_BYTES_HARD:
            self._cut_off()
            return False
        self._counts.sent += 1
        grpc.send_message(session.outbox, stream, payload)
        session.wake()
        if stream.queued <= STREAM_OUT_BYTES_SOFT and (
            session.outbox.held <= CONNECTION_OUT_BYTES_MAX or not stream.queued
        ):
            return True
        stream.wants_room = True
        return False

    def finish(self, error: ConfigServiceError | None) -> None:
        """End the stream with a status."""
        if self._ended:
            return
        self._end()
        if error is None:
            self._session.end_call(self._stream, grpc.OK, "")
        else:
            self._session.fail_call(self._stream, error)
        self._session.wake()

    # --- called by the session -----------------------------------------------------------------

    def feed(self, chunk: bytes) -> None:
        """Take body bytes and hand on the messages that they complete."""
        if self._ended:
            return
        try:
            for message in self._reader.feed(chunk):
                self._messages += 1
                self._counts.received += 1
                if self._single and self._messages > 1:
                    raise GrpcFault(grpc.UNIMPLEMENTED, "call with more than one message")
                if not self._tell_message(message):
                    return
        except GrpcFault as fault:
            self._reader = MessageReader()
            self._stop(fault.code, fault.text)
            return
        self._session.http2.consumed(self._stream)

    def half_close(self) -> None:
        """The client sends no more."""
        if self._ended:
            return
        if self._reader.held:
            self._stop(grpc.INTERNAL, "message cut short")
        elif self._single and not self._messages:
            self._stop(grpc.UNIMPLEMENTED, "call without a message")
        elif self._handler is not None:
            try:
                self._handler.on_half_close()
            except Exception as error:  # noqa: BLE001 - status_of tells bugs from refusals
                self.fail(error)

    def writable(self) -> None:
        """There is room again."""
        if self._ended or self._handler is None:
            return
        try:
            self._handler.on_writable()
        except Exception as error:  # noqa: BLE001 - likewise
            self.fail(error)

    def cancel(self) -> None:
        """Reset, deadline or lost connection: free everything, send nothing."""
        if not self._ended:
            self._end()
            if self._handler is not None:
                self._session.shared.guard(self._handler.on_cancel)

    def expire(self) -> None:
        """The caller's time is up."""
        self._stop(grpc.DEADLINE_EXCEEDED, _DEADLINE_TEXT)

    def stop(self, error: ConfigServiceError) -> None:
        """End the stream from our side, though its handler would go on."""
        if not self._ended:
            self.cancel()
            self._session.fail_call(self._stream, error)

    def fail(self, error: Exception) -> None:
        """End the stream with the status of an error, ours or the handler's."""
        if not self._ended:
            self.cancel()
            self._session.fail_call(self._stream, error)

    # --- inside ----------------------------------------------------------------------------------

    def _end(self) -> None:
        self._ended = True
        self._session.shared.admission.run_stream(self._session.tally, -1)

    def _tell_message(self, message: bytes) -> bool:
        """Hand one message on; False when the stream ended over it."""
        if self._handler is not None:
            try:
                self._handler.on_message(message)
            except Exception as error:  # noqa: BLE001 - status_of tells bugs from refusals
                self.fail(error)
        return not self._ended

    def _stop(self, code: int, text: str) -> None:
        if not self._ended:
            self.cancel()
            self._session.end_call(self._stream, code, text)

    def _cut_off(self) -> None:
        """The handler ignored the bound: what is queued is given up with the stream."""
        self.cancel()
        self._session.abandon(self._stream, OverloadedError())
