"""Attacks on the client port, one test per row of the threat table (N34, N36, N37, N69 to N71).

Sessions are driven in memory: what counts is work, memory and the end of the connection.
"""

from __future__ import annotations

import time
import tracemalloc

import pytest

from configsvc.frontend.http1_session import Http1Session
from configsvc.frontend.http2_session import Http2Session
from configsvc.frontend.shared import Shared, judge
from configsvc.limits import FRAME_BUDGET_BURST
from tests.support import http2_frames as h2
from tests.support.frontend_fakes import FakeApi, FakeHttp
from tests.support.http2_frames import Client, frame, grpc_message

ENHANCE_YOUR_CALM = 11


class Victim:
    """A server session under attack; its clock moves only when told."""

    def __init__(self, **settings: int) -> None:
        self.api = FakeApi()
        self.http = FakeHttp()
        self.now = 0.0
        self.shared = Shared(self.api, self.http, lambda: self.now)
        identity = judge(self.shared, None, "127.0.0.1", "")
        tally = self.shared.admission.join("")
        assert tally is not None
        self.session = Http2Session(self.shared, identity, tally, lambda: None)
        self.client = Client()
        self.session.receive(Client.hello(**settings))
        self.session.take()

    def suffer(self, data: bytes) -> None:
        self.session.receive(data)

    def goaway(self) -> tuple[int, bytes]:
        """Code and text of the GOAWAY that ended it."""
        out = b""
        while part := self.session.take():
            out += part
        last = h2.split(out)[-1]
        assert last.kind == h2.GOAWAY
        return int.from_bytes(last.payload[4:8], "big"), last.payload[8:]


def test_n34_paths_are_an_exact_allow_list() -> None:
    victim = Victim()
    odd = ["test.Echo/Unary", "//test.Echo/Unary", "/test.Echo//Unary", "/test.echo/unary"]
    for number, path in enumerate([*odd, "/test.Echo/Unary?", "/%74est.Echo/Unary", "/../x"]):
        stream = 2 * number + 1
        victim.suffer(victim.client.call(stream, b"x", path))
        answer = victim.client.answers(victim.session.take())[stream]
        assert answer.status == 12
        assert answer.fields["grpc-message"] == "unknown method"
    assert not victim.api.calls


def test_n36_rapid_reset_leaves_no_work_behind() -> None:
    """20 000 HEADERS + RST_STREAM: the budget ends it, and no handler is left over."""
    victim = Victim()
    for number in range(20_000):
        stream = 2 * number + 1
        victim.suffer(victim.client.headers(stream, "/test.Echo/Stream") + h2.reset(stream))
        if victim.session.finished:
            break
    assert number <= FRAME_BUDGET_BURST + 1
    assert victim.goaway() == (ENHANCE_YOUR_CALM, b"frame flood")
    assert all(stream.context is None for stream in victim.session.http2.streams.values())
    assert victim.shared.admission.unary == 0
    for stream_handler in victim.api.streams:
        assert stream_handler.heard == ["cancel"]


def test_n36_resets_spread_over_reads_cancel_what_waits() -> None:
    victim = Victim()
    for number in range(900):
        stream = 2 * number + 1
        victim.suffer(victim.client.call(stream, b"x", "/test.Echo/Wait"))
        victim.suffer(h2.reset(stream))
    assert all(waiting.cancelled for waiting in victim.api.waiting)
    assert victim.shared.admission.unary == 0


def test_n37_a_bad_binary_header_fails_its_call_only() -> None:
    victim = Victim()
    victim.suffer(victim.client.call(1, b"x", extra=(("x-bin", "not base64!"),)))
    victim.suffer(victim.client.call(3, b"y", extra=(("x-bin", "AAEC"),)))
    answers = victim.client.answers(victim.session.take())
    assert answers[1].status == 3
    assert answers[3].messages == [b"y"]


def test_n37_a_refused_block_ends_the_connection() -> None:
    """A decoder that stopped in the middle of a block must never see another one."""
    victim = Victim()
    victim.suffer(frame(h2.HEADERS, 4, 1, b"\x40\x01a\x01b\xff\xff\xff\xff\xff\xff"))
    assert victim.session.finished
    victim.suffer(victim.client.call(3, b"x"))
    assert not victim.api.calls


def huge_fields() -> bytes:
    """One 4 000-byte field into the table, then references to it: expands 4000-fold."""
    field = b"\x40\x01a\x7f\xa1\x1e" + b"v" * 4_000
    return field + b"\xbe" * 12_000


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(huge_fields(), id="bomb"),
        pytest.param(b"\xff" * 16_000, id="endless-integer"),
        pytest.param(b"\x3f\xe1\xff\xff\xff\x0f", id="table-of-4-gib"),
        pytest.param(b"\x82" * 16_000, id="thousands-of-indices"),
        pytest.param(b"\x00\x01a\x01b" * 3_000, id="thousands-of-literals"),
        pytest.param(b"\x40\x00\x00" * 5_000, id="thousands-of-insertions"),
        pytest.param(b"\x00\x81\xff" * 4_000, id="bad-huffman"),
        pytest.param(b"\x20" * 16_000, id="thousands-of-size-updates"),
        pytest.param(b"\xbe\x40\x01a" * 1_000, id="index-into-nothing"),
    ],
)
def test_n69_header_bombs_end_at_once(block: bytes) -> None:
    victim = Victim()
    tracemalloc.start()
    before = time.perf_counter()
    victim.suffer(frame(h2.HEADERS, 4, 1, block))
    took = time.perf_counter() - before
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert victim.session.finished
    assert peak < 2 * 2**20
    assert took < 0.5  # far above what it takes (a few ms under tracing), far below harm
    assert victim.goaway()[0] in (9, ENHANCE_YOUR_CALM)


