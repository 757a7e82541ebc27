"""What stock clients never send, frame by frame, to our front end and to grpcio's own server.

The oracle is grpcio's server with the same handlers; ``INTENDED`` lists what differs on purpose.
Rules of HTTP/2 itself are h2spec's business (``make foreign``); here it is about gRPC on top of it.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import NamedTuple

import pytest

from configsvc.limits import MESSAGE_BYTES_MAX
from tests.support import http2_frames as h2
from tests.support.grpc_twins import Server, Twins
from tests.support.http2_frames import Client, frame, grpc_message

PATIENCE_S = 10.0  # for an answer that is expected
SILENCE_S = 0.3  # after which a server that is known to say nothing is believed
TE = (("te", "trailers"),)
ECHO = "/test.Twin/Echo"


class Answer(NamedTuple):
    """One stream's answer."""

    http: str = ""
    status: str = ""
    text: str | None = None  # grpc-message as it travels; None: the server's own words
    messages: tuple[bytes, ...] = ()
    end: str = "trailers"  # or "trailers-only", "data", "reset <code>", "none"


class Heard(NamedTuple):
    """All that a server said: an answer per stream, and how the connection ended."""

    answers: dict[int, Answer]
    connection: str = "open"  # or "goaway <code>", "closed"


class Wire:
    """A plain socket to one server."""

    def __init__(self, server: Server, patience: float) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=patience)
        self._arrived = b""
        self.client = Client()
        self.frames: list[h2.Frame] = []
        self.closed = False

    def send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except ConnectionError:
            self.closed = True

    def listen(self, streams: set[int]) -> Heard:
        """Read until all ``streams`` have ended, the connection has, or nothing comes."""
        open_streams = set(streams)
        while open_streams and self._read():
            for each in self.frames:
                if each.kind == h2.RST_STREAM or (
                    each.kind in (h2.DATA, h2.HEADERS) and each.flags & h2.END_STREAM
                ):
                    open_streams.discard(each.stream)
        return self._heard()

    def close(self) -> None:
        self._socket.close()

    def _read(self) -> bool:
        try:
            more = self._socket.recv(65_536)
        except TimeoutError:
            return False
        except ConnectionError:
            more = b""
        self.closed |= not more
        self._arrived += more
        while len(self._arrived) >= 9:
            size = 9 + int.from_bytes(self._arrived[:3], "big")
            if len(self._arrived) < size:
                break
            self.frames += h2.split(self._arrived[:size])
            self._arrived = self._arrived[size:]
            if (last := self.frames[-1]).kind == h2.PING and not last.flags & h2.ACK:
                self.send(frame(h2.PING, h2.ACK, 0, last.payload))
        return bool(more)

    def _heard(self) -> Heard:
        answers: dict[int, Answer] = {}
        bodies: dict[int, bytes] = {}
        connection = "closed" if self.closed else "open"
        for each in self.frames:
            if each.kind == h2.GOAWAY:
                connection = f"goaway {int.from_bytes(each.payload[4:8], 'big')}"
            elif each.stream:
                before = answers.get(each.stream, Answer(end="none"))
                answers[each.stream] = self._continued(before, each)
                if each.kind == h2.DATA:
                    bodies[each.stream] = bodies.get(each.stream, b"") + each.payload
        for stream, body in bodies.items():
            answers[stream] = answers[stream]._replace(messages=_messages(body))
        answers = {stream: each for stream, each in sorted(answers.items()) if each != NOTHING}
        return Heard(answers, connection)

    def _continued(self, answer: Answer, each: h2.Frame) -> Answer:
        """An answer, one frame later."""
        if each.kind == h2.HEADERS:
            fields = self.client.fields(each.payload)
            end = "trailers" if answer.http else "trailers-only"
            return answer._replace(
                http=fields.get(":status", answer.http),
                status=fields.get("grpc-status", ""),
                text=fields.get("grpc-message", ""),
                end=end if each.flags & h2.END_STREAM else "none",
            )
        if each.kind == h2.DATA and each.flags & h2.END_STREAM:
            return answer._replace(end="data")
        if each.kind == h2.RST_STREAM and answer.end == "none":
            return answer._replace(end=f"reset {int.from_bytes(each.payload, 'big')}")
        return answer


