"""The receiving half of one HTTP/2 connection, as a server (RFC 9113).

``receive(data, now)`` walks all frames of one read in one loop and returns what happened, as
plain tuples ``(kind, stream, payload)``. It never raises: a peer's fault becomes RST_STREAM or
GOAWAY in the outbox, and after a GOAWAY for a fault nothing is looked at any more (``fault``).

Always true:
  * No frame's body is waited for before its length was judged.
  * Every header block goes through the decoder, in order, also for streams that are refused.
  * Work that no request pays for is paid from ``FrameBudget``.

Not here: windows and framing of answers (``outbox``), messages in DATA (``grpc``).
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from configsvc.http2 import protocol as p
from configsvc.http2.floods import FrameBudget, PingPolicy
from configsvc.http2.headers import HeaderDecoder
from configsvc.http2.outbox import Outbox
from configsvc.http2.protocol import ConnectionFault, StreamFault
from configsvc.http2.request import check_trailers
from configsvc.http2.settings import server_settings, settings_in
from configsvc.http2.stream import HALF_CLOSED_REMOTE, OPEN, RECEIVE_END, Stream
from configsvc.limits import (
    HEADER_BLOCK_BYTES_MAX,
    HTTP2_CONNECTION_WINDOW_BYTES,
    HTTP2_FRAME_BYTES_MAX,
    HTTP2_STREAM_WINDOW_BYTES,
    HTTP2_STREAMS_MAX,
)

# Kinds of events
HEAD: Final = 0  # a new stream; its ``head`` is checked
DATA: Final = 1  # bytes of its body, more follow
DATA_END: Final = 2  # bytes of its body, possibly none, and the peer's half-close
RESET: Final = 3  # gone: by the peer, or by us for the peer's fault

Event = tuple[int, Stream, bytes]

_UINT32: Final = Struct(">I")
_DATA: Final = p.DATA
_HEADERS: Final = p.HEADERS
_END_STREAM: Final = p.END_STREAM
_END_HEADERS: Final = p.END_HEADERS
_DRAIN_PING: Final = b"goingawa"
_CONNECTION_TOP_UP: Final = HTTP2_CONNECTION_WINDOW_BYTES // 4
_STREAM_TOP_UP: Final = HTTP2_STREAM_WINDOW_BYTES // 4


class Connection:
    """One connection from its preface to its end."""

    def __init__(self, now: float, *, max_streams: int = HTTP2_STREAMS_MAX) -> None:
        """Queue our SETTINGS; ``now`` is seconds on the scale that ``receive`` gets."""
        self._budget = FrameBudget(now)
        self._pings = PingPolicy()
        self.outbox = Outbox(self._budget, self._pings)
        self.streams = self.outbox.streams
        self.fault: ConnectionFault | None = None  # why the connection ended
        self.settled = False  # the peer's preface and SETTINGS have arrived
        self.peer_leaves = False  # it sent GOAWAY
        self.draining = False
        self._max_streams = max_streams
        self._decoder = HeaderDecoder()
        self._tail = b""
        self._preface_left = p.PREFACE
        self._last_id = 0  # highest stream id that the peer used
        self._final_id: int | None = None  # highest that we will serve, once announced
        self._window = HTTP2_CONNECTION_WINDOW_BYTES
        self._block: list[bytes] | None = None  # header block that waits for CONTINUATION
        self._block_bytes = 0
        self._block_stream = 0
        self._block_flags = 0
        self._events: list[Event] = []
        self.outbox.frames.append(server_settings(max_streams))
        self.outbox.frames.append(
            self._window_update(0, HTTP2_CONNECTION_WINDOW_BYTES - p.WINDOW_DEFAULT)
        )

    # --- interface -------------------------------------------------------------------------------

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Digest one read. Returns events in the order in which they happened."""
        self._events = []
        if self.fault is None:
            try:
                self._walk(data, now)
                if self._window < HTTP2_CONNECTION_WINDOW_BYTES - _CONNECTION_TOP_UP:
                    grown = HTTP2_CONNECTION_WINDOW_BYTES - self._window
                    self._window = HTTP2_CONNECTION_WINDOW_BYTES
                    self.outbox.frames.append(self._window_update(0, grown))
            except ConnectionFault as fault:
                self.fail(fault)
        return self._events

    def consumed(self, stream: Stream) -> None:
        """The consumer let go of whole messages: fill the stream's window up again."""
        missing = HTTP2_STREAM_WINDOW_BYTES - stream.receive_window
        if missing >= _STREAM_TOP_UP:
            self.widen(stream, missing)

    def widen(self, stream: Stream, by: int) -> None:
        """Let the peer send ``by`` more bytes on the stream than it may."""
        if stream.state == OPEN:
            self.outbox.frames.append(self._window_update(stream.id, by))
            stream.receive_window += by

    def refuse(self, stream: Stream, code: int, now: float) -> None:
        """Reset a stream for a reason of the consumer's; costs budget like any reset."""
        self.outbox.reset(stream, code)
        try:
            self._budget.charge(now)
        except ConnectionFault as fault:
            self.fail(fault)

    def drain(self) -> None:
        """Announce the end: no stream opened after the peer has heard of it is served.

        ``drained`` becomes true when the streams that were accepted are done. The final GOAWAY
        follows on the peer's next PING ACK, or on ``finish_drain``.
        """
        if self.draining or self.fault is not None:
            return
        self.draining = True
        self._goaway(p.WINDOW_MAX, p.NO_ERROR, b"")
        self.outbox.frames.append(p.frame(p.PING, 0, 0, _DRAIN_PING))

    def finish_drain(self) -> None:
        """Stop waiting for the peer to hear of ``drain``."""
        if self.draining and self._final_id is None and self.fault is None:
            self._final_id = self._last_id
            self._goaway(self._last_id, p.NO_ERROR, b"")

    @property
    def last_id(self) -> int:
        """The highest stream id that the peer has used; 0: none yet."""
        return self._last_id

    @property
    def drained(self) -> bool:
        """Whether the connection may be closed without hurting anybody."""
        if self.streams:
            return False
        return self.peer_leaves or self._final_id is not None

    def fail(self, fault: ConnectionFault) -> None:
        """End the connection with GOAWAY; the text is a constant of ours."""
        if self.fault is None:
            self.fault = fault
            self._tail = b""
            self._goaway(self._last_id, fault.code, fault.reason.encode())

    # --- the walk --------------------------------------------------------------------------------

    def _walk(self, data: bytes, now: float) -> None:
        if self._preface_left:
            data = self._eat_preface(data)
        if self._tail:
            data = self._tail + data
        position, end = 0, len(data)
        unpack = p.FRAME_HEADER.unpack_from
        while end - position >= p.FRAME_HEADER_BYTES:
            word, flags, stream_id = unpack(data, position)
            length = word >> 8
            kind = word & 0xFF
            if length > HTTP2_FRAME_BYTES_MAX:
                raise ConnectionFault(p.FRAME_SIZE_ERROR, "frame too long")
            start = position + p.FRAME_HEADER_BYTES
            stop = start + length
            if stop > end:
                break
            payload = data[start:stop]
            position = stop
            if stream_id > p.STREAM_ID_MASK:
                stream_id &= p.STREAM_ID_MASK
            if self._block is not None and (
                kind != p.CONTINUATION or stream_id != self._block_stream
            ):
                raise ConnectionFault(p.PROTOCOL_ERROR, "header block interrupted")
            try:
                if kind == _DATA:
                    if flags == _END_STREAM and self._whole_body(stream_id, payload):
                        continue
                    self._on_data(flags, stream_id, payload, now)
                elif kind == _HEADERS:
                    if flags == _END_HEADERS and self._plain_head(stream_id, payload):
                        continue
                    self._on_headers(flags, stream_id, payload, now)
                else:
                    self._on_other(kind, flags, stream_id, payload, now)
            except StreamFault as fault:
                self._reset_for(fault, now)
        self._tail = data[position:]

    def _plain_head(self, stream_id: int, block: bytes) -> bool:
        """A request's head as nearly all are; False leaves it to ``_on_headers``, untouched."""
        new = stream_id > self._last_id and stream_id & 1 and len(self.streams) < self._max_streams
        if not new or not self.settled or self._final_id is not None:
            return False
        head = self._decoder.known(block)
        if head is None:
            return False
        self._last_id = stream_id
        outbox = self.outbox
        stream = self.streams[stream_id] = Stream(stream_id, head, outbox.initial_window)
        outbox.budget.credit += 1
        self._events.append((HEAD, stream, b""))
        return True

    def _whole_body(self, stream_id: int, payload: bytes) -> bool:
        """The end of a request as nearly all send it; False: it is ``_on_data``'s, untouched."""
        stream = self.streams.get(stream_id)
        if stream is None or stream.state != OPEN or stream.head.content_length >= 0:
            return False
        size = len(payload)
        if size > self._window or size > stream.receive_window:
            return False
        self._window -= size
        stream.receive_window -= size
        stream.body_bytes += size
        stream.state = HALF_CLOSED_REMOTE  # OPEN and the peer's end: as in stream.MOVES
        self._events.append((DATA_END, stream, payload))
        return True

    def _eat_preface(self, data: bytes) -> bytes:
        wanted = self._preface_left
        taken = min(len(wanted), len(data))
        if data[:taken] != wanted[:taken]:
            raise ConnectionFault(p.PROTOCOL_ERROR, "bad preface")
        self._preface_left = wanted[taken:]
        return data[taken:]

    def _on_data(self, flags: int, stream_id: int, payload: bytes, now: float) -> None:
        if not self.settled:
            raise ConnectionFault(p.PROTOCOL_ERROR, "first frame is not SETTINGS")
        size = len(payload)
        self._window -= size
        if self._window < 0:
            raise ConnectionFault(p.FLOW_CONTROL_ERROR, "connection window exceeded")
        stream = self.streams.get(stream_id)
        if stream is None:
            self._late_data(stream_id)
            return
        if stream.state == HALF_CLOSED_REMOTE:
            raise StreamFault(stream_id, p.STREAM_CLOSED, "data after the end")
        stream.receive_window -= size
        if stream.receive_window < 0:
            raise StreamFault(stream_id, p.FLOW_CONTROL_ERROR, "stream window exceeded")
        if flags & p.PADDED:
            payload = _unpad(payload)
        stream.body_bytes += len(payload)
        if flags & p.END_STREAM:
            self._half_close(stream, payload)
        elif payload:
            self._events.append((DATA, stream, payload))
        else:
            self._budget.charge(now)

    def _late_data(self, stream_id: int) -> None:
        if stream_id == 0:
            raise ConnectionFault(p.PROTOCOL_ERROR, "data without a stream")
        if self._final_id is not None and stream_id > self._final_id:
            return  # opened after our final GOAWAY: not looked at
        if stream_id > self._last_id:
            raise ConnectionFault(p.PROTOCOL_ERROR, "data on an idle stream")
        if stream_id not in self.outbox.reset_by_us:
            raise ConnectionFault(p.STREAM_CLOSED, "data on a closed stream")

    def _half_close(self, stream: Stream, payload: bytes) -> None:
        announced = stream.head.content_length
        if announced >= 0 and announced != stream.body_bytes:
            raise StreamFault(stream.id, p.PROTOCOL_ERROR, "content-length is wrong")
        stream.move(RECEIVE_END)
        self._events.append((DATA_END, stream, payload))

    def _on_headers(self, flags: int, stream_id: int, payload: bytes, now: float) -> None:
        if not self.settled:
            raise ConnectionFault(p.PROTOCOL_ERROR, "first frame is not SETTINGS")
        if not stream_id & 1:
            raise ConnectionFault(p.PROTOCOL_ERROR, "headers on a stream that clients do not open")
        if flags & p.PADDED:
            payload = _unpad(payload)
        dependency = -1
        if flags & p.HAS_PRIORITY:
            if len(payload) < 5:
                raise ConnectionFault(p.FRAME_SIZE_ERROR, "priority cut short")
            dependency = _UINT32.unpack_from(payload)[0] & p.STREAM_ID_MASK
            payload = payload[5:]
        if flags & p.END_HEADERS:
            self._on_block(flags, stream_id, payload, now)
        else:
            self._block = [payload]
            self._block_bytes = len(payload)
            self._block_stream = stream_id
            self._block_flags = flags
        if dependency == stream_id:
            raise ConnectionFault(p.PROTOCOL_ERROR, "stream depends on itself")

    def _on_continuation(self, flags: int, payload: bytes, now: float) -> None:
        if self._block is None:
            raise ConnectionFault(p.PROTOCOL_ERROR, "continuation of nothing")
        self._budget.charge(now)
        self._block_bytes += len(payload)
        if self._block_bytes > HEADER_BLOCK_BYTES_MAX:
            raise ConnectionFault(p.ENHANCE_YOUR_CALM, "header block too large")
        self._block.append(payload)
        if flags & p.END_HEADERS:
            block, self._block = b"".join(self._block), None
            self._on_block(self._block_flags, self._block_stream, block, now)

    def _on_block(self, flags: int, stream_id: int, block: bytes, now: float) -> None:
        """A whole header block: a request, trailers, or too late for either."""
        if stream_id > self._last_id:
            head = self._decoder.request(block)
            if self._final_id is not None:
                return  # the peer has our final GOAWAY or will have: it knows this was not served
            self._last_id = stream_id
            if len(self.streams) >= self._max_streams:
                self.outbox.reset_id(stream_id, p.REFUSED_STREAM)
                self._budget.charge(now)
                return
            stream = Stream(stream_id, head, self.outbox.initial_window)
            self.streams[stream_id] = stream
            self._budget.credit += 1
            self._events.append((HEAD, stream, b""))
            if flags & p.END_STREAM:
                self._half_close(stream, b"")
            return
        fields = self._decoder.fields(block)
        open_stream = self.streams.get(stream_id)
        if open_stream is None:
            if stream_id not in self.outbox.reset_by_us:
                raise ConnectionFault(p.STREAM_CLOSED, "headers on a closed stream")
            self._budget.charge(now)
            return
        if open_stream.state == HALF_CLOSED_REMOTE:
            raise StreamFault(stream_id, p.STREAM_CLOSED, "headers after the end")
        check_trailers(fields)
        if not flags & p.END_STREAM:
            raise StreamFault(stream_id, p.PROTOCOL_ERROR, "trailers that do not end the stream")
        self._half_close(open_stream, b"")

    # --- frames that carry no request ------------------------------------------------------------

    def _on_other(self, kind: int, flags: int, stream_id: int, payload: bytes, now: float) -> None:
        if kind == p.CONTINUATION:
            self._on_continuation(flags, payload, now)
            return
        if not self.settled and kind != p.SETTINGS:
            raise ConnectionFault(p.PROTOCOL_ERROR, "first frame is not SETTINGS")
        if kind == p.WINDOW_UPDATE:
            self._budget.charge_window_update(now)
            self._on_window_update(stream_id, payload)
            return
        self._budget.charge(now)
        if kind == p.RST_STREAM:
            self._on_reset(stream_id, payload)
        elif kind == p.PING:
            self._on_ping(flags, stream_id, payload, now)
        elif kind == p.SETTINGS:
            self._on_settings(flags, stream_id, payload)
        elif kind == p.PRIORITY:
            _check_priority(stream_id, payload)
        elif kind == p.GOAWAY:
            if stream_id:
                raise ConnectionFault(p.PROTOCOL_ERROR, "goaway on a stream")
            if len(payload) < 8:
                raise ConnectionFault(p.FRAME_SIZE_ERROR, "goaway cut short")
            self.peer_leaves = True
        elif kind == p.PUSH_PROMISE:
            raise ConnectionFault(p.PROTOCOL_ERROR, "push from a client")

    def _on_window_update(self, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(p.FRAME_SIZE_ERROR, "window update of wrong size")
        by = _UINT32.unpack(payload)[0] & p.STREAM_ID_MASK
        outbox = self.outbox
        if stream_id == 0:
            if by == 0:
                raise ConnectionFault(p.PROTOCOL_ERROR, "window update of zero")
            outbox.window += by
            if outbox.window > p.WINDOW_MAX:
                raise ConnectionFault(p.FLOW_CONTROL_ERROR, "connection window too large")
        else:
            stream = self.streams.get(stream_id)
            if stream is None:
                self._idle_is_a_fault(stream_id)
                return
            if by == 0:
                raise StreamFault(stream_id, p.PROTOCOL_ERROR, "window update of zero")
            outbox.widen(stream, by)
            if stream.send_window > p.WINDOW_MAX:
                raise StreamFault(stream_id, p.FLOW_CONTROL_ERROR, "stream window too large")
        if outbox.ready:
            outbox.pump()

    def _on_reset(self, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(p.FRAME_SIZE_ERROR, "reset of wrong size")
        stream = self.streams.get(stream_id)
        if stream is None:
            self._idle_is_a_fault(stream_id)
            return
        self.outbox.forget(stream)
        self._events.append((RESET, stream, b""))

    def _on_ping(self, flags: int, stream_id: int, payload: bytes, now: float) -> None:
        if stream_id:
            raise ConnectionFault(p.PROTOCOL_ERROR, "ping on a stream")
        if len(payload) != 8:
            raise ConnectionFault(p.FRAME_SIZE_ERROR, "ping of wrong size")
        if flags & p.ACK:
            if payload == _DRAIN_PING:
                self.finish_drain()
            return
        self.outbox.frames.append(p.frame(p.PING, p.ACK, 0, payload))
        self._pings.ping(now, has_streams=bool(self.streams))

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFault(p.PROTOCOL_ERROR, "settings on a stream")
        if flags & p.ACK:
            if payload:
                raise ConnectionFault(p.FRAME_SIZE_ERROR, "acknowledgement with a body")
            if not self.settled:
                raise ConnectionFault(p.PROTOCOL_ERROR, "first frame is not SETTINGS")
            return
        window = None
        for identifier, value in settings_in(payload):
            if identifier == p.INITIAL_WINDOW_SIZE:
                window = value
            elif identifier == p.HEADER_TABLE_SIZE:
                self.outbox.shrink_table(value)
        self.settled = True
        # The peer counts with the new windows from our acknowledgement on: it goes out before
        # anything that a wider window lets through.
        self.outbox.frames.append(p.frame(p.SETTINGS, p.ACK, 0, b""))
        if window is not None:
            self._change_initial_window(window)

    def _change_initial_window(self, window: int) -> None:
        outbox = self.outbox
        by = window - outbox.initial_window
        outbox.initial_window = window
        for stream in self.streams.values():
            outbox.widen(stream, by)
            if stream.send_window > p.WINDOW_MAX:
                raise ConnectionFault(p.FLOW_CONTROL_ERROR, "stream window too large")
        outbox.pump()

    # --- inside ----------------------------------------------------------------------------------

    def _idle_is_a_fault(self, stream_id: int) -> None:
        if self._final_id is not None and stream_id > self._final_id:
            return
        if stream_id > self._last_id or not stream_id & 1:
            raise ConnectionFault(p.PROTOCOL_ERROR, "frame on an idle stream")

    def _reset_for(self, fault: StreamFault, now: float) -> None:
        stream = self.streams[fault.stream_id]  # faults are found on streams that are there
        self.outbox.reset(stream, fault.code)
        self._events.append((RESET, stream, b""))
        self._budget.charge(now)

    def _goaway(self, last_id: int, code: int, text: bytes) -> None:
        body = _UINT32.pack(last_id) + _UINT32.pack(code) + text
        self.outbox.frames.append(p.frame(p.GOAWAY, 0, 0, body))

    @staticmethod
    def _window_update(stream_id: int, by: int) -> bytes:
        return p.frame(p.WINDOW_UPDATE, 0, stream_id, _UINT32.pack(by))


def _unpad(payload: bytes) -> bytes:
    """Strip the pad length and the padding (6.1)."""
    if not payload:
        raise ConnectionFault(p.FRAME_SIZE_ERROR, "padding cut short")
    stop = len(payload) - payload[0]
    if stop < 1:
        raise ConnectionFault(p.PROTOCOL_ERROR, "padding longer than the frame")
    return payload[1:stop]


def _check_priority(stream_id: int, payload: bytes) -> None:
    """PRIORITY means nothing to us; what it may not say is still refused (5.3)."""
    if not stream_id:
        raise ConnectionFault(p.PROTOCOL_ERROR, "priority without a stream")
    if len(payload) != 5:
        raise ConnectionFault(p.FRAME_SIZE_ERROR, "priority of wrong size")
    if _UINT32.unpack_from(payload)[0] & p.STREAM_ID_MASK == stream_id:
        raise ConnectionFault(p.PROTOCOL_ERROR, "stream depends on itself")
