"""Attacks over real sockets, one row each; whatever goes on, everybody else is served (N69 to N71).

The front end runs in a process of its own. While an attacker is at work another client's small and
large calls are answered in time, newcomers get through the handshake, and memory stays bounded.
Floods against a whole member over mutual TLS: ``test_attacks_on_a_member``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from configsvc.limits import FRAME_BUDGET_BURST, HANDSHAKES_PER_ADDRESS_MAX
from tests.support import http2_frames as h2
from tests.support.attacked import MIB, Attacked, Attacker
from tests.support.http2_frames import Client, frame, grpc_message
from tests.support.tls_files import TestFiles
from tests.support.waiting import until

pytestmark = pytest.mark.integration

SLOW_S = 1.5  # what slow peers are given here
UNARY, STREAM = "/test.Echo/Unary", "/test.Echo/Stream"
PROTOCOL_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR = 1, 3, 6
REFUSED_STREAM, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 7, 9, 11


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    made = Attacked(TestFiles(tmp_path_factory.mktemp("tls")), SLOW_S)
    yield made
    made.stop()


# --- floods: what no request pays for ------------------------------------------------------------

Piece = Callable[[Client, int], bytes]


class Flood(NamedTuple):
    piece: Piece
    text: str = "frame flood"
    opening: Piece = lambda _client, _n: b""
    blow: int = 50


def always(data: bytes) -> Piece:
    return lambda _client, _number: data


def unary_head(client: Client, _number: int) -> bytes:
    return client.headers(1)


def own_reset(client: Client, number: int) -> bytes:
    """A stream that the peer breaks so that the server resets it."""
    return client.headers(2 * number + 1) + h2.window_update(2 * number + 1, 2**31 - 1)


FLOODS = {
    "rapid-reset": Flood(lambda c, n: c.headers(2 * n + 1, STREAM) + h2.reset(2 * n + 1)),
    "rapid-reset-of-whole-calls": Flood(
        lambda c, n: c.call(2 * n + 1, b"x", "/test.Echo/Wait") + h2.reset(2 * n + 1)
    ),
    "resets-by-our-hand": Flood(own_reset),
    "settings": Flood(always(h2.settings())),
    "settings-that-change": Flood(lambda _c, n: h2.settings(initial_window_size=n)),
    "settings-acknowledgements": Flood(always(h2.SETTINGS_ACK)),
    "pings": Flood(always(frame(h2.PING, 0, 0, bytes(8))), "too_many_pings"),
    "ping-acknowledgements": Flood(always(frame(h2.PING, h2.ACK, 0, bytes(8)))),
    "priorities": Flood(always(frame(h2.PRIORITY, 0, 3, bytes(5)))),
    "unknown-frames": Flood(always(frame(0xBE, 0, 0, b"grease"))),
    "empty-data": Flood(always(frame(h2.DATA, 0, 1)), opening=unary_head),
    "window-updates": Flood(always(h2.window_update(0, 1))),
    "window-updates-of-a-stream": Flood(always(h2.window_update(1, 1)), opening=unary_head),
    "empty-continuations": Flood(
        always(frame(h2.CONTINUATION, 0, 1)),
        opening=lambda client, _n: frame(h2.HEADERS, 0, 1, client.block()),
    ),
    "endless-header": Flood(
        always(frame(h2.CONTINUATION, 0, 1, b"\0\1a\1b" * 200)),
        "header block too large",
        opening=lambda client, _n: frame(h2.HEADERS, 0, 1, client.block()),
        blow=1,
    ),
}


@pytest.mark.parametrize("name", FLOODS)
def test_floods_end_and_harm_nobody(attacked: Attacked, name: str) -> None:
    """Poured without looking, by two, one after the other, until each is cut off."""
    flood = FLOODS[name]

    def attack() -> None:
        for _ in range(2):
            with Attacker(attacked.port) as attacker:
                attacker.send(Client.hello() + flood.opening(attacker.client, 0))
                for start in range(0, 20 * FRAME_BUDGET_BURST, flood.blow):
                    blow = (flood.piece(attacker.client, n + start) for n in range(flood.blow))
                    if not attacker.send(b"".join(blow)):
                        break
                until(lambda: attacker.over)

    attacked.while_attacked(attack, 32 * MIB)
    with Attacker(attacked.port) as last:
        # Just enough to be too much, in one go: nothing is unread at the end, so its text arrives.
        last.send(Client.hello() + flood.opening(last.client, 0))
        count = 18 if flood.blow == 1 else FRAME_BUDGET_BURST + 200
        last.send(b"".join(flood.piece(last.client, n) for n in range(count)))
        assert last.goaway() in {(ENHANCE_YOUR_CALM, flood.text), (-1, "")}


# --- blows: one is enough ------------------------------------------------------------------------


def head_of(block: bytes) -> Piece:
    return always(frame(h2.HEADERS, h2.END_HEADERS, 1, block))


def literal(name: bytes, value: bytes) -> Piece:
    """A good head with one field more, as it is."""
    return lambda client, _n: frame(
        h2.HEADERS,
        h2.END_HEADERS,
        1,
        client.block() + b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value,
    )


def after_head(data: bytes) -> Piece:
    return lambda client, _n: client.headers(1) + data


def announced(length: int, kind: int = h2.DATA) -> Piece:
    """A frame's header that says so, and nothing behind it."""
    return after_head(length.to_bytes(3, "big") + bytes((kind, 0)) + (1).to_bytes(4, "big"))