NOTHING = Answer(end="none")  # a window update was all


def _messages(body: bytes) -> tuple[bytes, ...]:
    found = []
    while body:
        flag, size = struct.unpack_from(">BI", body)
        assert not flag
        found.append(body[5 : 5 + size])
        body = body[5 + size :]
    return tuple(found)


# --- cases: what is sent after the preface, on stream 1 and perhaps 3 ----------------------------

Case = Callable[[Client], bytes]


def head(client: Client, path: str = ECHO, extra: tuple[tuple[str, str], ...] = ()) -> bytes:
    return client.headers(1, path, (*TE, *extra))


def body(data: bytes, *, end: bool = True) -> bytes:
    return frame(h2.DATA, h2.END_STREAM if end else 0, 1, data)


def call(path: str = ECHO, raw: bytes = b"hi", *extra: tuple[str, str]) -> Case:
    return lambda client: head(client, path, extra) + body(grpc_message(raw))


def bodied(*pieces: bytes, path: str = ECHO) -> Case:
    """DATA frames as given; the last one ends the request."""

    def made(client: Client) -> bytes:
        frames = [body(piece, end=False) for piece in pieces[:-1]]
        return head(client, path) + b"".join(frames) + body(pieces[-1])

    return made


def typed(content_type: str | None, method: str = "POST") -> Case:
    return lambda client: (
        client.headers(1, ECHO, TE, method=method, content_type=content_type)
        + body(grpc_message(b"hi"))
    )  # fmt: skip


def flagged(raw: bytes, *extra: tuple[str, str]) -> Case:
    return lambda client: head(client, ECHO, extra) + body(grpc_message(raw, compressed=True))


def raw_fields(*fields: tuple[str, str]) -> Case:
    """A header block made of exactly these fields."""
    return lambda client: (
        frame(h2.HEADERS, h2.END_HEADERS, 1, bytes(client.encoder.encode(fields)))
        + body(grpc_message(b"hi"))
    )  # fmt: skip


def padded(client: Client) -> bytes:
    block = client.block(ECHO, TE)
    head = frame(h2.HEADERS, h2.END_HEADERS | h2.PADDED, 1, b"\4" + block + bytes(4))
    message = b"\7" + grpc_message(b"hi") + bytes(7)
    return head + frame(h2.DATA, h2.END_STREAM | h2.PADDED, 1, message)


def continued(client: Client) -> bytes:
    block = client.block(ECHO, TE)
    parts = [frame(h2.HEADERS, 0, 1, block[:7])]
    parts += [frame(h2.CONTINUATION, 0, 1, block[at : at + 1]) for at in range(7, len(block))]
    return b"".join(parts) + frame(h2.CONTINUATION, h2.END_HEADERS, 1) + body(grpc_message(b"hi"))


def prioritized(client: Client) -> bytes:
    block = bytes(4) + b"\xff" + client.block(ECHO, TE)
    return frame(h2.HEADERS, h2.END_HEADERS | h2.HAS_PRIORITY, 1, block) + body(grpc_message(b"hi"))


def trailers_end_it(client: Client) -> bytes:
    block = bytes(client.encoder.encode([("x-late", "1")]))
    message = body(grpc_message(b"hi"), end=False)
    return head(client) + message + frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 1, block)


def second_after(first: Case) -> Case:
    """A good call after one that was not."""
    return lambda client: first(client) + client.call(3, b"next", ECHO, extra=TE)


def reset_and_next(client: Client) -> bytes:
    wait = client.headers(1, "/test.Twin/Wait", TE) + body(grpc_message(b"reset"))
    return wait + h2.reset(1) + client.call(3, b"next", ECHO, extra=TE)


def leaving(client: Client) -> bytes:
    """What is on its way when the client says goodbye is answered."""
    return call()(client) + frame(h2.GOAWAY, payload=bytes(8))


