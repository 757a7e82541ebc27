"""What is fuzzed: each target takes any bytes and must accept or refuse them as documented.

A target raises when an oracle is broken: an exception that is no documented refusal, output that
is not made of whole frames, a bound that was passed, work that is left behind. The first byte
chooses how the rest is cut into reads, so every engine that knows only bytes can drive them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from configsvc.errors import InvalidArgumentError
from configsvc.frontend.http1_session import Http1Session
from configsvc.frontend.http2_session import Http2Session
from configsvc.frontend.shared import Shared, judge
from configsvc.gateway import json_in
from configsvc.http2 import grpc, protocol
from configsvc.http2.connection import DATA_END, Connection
from configsvc.http2.grpc import GrpcFault, MessageReader
from configsvc.http2.stream import CLOSED
from configsvc.limits import (
    CONNECTION_IN_BYTES_MAX,
    HTTP2_FRAME_BYTES_MAX,
    HTTP2_RESETS_REMEMBERED_MAX,
    HTTP2_STREAMS_MAX,
    HTTP_BODY_BYTES_MAX,
    MESSAGE_BYTES_MAX,
)
from configsvc.proto import rpc_pb2
from tests.support import http2_frames as h2
from tests.support.frontend_fakes import FakeApi, FakeHttp

# RFC 9113, section 7: what a GOAWAY of ours may say.
FAULTS: Final = frozenset(
    (
        protocol.PROTOCOL_ERROR,
        protocol.FLOW_CONTROL_ERROR,
        protocol.STREAM_CLOSED,
        protocol.FRAME_SIZE_ERROR,
        protocol.COMPRESSION_ERROR,
        protocol.ENHANCE_YOUR_CALM,
    )
)
GRPC_FAULTS: Final = frozenset((grpc.RESOURCE_EXHAUSTED, grpc.UNIMPLEMENTED, grpc.INTERNAL))
CUTS: Final = (1 << 20, 1, 3, 9, 17, 64, 200, 1 << 20)
MESSAGES: Final = (
    rpc_pb2.RangeRequest,
    rpc_pb2.PutRequest,
    rpc_pb2.TxnRequest,
    rpc_pb2.WatchRequest,
    rpc_pb2.LeaseKeepAliveRequest,
    rpc_pb2.AlarmRequest,
)
MEMORY_BYTES_MAX: Final = CONNECTION_IN_BYTES_MAX + HTTP_BODY_BYTES_MAX


def reads(data: bytes) -> Iterator[bytes]:
    """The input as its first byte cuts it."""
    if not data:
        return
    cut = CUTS[data[0] % len(CUTS)]
    for start in range(1, len(data), cut):
        yield data[start : start + cut]


def http2(data: bytes) -> None:
    """Frames behind a good preface: ``Connection`` and ``Outbox``."""
    connection = Connection(0.0)
    connection.receive(h2.Client.hello(), 0.0)
    now = 0.0
    for part in reads(data):
        now += 0.001
        events = connection.receive(part, now)
        for kind, stream, _ in events:
            if kind == DATA_END and stream.state != CLOSED:
                grpc.answer(connection.outbox, stream, b"answer")
        frames = h2.split(connection.outbox.take())
        assert all(len(each.payload) <= HTTP2_FRAME_BYTES_MAX for each in frames)
        assert len(connection.streams) <= HTTP2_STREAMS_MAX
        assert len(connection.outbox.reset_by_us) <= HTTP2_RESETS_REMEMBERED_MAX
        assert connection.outbox.held == sum(s.queued for s in connection.streams.values())
        if connection.fault is not None:
            assert connection.fault.code in FAULTS
            assert any(each.kind == h2.GOAWAY for each in frames)
            return


def grpc_framing(data: bytes) -> None:
    """The body of a call: messages, or a documented status; the short cut agrees."""
    reader = MessageReader()
    found: list[bytes] = []
    try:
        for part in reads(data):
            found += reader.feed(part)
            assert reader.held <= MESSAGE_BYTES_MAX + grpc.PREFIX_BYTES
    except GrpcFault as fault:
        if fault.code not in GRPC_FAULTS:
            raise
        return
    body = data[1:]
    whole = b"".join(h2.grpc_message(each) for each in found)
    assert body.startswith(whole)
    assert len(body) - len(whole) == reader.held
    assert (grpc.only_message(body) is not None) == (len(found) == 1 and not reader.held)


def gateway_json(data: bytes) -> None:
    """A JSON body: messages that protobuf reads, or InvalidArgument that quotes nothing."""
    cls: Any = MESSAGES[data[0] % len(MESSAGES)] if data else MESSAGES[0]
    try:
        found = json_in.messages(data[1:], cls)
    except InvalidArgumentError:
        return
    for each in found:
        cls.FromString(each)


def _shared(api: FakeApi, http: FakeHttp, now: list[float]) -> Shared:
    def tick() -> float:
        now[0] += 0.001
        return now[0]

    return Shared(api, http, tick)


def _drive(kind: type[Http1Session] | type[Http2Session], data: bytes, opening: bytes) -> bytes:
    api, http = FakeApi(), FakeHttp()
    shared = _shared(api, http, [0.0])
    identity = judge(shared, None, "192.0.2.1", "")
    tally = shared.admission.join(identity.key)
    assert tally is not None
    session = kind(shared, identity, tally, lambda: None)
    out = bytearray()
    for part in (opening, *reads(data)):
        if part:
            session.receive(part)
        while piece := session.take():
            out += piece
        assert shared.admission.in_bytes <= MEMORY_BYTES_MAX
        if session.finished:
            break
    for waiting in api.waiting[::2]:
        if not waiting.done:
            waiting.complete(b"late")
    for now in (1e9, 2e9):  # overdue calls end; then what stands still since the first look
        session.expire(now)
    while piece := session.take():
        out += piece
    session.lost()
    assert shared.admission.in_bytes == 0
    assert shared.admission.unary == tally.unary == 0
    assert shared.admission.streams == tally.streams == 0
    return bytes(out)


def http2_session(data: bytes) -> None:
    """An HTTP/2 connection without TLS, with handlers behind it; nothing is left at its end."""
    h2.split(_drive(Http2Session, data, h2.Client.hello()))


def http1_session(data: bytes) -> None:
    """The same for HTTP/1.1: every answer has a status line, nothing is echoed before one."""
    out = _drive(Http1Session, data, b"")
    assert not out or out.startswith(b"HTTP/1.1 ")


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "http2": http2,
    "grpc": grpc_framing,
    "json": gateway_json,
    "http2-session": http2_session,
    "http1-session": http1_session,
}