BOMB = b"\x40\x01a\x7f\xa1\x1e" + b"v" * 4_000 + b"\xbe" * 12_000  # expands 4000-fold
FULL = frame(h2.DATA, 0, 1, b"\0\0\1\0\0" + b"x" * 16_379)

BLOWS: dict[str, tuple[Piece, int]] = {
    "frame-of-16-kib-and-one": (announced(16_385), FRAME_SIZE_ERROR),
    "frame-of-16-mib": (announced(2**24 - 1), FRAME_SIZE_ERROR),
    "header-of-16-mib": (announced(2**24 - 1, h2.HEADERS), FRAME_SIZE_ERROR),
    "ping-of-7": (always(frame(h2.PING, 0, 0, bytes(7))), FRAME_SIZE_ERROR),
    "ping-of-9": (always(frame(h2.PING, 0, 0, bytes(9))), FRAME_SIZE_ERROR),
    "settings-of-5": (always(frame(h2.SETTINGS, 0, 0, bytes(5))), FRAME_SIZE_ERROR),
    "window-update-of-3": (always(frame(h2.WINDOW_UPDATE, 0, 0, bytes(3))), FRAME_SIZE_ERROR),
    "reset-of-5": (after_head(frame(h2.RST_STREAM, 0, 1, bytes(5))), FRAME_SIZE_ERROR),
    "priority-of-4": (always(frame(h2.PRIORITY, 0, 1, bytes(4))), FRAME_SIZE_ERROR),
    "goaway-of-7": (always(frame(h2.GOAWAY, 0, 0, bytes(7))), FRAME_SIZE_ERROR),
    "padding-of-more-than-all": (after_head(frame(h2.DATA, 8, 1, b"\xffabc")), PROTOCOL_ERROR),
    "window-beyond-2-gib": (always(h2.window_update(0, 2**31 - 1)), FLOW_CONTROL_ERROR),
    "header-bomb": (head_of(BOMB), ENHANCE_YOUR_CALM),
    "integer-without-end": (head_of(b"\xff" * 16_000), COMPRESSION_ERROR),
    "table-of-4-gib": (head_of(b"\x3f\xe1\xff\xff\xff\x0f"), COMPRESSION_ERROR),
    "bad-huffman": (head_of(b"\x00\x81\xff" * 4_000), COMPRESSION_ERROR),
    "smuggled-line": (literal(b"x-a", b"1\r\nx-b: 2"), PROTOCOL_ERROR),
    "smuggled-request": (literal(b"x-a", b"1\r\n\r\nGET /health HTTP/1.1"), PROTOCOL_ERROR),
    "smuggled-nul": (literal(b"x-a", b"1\0"), PROTOCOL_ERROR),
    "smuggled-upper-case": (literal(b"X-A", b"1"), PROTOCOL_ERROR),
    "smuggled-colon": (literal(b"x:a", b"1"), PROTOCOL_ERROR),
    "smuggled-encoding": (literal(b"transfer-encoding", b"chunked"), PROTOCOL_ERROR),
    "smuggled-connection": (literal(b"connection", b"x-a"), PROTOCOL_ERROR),
    "smuggled-length": (literal(b"content-length", b"+7"), PROTOCOL_ERROR),
    "second-path": (literal(b":path", b"/other"), PROTOCOL_ERROR),
}