def unknown_frames(client: Client) -> bytes:
    strange = frame(0xBE, 0xFF, 1, b"strange")
    return head(client) + strange + frame(0xBE, 0, 0, b"") + body(grpc_message(b"hi"))


def narrow(client: Client) -> bytes:
    """A window of ten bytes, widened byte by byte and then for good."""
    small = h2.settings(initial_window_size=10)
    widened = b"".join(h2.window_update(1, 1) for _ in range(20)) + h2.window_update(1, 1_000)
    return small + head(client) + body(grpc_message(b"x" * 200)) + widened


PSEUDO = ((":method", "POST"), (":scheme", "http"), (":path", ECHO), (":authority", "localhost"))
GRPC = (("content-type", "application/grpc"), *TE)
HUGE = b"\0" + (MESSAGE_BYTES_MAX + 1).to_bytes(4, "big")

CASES: dict[str, Case] = {
    "plain": call(),
    "padded": padded,
    "continued": continued,
    "prioritized": prioritized,
    "unknown-frames": unknown_frames,
    "narrow-window": narrow,
    "trailers-end-the-request": trailers_end_it,
    "client-leaves": leaving,
    "reset-and-next": reset_and_next,
    "cut-anywhere": bodied(b"\0\0", b"\0\0", b"\2h", b"", b"i"),
    "end-in-a-frame-of-its-own": bodied(grpc_message(b"hi"), b""),
    "no-message": bodied(b""),
    "no-message-no-data": lambda client: client.headers(1, ECHO, TE, end=True),
    "two-messages": bodied(grpc_message(b"a") + grpc_message(b"b")),
    "cut-message": bodied(grpc_message(b"abc")[:-1]),
    "cut-prefix": bodied(b"\0\0"),
    "too-large-by-its-prefix": bodied(HUGE),
    "four-gigabytes-by-its-prefix": bodied(b"\0\xff\xff\xff\xff"),
    "compressed-unsaid": flagged(b"hi"),
    "compressed-identity": flagged(b"hi", ("grpc-encoding", "identity")),
    "compressed-unknown": flagged(b"hi", ("grpc-encoding", "snappy")),
    "unknown-encoding-unused": call(ECHO, b"hi", ("grpc-encoding", "snappy")),
    "gzip-unused": call(ECHO, b"hi", ("grpc-encoding", "gzip")),
    "flag-of-two": bodied(b"\2" + grpc_message(b"hi")[1:]),
    "no-te": lambda client: client.call(1, b"hi", ECHO),
    "te-of-gzip": lambda client: client.call(1, b"hi", ECHO, extra=(("te", "gzip"),)),
    "content-type-proto": typed("application/grpc+proto"),
    "content-type-charset": typed("application/grpc; charset=utf-8"),
    "content-type-capitals": typed("application/GRPC"),
    "content-type-web": typed("application/grpc-web"),
    "content-type-json": typed("application/json"),
    "content-type-none": typed(None),
    "get": typed("application/grpc", "GET"),
    "put": typed("application/grpc", "PUT"),
    "path-without-slash": call("test.Twin/Echo"),
    "path-with-query": call(f"{ECHO}?a=b"),
    "path-doubled-slash": call(f"/{ECHO}"),
    "path-escaped": call("/test.Twin%2FEcho"),
    "path-other-case": call("/test.twin/echo"),
    "path-empty": call(""),
    "unknown-method": call("/test.Twin/Nothing"),
    "timeout-malformed": call(ECHO, b"hi", ("grpc-timeout", "soon")),
    "timeout-without-unit": call(ECHO, b"hi", ("grpc-timeout", "5")),
    "timeout-too-many-digits": call(ECHO, b"hi", ("grpc-timeout", "123456789S")),
    "timeout-huge": call(ECHO, b"hi", ("grpc-timeout", "99999999H")),
    "timeout-long-over": call("/test.Twin/Wait", b"late", ("grpc-timeout", "1n")),
    "timeout-soon-over": call("/test.Twin/Wait", b"late", ("grpc-timeout", "50m")),
    "binary-padded": call("/test.Twin/Metadata", b"", ("x-a-bin", "AAE=")),
    "binary-unpadded": call("/test.Twin/Metadata", b"", ("x-a-bin", "AAE")),
    "binary-list": call("/test.Twin/Metadata", b"", ("x-a-bin", "AAE,/w")),
    "binary-malformed": call("/test.Twin/Metadata", b"", ("x-a-bin", "%%%")),
    "repeated": call("/test.Twin/Metadata", b"", ("x-a", "1"), ("x-b", "2"), ("x-a", "3")),
    "beyond-ascii": call("/test.Twin/Metadata", b"", ("x-a", "\u00fc")),
    "host-besides-authority": call(ECHO, b"hi", ("host", "elsewhere")),
    "status-percent": call("/test.Twin/Status", "9 100% für \n ~".encode()),
    "status-plain": call("/test.Twin/Status", b"5 not found"),
    "down": call("/test.Twin/Down", b"3"),
    "down-then-error": call("/test.Twin/Down", b"2 9 no more"),
    "down-error-at-once": call("/test.Twin/Down", b"0 9 no more"),
    "both-half-closed": bodied(grpc_message(b"a") + grpc_message(b""), b"", path="/test.Twin/Both"),
    "both-cut-message": bodied(grpc_message(b"abc")[:-1], path="/test.Twin/Both"),
    "up": bodied(grpc_message(b"a"), grpc_message(b"b"), path="/test.Twin/Up"),
    "content-length-right": call(ECHO, b"hi", ("content-length", "7")),
    "upper-case-name": second_after(raw_fields(*PSEUDO, *GRPC, ("X-Upper", "1"))),
    "connection-field": second_after(raw_fields(*PSEUDO, *GRPC, ("connection", "close"))),
    "no-path": second_after(raw_fields(*(each for each in PSEUDO if each[0] != ":path"), *GRPC)),
    "no-method": second_after(raw_fields(*PSEUDO[1:], *GRPC)),
    "no-authority": raw_fields(*PSEUDO[:3], *GRPC),
    "two-paths": second_after(raw_fields(*PSEUDO, (":path", ECHO), *GRPC)),
    "unknown-pseudo-field": second_after(raw_fields(*PSEUDO, (":secret", "1"), *GRPC)),
    "pseudo-field-late": second_after(raw_fields(*PSEUDO[:3], *GRPC, PSEUDO[3])),
    "scheme-of-https": raw_fields(PSEUDO[0], (":scheme", "https"), *PSEUDO[2:], *GRPC),
}