def flood(piece: bytes, opening: bytes = b"") -> Victim:
    """Ten seconds at a thousand pieces per second, or until the connection ends."""
    victim = Victim()
    victim.suffer(opening)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(1000):
        victim.now += 0.01
        victim.suffer(piece * 10)
        victim.session.take()
        if victim.session.finished:
            break
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 2**20
    return victim


@pytest.mark.parametrize(
    "piece",
    [
        pytest.param(frame(h2.PING, 0, 0, b"\0" * 8), id="cve-2019-9512-ping"),
        pytest.param(frame(h2.PING, 1, 0, b"\0" * 8), id="ping-acknowledgements"),
        pytest.param(h2.settings(), id="cve-2019-9515-settings"),
        pytest.param(h2.settings(initial_window_size=1), id="changing-settings"),
        pytest.param(frame(h2.PRIORITY, 0, 3, b"\0\0\0\0\0"), id="cve-2019-9513-priority"),
        pytest.param(frame(h2.DATA, 0, 1, b""), id="cve-2019-9518-empty-data"),
        pytest.param(h2.window_update(0, 1), id="window-updates"),
        pytest.param(h2.window_update(1, 1), id="window-updates-of-a-stream"),
        pytest.param(frame(0xBE, 0, 0, b"grease"), id="unknown-frames"),
        pytest.param(h2.reset(1), id="resets-of-a-closed-stream"),
    ],
)
def test_n70_floods_end_with_enhance_your_calm(piece: bytes) -> None:
    victim = flood(piece, Client().headers(1))
    assert victim.session.finished


def test_n70_cve_2019_9514_reset_flood_by_our_own_hand() -> None:
    """Streams that the peer breaks so that we reset them cost as much as its own resets."""
    victim = Victim()
    for number in range(5_000):
        stream = 2 * number + 1
        victim.suffer(victim.client.headers(stream) + h2.window_update(stream, 2**31 - 1))
        victim.session.take()
        if victim.session.finished:
            break
    assert number <= FRAME_BUDGET_BURST + 1


def test_n70_continuation_flood() -> None:
    victim = Victim()
    victim.suffer(frame(h2.HEADERS, 0, 1, Client().block()))
    for _ in range(100_000):
        victim.suffer(frame(h2.CONTINUATION, 0, 1, b"\x00\x01a\x01b" * 100))
        if victim.session.finished:
            break
    assert victim.goaway() == (ENHANCE_YOUR_CALM, b"header block too large")


def test_n70_cve_2019_9511_tiny_windows_do_not_buy_unbounded_frames() -> None:
    """One byte of window at a time for a large answer."""
    victim = Victim(initial_window_size=1)
    victim.suffer(h2.window_update(0, 2**20))
    victim.suffer(victim.client.call(1, b"100000", "/test.Echo/Big"))
    sent = 0
    while not victim.session.finished and sent < 50_000:
        victim.suffer(h2.window_update(1, 1))
        victim.session.take()
        sent += 1
    assert victim.session.finished
    assert sent <= FRAME_BUDGET_BURST + 200


def test_n70_cve_2019_9517_answers_that_nobody_reads_are_bounded() -> None:
    """The socket takes nothing, the peer asks on: output stays queued and new work waits."""
    victim = Victim(initial_window_size=2**31 - 1)
    victim.suffer(h2.window_update(0, 2**31 - 1 - 65_535))
    victim.session.pause()
    calls = 0
    for number in range(200):
        victim.suffer(victim.client.call(2 * number + 1, b"1000000", "/test.Echo/Big"))
        calls += 1
    assert victim.session.waiting_bytes < 18 * 2**20
    assert len(victim.session.http2.streams) == calls


def test_n70_zero_windows_hold_no_more_than_the_bounds() -> None:
    victim = Victim(initial_window_size=0)
    for number in range(30):
        stream = 2 * number + 1
        body = grpc_message(b"burst:100000")
        victim.suffer(victim.client.headers(stream, "/test.Echo/Stream"))
        victim.suffer(frame(h2.DATA, 0, stream, body))
    assert victim.session.waiting_bytes < 18 * 2**20


def test_n70_unfinished_messages_are_bounded() -> None:
    """Five hundred streams, each with most of a large message."""
    victim = Victim()
    part = grpc_message(b"x" * 2_000_000)[:16_384]
    for number in range(500):
        stream = 2 * number + 1
        victim.suffer(victim.client.headers(stream) + frame(h2.DATA, 0, stream, part))
        if victim.session.finished:
            break
    assert victim.shared.admission.in_bytes <= 4 * 2**20
    victim.session.lost()
    assert victim.shared.admission.in_bytes == 0


POST = b"POST /v3/x HTTP/1.1\r\nHost: a"
SMUGGLED = [
    POST + b"\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    POST + b"\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n",
    POST + b"\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    POST + b"\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    POST + b"\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    POST + b"\nContent-Length: 0\r\n\r\n",
]


@pytest.mark.parametrize("data", SMUGGLED)
def test_n71_smuggled_requests_are_never_seen(data: bytes) -> None:
    api, http = FakeApi(), FakeHttp()
    shared = Shared(api, http, lambda: 0.0)
    tally = shared.admission.join("")
    assert tally is not None
    session = Http1Session(shared, judge(shared, None, "", ""), tally, lambda: None)
    session.receive(data + b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
    assert session.take().startswith(b"HTTP/1.1 4") or session.fault == "bad header"
    assert session.finished
    assert not http.requests