def test_one_blow_ends_its_connection_and_harms_nobody(attacked: Attacked) -> None:
    ends: dict[str, int] = {}

    def attack() -> None:
        for name, (piece, _) in BLOWS.items():
            with Attacker(attacked.port) as attacker:
                attacker.send(Client.hello() + piece(attacker.client, 0))
                ends[name] = attacker.goaway()[0]

    attacked.while_attacked(attack, 32 * MIB)
    assert ends == {name: code for name, (_, code) in BLOWS.items()}


POST = b"POST /v3/x HTTP/1.1\r\nHost: a\r\n"
SMUGGLED = [
    POST + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    POST + b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n",
    POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    POST + b"Content-Length: 3\r\nContent-Length: 30\r\n\r\nabc",
    POST + b"Content-Length: +3\r\n\r\nabc",
    POST + b"Content-Length: 0\n\r\n",
    POST + b"X: a\rContent-Length: 0\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET http://b/health HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 20_000,
]


def test_smuggled_requests_of_http1_are_one_refusal(attacked: Attacked) -> None:
    """The request behind is never answered: one answer, and the end."""
    for data in SMUGGLED:
        with Attacker(attacked.port) as attacker:
            attacker.send(data + b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
            said = attacker.rest()
            assert said.count(b"HTTP/1.1 ") <= 1, data
            assert said.startswith((b"HTTP/1.1 4", b"HTTP/1.1 501 ")) or not said, data
    attacked.served()


# --- holding: peers that take their time ---------------------------------------------------------


def held(crowd: list[Attacker], growth_max: int, attacked: Attacked) -> None:
    """While the crowd holds on, others are served; all of it is cut off in the end."""
    left = set(crowd)

    def attack() -> None:
        def thinned() -> bool:
            for each in [each for each in left if each.over]:
                left.discard(each)
            return not left

        until(thinned)

    with contextlib.ExitStack() as stack:
        for each in crowd:
            stack.enter_context(each)
        attacked.while_attacked(attack, growth_max)
    assert not left


def test_zero_windows(attacked: Attacked) -> None:
    """Streams that are asked for a hundred megabytes each and never given a window."""

    def begun() -> Attacker:
        made = Attacker(attacked.port)
        made.send(Client.hello(initial_window_size=0))
        burst = grpc_message(b"burst:100000")
        for number in range(3):
            stream = 2 * number + 1
            made.send(made.client.headers(stream, STREAM) + frame(h2.DATA, 0, stream, burst))
        return made

    held([begun() for _ in range(20)], 128 * MIB, attacked)


def sleepers(attacked: Attacked, count: int) -> list[Attacker]:
    """Twenty megabytes for each, behind wide windows and a socket that is never read."""
    crowd = [Attacker(attacked.port, receive=4_096) for _ in range(count)]
    for each in crowd:
        each.send(
            Client.hello(initial_window_size=2**31 - 1)
            + h2.window_update(0, 2**30)
            + each.client.call(1, b"20000000", "/test.Echo/Big")
        )
    return crowd


@pytest.mark.parametrize(("count", "growth_max"), [(4, 128 * MIB), (40, 320 * MIB)])
def test_slow_readers(attacked: Attacked, count: int, growth_max: int) -> None:
    """Four are cut off in time; forty would take 800 MB, and are cut off as soon as that shows."""

    def attack() -> None:
        # The end is seen by what a send says: reading would be what a slow reader does not do.
        for each in sleepers(attacked, count):
            stack.enter_context(each)
            until(lambda: not each.send(h2.SETTINGS_ACK))  # noqa: B023 - likewise

    with contextlib.ExitStack() as stack:
        attacked.while_attacked(attack, growth_max)


def test_slow_writers_of_http2(attacked: Attacked) -> None:
    """More of them than their identity has room for; each message lacks its last byte."""
    part = grpc_message(b"x" * 60_000)[:-1]

    def begun() -> Attacker:
        made = Attacker(attacked.port)
        made.send(Client.hello())
        for number in range(50):
            stream = 2 * number + 1
            made.send(made.client.headers(stream))
            for start in range(0, len(part), 16_000):
                made.send(frame(h2.DATA, 0, stream, part[start : start + 16_000]))
        return made

    crowd = [begun() for _ in range(40)]  # 120 MB
    ends: set[tuple[int, str]] = set()

    def attack() -> None:
        ends.update(each.goaway() for each in crowd[:15])

    with contextlib.ExitStack() as stack:
        for each in crowd:
            stack.enter_context(each)
        attacked.while_attacked(attack, 160 * MIB)
        refused = next(each for each in crowd[-1].frames() if each.kind == h2.RST_STREAM)
    assert ends == {(ENHANCE_YOUR_CALM, "writes too slowly")}
    assert refused.payload == REFUSED_STREAM.to_bytes(4, "big")


@pytest.mark.parametrize(
    "opening",
    [
        POST + b"Content-Length: 1000\r\n\r\nx",
        POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
        POST,
        h2.PREFACE,
        h2.PREFACE[:9],
        b"",
    ],
    ids=["body", "chunk", "header", "no-settings", "half-preface", "silent"],
)
def test_slow_writers_elsewhere(attacked: Attacked, opening: bytes) -> None:
    crowd = [Attacker(attacked.port) for _ in range(50)]
    for each in crowd:
        each.send(opening)
    held(crowd, 32 * MIB, attacked)


@pytest.mark.parametrize(
    "opening", [b"", b"\x16\x03\x01\x02", b"\x16\x03\x01\x02\x00" + bytes(300)]
)
def test_half_open_tls(attacked: Attacked, opening: bytes) -> None:
    """Twice as many as one address may have unfinished: the oldest make room, the rest run out."""
    crowd = [Attacker(attacked.tls_port) for _ in range(2 * HANDSHAKES_PER_ADDRESS_MAX)]
    for each in crowd:
        each.send(opening)
    held(crowd, 64 * MIB, attacked)


def test_connections_that_come_and_go(attacked: Attacked) -> None:
    def attack() -> None:
        for _ in range(1_500):
            with Attacker(attacked.tls_port):
                pass

    attacked.while_attacked(attack, 32 * MIB)


def test_messages_of_false_length(attacked: Attacked) -> None:
    """Said to be four gigabytes, or a byte more than allowed: refused, and the next is served."""
    with Attacker(attacked.port) as attacker:
        attacker.send(Client.hello())
        for stream, size in ((1, 2**32 - 1), (3, 2 * MIB + 1)):
            prefix = b"\0" + size.to_bytes(4, "big")
            attacker.send(attacker.client.headers(stream) + frame(h2.DATA, 0, stream, prefix))
        attacker.send(attacker.client.call(5, b"next") + frame(h2.GOAWAY, payload=bytes(8)))
        frames = list(attacker.frames())
    data = b"".join(_framed(each) for each in frames)
    answers = Client().answers(data)
    assert [answers[n].status for n in (1, 3, 5)] == [8, 8, 0]
    assert answers[5].messages == [b"next"]


def _framed(each: h2.Frame) -> bytes:
    return frame(each.kind, each.flags, each.stream, each.payload)