# --- what differs on purpose ---------------------------------------------------------------------


class Intended(NamedTuple):
    """A difference that is meant; both sides are checked, so the list cannot grow stale."""

    ours: Heard
    grpcio: Heard
    why: str


def refused(code: int) -> Heard:
    return Heard({1: Answer("200", str(code), None, (), "trailers-only")})


def answered(*messages: bytes) -> Heard:
    return Heard({1: Answer("200", "0", None, messages)})


def plain_http(status: str) -> Heard:
    return Heard({1: Answer(status, end="data")})


def and_next(heard: Heard) -> Heard:
    return Heard({**heard.answers, 3: Answer("200", "0", None, (b"next",))})


OK = answered(b"hi")
RESET = Heard({1: Answer(end="reset 2")})
SILENT = Heard({})  # the call stays open for as long as its client waits
ENDED = Heard({}, "goaway 1")

WHOLE = "a unary call is exactly one whole message; anything else is answered, not waited out"
PACKED = "nothing is ever inflated, and a flag is a flag whatever its encoding (LIM-7)"
MEDIA = "what is not gRPC by its content type is the gateway's (N34)"
BROKEN = "a malformed header block ends the connection (N71)"
WRONG = "INVALID_ARGUMENT: it is the client's fault, not the server's"
LENIENT = "its absence harms nobody"

INTENDED = {
    "padded": Intended(OK, refused(13), "padding is a right of HTTP/2's clients"),
    "no-message": Intended(refused(12), SILENT, WHOLE),
    "no-message-no-data": Intended(refused(12), SILENT, WHOLE),
    "two-messages": Intended(refused(12), answered(b"a"), WHOLE),
    "cut-message": Intended(refused(13), SILENT, WHOLE),
    "cut-prefix": Intended(refused(13), SILENT, WHOLE),
    "both-cut-message": Intended(refused(13), answered(b"0"), WHOLE),
    "compressed-unsaid": Intended(refused(12), refused(13), PACKED),
    "compressed-identity": Intended(refused(12), refused(13), PACKED),
    "compressed-unknown": Intended(refused(12), refused(13), PACKED),
    "flag-of-two": Intended(refused(12), answered(b""), PACKED),
    "unknown-encoding-unused": Intended(
        OK, refused(13), "nothing is compressed, so nothing is missing"
    ),
    "no-te": Intended(OK, RESET, LENIENT),
    "no-authority": Intended(OK, RESET, LENIENT),
    "te-of-gzip": Intended(ENDED, refused(13), BROKEN),
    "content-type-capitals": Intended(plain_http("404"), OK, MEDIA),
    "content-type-web": Intended(plain_http("404"), OK, MEDIA),
    "content-type-json": Intended(plain_http("404"), OK, MEDIA),
    "content-type-none": Intended(plain_http("404"), OK, MEDIA),
    "get": Intended(plain_http("405"), RESET, "gRPC is POST"),
    "put": Intended(plain_http("405"), RESET, "gRPC is POST"),
    "path-empty": Intended(ENDED, refused(12), BROKEN),
    "timeout-malformed": Intended(refused(3), refused(13), WRONG),
    "timeout-without-unit": Intended(refused(3), refused(13), WRONG),
    "timeout-too-many-digits": Intended(refused(3), OK, "eight digits at most, says gRPC"),
    "binary-malformed": Intended(refused(3), refused(13), WRONG),
    "binary-list": Intended(
        answered(b"x-a-bin=b'\\x00\\x01'\nx-a-bin=b'\\xff'"),
        refused(13),
        "a proxy may join values of one name with commas",
    ),
    "upper-case-name": Intended(ENDED, and_next(refused(13)), BROKEN),
    "connection-field": Intended(ENDED, and_next(OK), BROKEN),
    "no-path": Intended(ENDED, and_next(RESET), BROKEN),
    "no-method": Intended(ENDED, and_next(RESET), BROKEN),
    "two-paths": Intended(ENDED, and_next(OK), BROKEN),
    "unknown-pseudo-field": Intended(ENDED, and_next(refused(13)), BROKEN),
    "pseudo-field-late": Intended(ENDED, and_next(OK), BROKEN),
}


def run(server: Server, name: str, *, silent: bool) -> Heard:
    wire = Wire(server, SILENCE_S if silent else PATIENCE_S)
    try:
        request = CASES[name](wire.client)
        wire.send(Client.hello() + request)
        frames = h2.split(request)
        asked = {each.stream for each in frames if each.kind == h2.HEADERS}
        heard = wire.listen(asked - {each.stream for each in frames if each.kind == h2.RST_STREAM})
    finally:
        wire.close()
    if name.startswith(("status", "down")):
        return heard
    return heard._replace(
        answers={stream: each._replace(text=None) for stream, each in heard.answers.items()}
    )


@pytest.mark.parametrize("name", CASES)
def test_the_wire_says_the_same(twins: Twins, name: str) -> None:
    meant = INTENDED.get(name)
    ours = run(twins.ours, name, silent=False)
    theirs = run(twins.grpcio, name, silent=meant is not None and not meant.grpcio.answers)
    if meant is None:
        assert ours == theirs
        assert ours.answers
    else:
        assert (ours, theirs) == (meant.ours, meant.grpcio), meant.why


def test_every_difference_is_of_a_case() -> None:
    assert INTENDED.keys() <= CASES.keys()
    assert not [name for name, meant in INTENDED.items() if meant.ours == meant.grpcio]
