"""Sessions without sockets: unary calls, waiting ones, streams, refusals, bounds."""

from __future__ import annotations

import pytest

from configsvc.errors import InvariantViolationError, PermissionDeniedError, StoppedError
from configsvc.frontend import admission as admission_module
from configsvc.frontend import http2_session as session_module
from configsvc.frontend import intake as intake_module
from configsvc.frontend.http2_session import Http2Session
from configsvc.frontend.shared import Shared, judge
from configsvc.limits import HTTP2_STREAM_WINDOW_BYTES, MESSAGE_BYTES_MAX, STREAM_OUT_BYTES_HARD
from tests.support import http2_frames as h2
from tests.support.frontend_fakes import FakeApi, FakeHttp
from tests.support.http2_frames import Answer, Client, frame, grpc_message


class Rig:
    """A session, its client, a clock that stands still, and what it was answered."""

    def __init__(self, *, refuse: bool = False, serves_grpc: bool = True, **settings: int) -> None:
        self.api = FakeApi()
        self.api.refuse = refuse
        self.http = FakeHttp()
        self.now = 50.0
        self.dirty = 0
        self.shared = Shared(self.api, self.http, lambda: self.now, serves_grpc=serves_grpc)
        identity = judge(self.shared, None, "127.0.0.1", "")
        tally = self.shared.admission.join(identity.key)
        assert tally is not None
        self.tally = tally
        self.session = Http2Session(self.shared, identity, tally, self._on_dirty)
        self.client = Client()
        self.session.receive(Client.hello(**settings) + h2.SETTINGS_ACK)
        self.session.take()

    def _on_dirty(self) -> None:
        self.dirty += 1

    def send(self, data: bytes) -> dict[int, Answer]:
        self.session.receive(data)
        return self.answers()

    def answers(self) -> dict[int, Answer]:
        out = b""
        while part := self.session.take():
            out += part
        return self.client.answers(out)


@pytest.mark.parametrize("step", [0, 1, 100])
def test_a_unary_call_in_any_pieces(step: int) -> None:
    rig = Rig()
    data = rig.client.call(1, b"hello")
    for start in range(0, len(data), step or len(data)):
        rig.session.receive(data[start : start + (step or len(data))])
    answer = rig.answers()[1]
    assert answer.messages == [b"hello"]
    assert answer.status == 0
    assert answer.reset is None
    assert rig.shared.admission.in_bytes == 0


def test_a_call_in_several_data_frames() -> None:
    rig = Rig()
    body = grpc_message(b"x" * 30_000)
    data = rig.client.headers(1)
    for start in range(0, len(body), 10_000):
        data += frame(h2.DATA, 0, 1, body[start : start + 10_000])
    assert rig.send(data) == {}
    assert rig.shared.admission.in_bytes == len(body) - 5
    assert rig.send(frame(h2.DATA, 1, 1, b""))[1].messages == [b"x" * 30_000]
    assert rig.shared.admission.in_bytes == 0


@pytest.mark.parametrize(
    ("body", "code"),
    [
        pytest.param(b"", 12, id="no-message"),
        pytest.param(grpc_message(b"a") + grpc_message(b"b"), 12, id="two-messages"),
        pytest.param(grpc_message(b"abc")[:-1], 13, id="cut-message"),
        pytest.param(b"\0\0", 13, id="cut-prefix"),
        pytest.param(grpc_message(b"abc", compressed=True), 12, id="compressed"),
        pytest.param(b"\0\xff\xff\xff\xff", 8, id="four-gigabytes"),
        pytest.param(b"\0" + (MESSAGE_BYTES_MAX + 1).to_bytes(4, "big"), 8, id="too-large"),
    ],
)
@pytest.mark.parametrize("path", ["/test.Echo/Unary", "/test.Echo/Down"])
def test_calls_that_break_the_rules_of_grpc(body: bytes, code: int, path: str) -> None:
    rig = Rig()
    answer = rig.send(rig.client.headers(1, path) + frame(h2.DATA, 1, 1, body))[1]
    assert answer.status == code
    assert answer.ended
    assert not rig.api.calls
    assert rig.shared.admission.in_bytes == 0
    assert rig.send(rig.client.call(3, b"next"))[3].messages == [b"next"]


def test_a_message_that_is_too_large_is_refused_at_its_prefix() -> None:
    rig = Rig()
    prefix = b"\0" + (MESSAGE_BYTES_MAX + 1).to_bytes(4, "big")
    answer = rig.send(rig.client.headers(1) + frame(h2.DATA, 0, 1, prefix))[1]
    assert (answer.status, answer.reset) == (8, 0)
    assert rig.send(frame(h2.DATA, 0, 1, b"x" * 16_000) * 3) == {}
    assert rig.session.fault == ""


@pytest.mark.parametrize(
    "path",
    [
        "test.Echo/Unary",
        "//test.Echo/Unary",
        "/test.Echo/Unary/",
        "/test.Echo/Unary?x",
        "/test.Echo%2fUnary",
        "/TEST.Echo/Unary",
        "/test.Echo/unary",
        "/",
        "*",
    ],
)
def test_paths_match_exactly_or_not_at_all(path: str) -> None:
    rig = Rig()
    answer = rig.send(rig.client.call(1, b"x", path))[1]
    assert answer.status == 12
    assert not rig.api.calls


def test_unknown_methods_are_reported_with_who_called() -> None:
    rig = Rig()
    heard: list[str] = []
    rig.shared.on_unknown_method = lambda identity: heard.append(identity.key)
    rig.send(rig.client.call(1, b"x", "/no.Such/Method") + rig.client.call(3, b"x"))
    assert heard == ["spiffe://test/user/alice"]


def test_handlers_errors_become_statuses() -> None:
    rig = Rig()
    answers = rig.send(
        rig.client.call(1, b"", "/test.Echo/Fail") + rig.client.call(3, b"bug", "/test.Echo/Fail")
    )
    assert answers[1].status == 7
    assert answers[1].fields["grpc-message"] == "etcdserver: permission denied%0A100%25 %C3%BC"
    assert answers[3].status == 13
    assert answers[3].fields["grpc-message"] == "internal error, id=1"
    assert ":status" in answers[1].fields


def test_a_broken_invariant_is_not_answered() -> None:
    rig = Rig()

    def broken(caller: object, raw: bytes) -> bytes:
        raise InvariantViolationError("x")

    rig.api.methods[b"/test.Echo/Unary"] = rig.api.methods[b"/test.Echo/Unary"]._replace(
        unary=broken
    )
    with pytest.raises(InvariantViolationError):
        rig.send(rig.client.call(1, b"x"))


def test_waiting_calls_are_finished_in_bulk() -> None:
    rig = Rig()
    calls = b"".join(rig.client.call(2 * n + 1, b"x", "/test.Echo/Wait") for n in range(5))
    assert rig.send(calls) == {}
    assert rig.shared.admission.unary == rig.tally.unary == 5
    for number, waiting in enumerate(rig.api.waiting[:4]):
        waiting.complete(b"%d" % number)
    rig.api.waiting[4].complete(PermissionDeniedError())
    answers = rig.answers()
    assert [answers[2 * n + 1].messages for n in range(4)] == [[b"0"], [b"1"], [b"2"], [b"3"]]
    assert answers[9].status == 7
    assert rig.shared.admission.unary == rig.tally.unary == 0
    assert rig.dirty >= 5


def test_a_reset_cancels_what_waits() -> None:
    rig = Rig()
    rig.send(rig.client.call(1, b"x", "/test.Echo/Wait"))
    rig.send(h2.reset(1))
    (waiting,) = rig.api.waiting
    assert waiting.cancelled
    waiting.complete(b"late")
    assert rig.answers() == {}
    assert rig.shared.admission.unary == 0


def test_a_call_that_is_reset_in_the_same_read_never_starts() -> None:
    rig = Rig()
    rig.send(rig.client.call(1, b"x", "/test.Echo/Wait") + h2.reset(1))
    rig.send(rig.client.headers(3, "/test.Echo/Stream") + h2.reset(3))
    assert not rig.api.calls
    assert not rig.api.streams


def test_a_lost_connection_frees_everything() -> None:
    rig = Rig()
    rig.send(
        rig.client.call(1, b"x", "/test.Echo/Wait")
        + rig.client.headers(3, "/test.Echo/Stream")
        + rig.client.headers(5)
        + frame(h2.DATA, 0, 5, grpc_message(b"x" * 100)[:50])
    )
    assert rig.shared.admission.in_bytes == 50
    rig.session.lost()
    rig.session.lost()
    assert rig.api.waiting[0].cancelled
    assert rig.api.streams[0].heard == ["cancel"]
    assert rig.shared.admission.unary == 0
    assert rig.shared.admission.in_bytes == 0


def test_a_handler_that_fails_while_it_is_freed_harms_nobody() -> None:
    rig = Rig()
    rig.send(
        rig.client.headers(1, "/test.Echo/Stream")
        + rig.client.headers(3, "/test.Echo/Stream")
        + http(rig, 5, "/wait", end=True)
    )

    def broken() -> None:
        raise ZeroDivisionError

    rig.api.streams[0].on_cancel = broken  # type: ignore[method-assign]
    rig.session.lost()
    assert rig.api.streams[1].heard == ["cancel"]
    assert rig.http.running[0].heard == ["cancel"]


def test_a_fault_frees_everything_and_starts_nothing() -> None:
    rig = Rig()
    rig.send(rig.client.headers(1, "/test.Echo/Stream"))
    rig.session.receive(rig.client.call(3, b"x", "/test.Echo/Wait") + frame(h2.DATA, 0, 0, b""))
    assert rig.session.finished
    assert rig.api.streams[0].heard == ["cancel"]
    assert not rig.api.calls


@pytest.mark.parametrize("fault", [frame(h2.DATA, 0, 0, b""), b"\xff" * 9])
def test_a_reset_and_a_fault_in_one_read_leave_nothing_behind(fault: bytes) -> None:
    """The reset stream is in no table any more, and its event comes with the fault."""
    rig = Rig()
    rig.send(
        rig.client.call(1, b"x", "/test.Echo/Wait")
        + rig.client.headers(3, "/test.Echo/Stream")
        + rig.client.headers(5)
        + frame(h2.DATA, 0, 5, grpc_message(b"x" * 100)[:50])
    )
    late = frame(h2.DATA, 1, 1, b"x")  # after its end: we reset it ourselves
    rig.session.receive(late + h2.reset(3) + h2.reset(5) + fault)
    assert rig.session.finished
    assert rig.api.waiting[0].cancelled
    assert rig.api.streams[0].heard == ["cancel"]
    assert rig.shared.admission.unary == rig.tally.unary == 0
    assert rig.shared.admission.in_bytes == 0


def test_a_deadline_is_its_calls_alone() -> None:
    """Calls of one connection share their caller: the next call is not late by the first's."""
    rig = Rig()
    extra = (("grpc-timeout", "2S"),)
    message = frame(h2.DATA, 1, 1, grpc_message(b"x"))
    rig.send(rig.client.headers(1, "/test.Echo/Wait", extra) + message)
    rig.send(rig.client.headers(3, "/test.Echo/Wait") + frame(h2.DATA, 1, 3, grpc_message(b"x")))
    rig.session.expire(52.0)
    assert rig.answers().keys() == {1}
    assert not rig.api.waiting[1].cancelled


@pytest.mark.parametrize("path", ["/test.Echo/Wait", "/test.Echo/Stream"])
def test_deadlines(path: str) -> None:
    rig = Rig()
    extra = (("grpc-timeout", "2S"),)
    rig.send(rig.client.headers(1, path, extra) + frame(h2.DATA, 1, 1, grpc_message(b"x")))
    assert rig.session.has_deadlines
    rig.session.expire(51.9)
    assert rig.answers() == {} or path.endswith("Stream")
    rig.session.expire(52.0)
    answer = rig.answers()[1]
    assert answer.status == 4
    assert not rig.session.has_deadlines
    if rig.api.waiting:
        assert rig.api.waiting[0].cancelled
    else:
        assert rig.api.streams[0].heard[-1] == "cancel"


@pytest.mark.parametrize(
    "extra",
    [(("grpc-timeout", "soon"),), (("x-bin", "%%%"),)],
)
@pytest.mark.parametrize("path", ["/test.Echo/Unary", "/test.Echo/Stream"])
def test_metadata_that_cannot_be_read_fails_that_call_only(
    extra: tuple[tuple[str, str], ...], path: str
) -> None:
    rig = Rig()
    answer = rig.send(rig.client.headers(1, path, extra) + frame(h2.DATA, 1, 1, b"\0" * 5))[1]
    assert answer.status == 3
    assert rig.send(rig.client.call(3, b"ok"))[3].messages == [b"ok"]


def test_metadata_reaches_the_identity_and_its_refusal_the_client() -> None:
    rig = Rig()
    rig.send(rig.client.call(1, b"x", extra=(("token", "t1"), ("x-bin", "AAE"))))
    metadata = rig.api.identities[0].metadata
    assert (b"token", b"t1") in metadata
    assert (b"x-bin", b"\0\1") in metadata
    answer = rig.send(rig.client.call(3, b"x", extra=(("token", "bad"),)))[3]
    assert answer.status == 16
    assert len(rig.api.calls) == 1


# --- streams -------------------------------------------------------------------------------------


def test_a_stream_echoes_until_it_is_finished() -> None:
    rig = Rig()
    answers = rig.send(
        rig.client.headers(1, "/test.Echo/Stream") + frame(h2.DATA, 0, 1, grpc_message(b"a"))
    )
    assert answers[1].messages == [b"a"]
    assert not answers[1].ended
    last = rig.send(frame(h2.DATA, 0, 1, grpc_message(b"b") + grpc_message(b"finish")))[1]
    assert last.messages == [b"b"]
    assert (last.status, last.reset) == (0, 0)
    assert rig.api.streams[0].heard == ["message"] * 3


def test_a_half_closed_stream_goes_on() -> None:
    rig = Rig()
    rig.send(rig.client.headers(1, "/test.Echo/Stream", end=True))
    stream = rig.api.streams[0]
    assert stream.heard == ["half_close"]
    stream.sink.send(b"news")
    assert rig.answers()[1].messages == [b"news"]
    stream.sink.finish(StoppedError())
    last = rig.answers()[1]
    assert (last.status, last.reset) == (14, None)


@pytest.mark.parametrize(("message", "code"), [(b"fail", 7), (b"bug", 13)])
def test_what_a_stream_raises_ends_it(message: bytes, code: int) -> None:
    rig = Rig()
    answer = rig.send(
        rig.client.headers(1, "/test.Echo/Stream")
        + frame(h2.DATA, 0, 1, grpc_message(message) + grpc_message(b"never"))
    )[1]
    assert answer.status == code
    assert rig.api.streams[0].heard == ["message", "cancel"]


@pytest.mark.parametrize("where", ["on_half_close", "on_writable"])
def test_what_a_stream_raises_elsewhere_ends_it_too(where: str) -> None:
    rig = Rig(initial_window_size=0)
    rig.session.receive(h2.window_update(0, 2**30))
    rig.send(
        rig.client.headers(1, "/test.Echo/Stream")
        + frame(h2.DATA, 0, 1, grpc_message(b"burst:2000"))
    )

    def broken() -> None:
        raise PermissionDeniedError

    setattr(rig.api.streams[0], where, broken)
    rig.session.receive(frame(h2.DATA, 1, 1, b"") if where == "on_half_close" else b"")
    answer = rig.send(h2.window_update(1, 2**24))[1]
    assert answer.status == 7
    assert rig.api.streams[0].heard[-1] == "cancel"


def test_a_stream_that_may_not_start() -> None:
    rig = Rig()
    answer = rig.send(rig.client.headers(1, "/test.Echo/Denied"))[1]
    assert answer.status == 7
    assert not rig.session.http2.streams


def test_a_reset_stream_is_told_once() -> None:
    rig = Rig()
    rig.send(rig.client.headers(1, "/test.Echo/Stream"))
    rig.send(h2.reset(1))
    rig.session.lost()
    stream = rig.api.streams[0]
    assert stream.heard == ["cancel"]
    assert not stream.sink.send(b"late")
    stream.sink.finish(None)
    assert rig.answers() == {}


def test_a_slow_reader_is_waited_for() -> None:
    rig = Rig(initial_window_size=0)
    rig.session.receive(h2.window_update(0, 2**30))
    rig.send(
        rig.client.headers(1, "/test.Echo/Stream")
        + frame(h2.DATA, 0, 1, grpc_message(b"burst:5000"))
    )
    stream = rig.api.streams[0]
    assert stream.left > 3000
    assert 2**20 < rig.session.waiting_bytes < 2**20 + 4_096
    got = 0
    while stream.left or rig.session.waiting_bytes:
        for answer in rig.send(h2.window_update(1, 300_000)).values():
            got += len(answer.body)
    assert got == 5000 * (1024 + 5)
    assert "writable" in stream.heard


def test_a_handler_that_ignores_the_bound_is_cut_off() -> None:
    rig = Rig(initial_window_size=0)
    answer = rig.send(
        rig.client.headers(1, "/test.Echo/Stream")
        + frame(h2.DATA, 0, 1, grpc_message(b"flood:6000"))
    )[1]
    assert answer.status == 8
    assert rig.session.waiting_bytes == 0
    assert rig.api.streams[0].heard == ["message", "cancel"]
    assert STREAM_OUT_BYTES_HARD < 6000 * 1024


def test_server_streams_take_one_message() -> None:
    rig = Rig()
    two = grpc_message(b"a") + grpc_message(b"b")
    answer = rig.send(rig.client.headers(1, "/test.Echo/Down") + frame(h2.DATA, 0, 1, two))[1]
    assert answer.status == 12
    assert rig.api.streams[0].heard[0] == "message"


# --- bounds --------------------------------------------------------------------------------------


def test_unary_calls_in_flight_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_module, "UNARY_PER_IDENTITY_MAX", 2)
    rig = Rig()
    calls = b"".join(rig.client.call(2 * n + 1, b"x", "/test.Echo/Wait") for n in range(3))
    assert rig.send(calls)[5].status == 8
    rig.api.waiting[0].complete(b"")
    assert rig.send(rig.client.call(7, b"x", "/test.Echo/Wait"))[1].status == 0


def part_of(size: int, count: int) -> tuple[bytes, bytes]:
    """A message of ``size`` bytes, cut after ``count``."""
    body = grpc_message(b"x" * size)
    return body[:count], body[count:]


def test_the_youngest_incomplete_request_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "CONNECTION_IN_BYTES_MAX", 30_000)
    rig = Rig()
    part, rest = part_of(20_000, 10_010)
    assert rig.send(rig.client.headers(1) + frame(h2.DATA, 0, 1, part)) == {}
    assert rig.send(rig.client.headers(3) + frame(h2.DATA, 0, 3, part)) == {}
    assert rig.send(rig.client.headers(5) + frame(h2.DATA, 0, 5, part))[5].reset == 7
    assert rig.shared.admission.in_bytes == 20_020
    assert rig.send(frame(h2.DATA, 1, 1, rest))[1].status == 0


def test_the_member_bounds_incomplete_requests_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_module, "MEMBER_IN_BYTES_MAX", 15_000)
    rig = Rig()
    part, _ = part_of(20_000, 10_000)
    rig.send(rig.client.headers(1) + frame(h2.DATA, 0, 1, part))
    assert rig.send(rig.client.headers(3) + frame(h2.DATA, 0, 3, part))[3].reset == 7


def test_large_messages_take_turns_instead_of_being_refused() -> None:
    """Thirty of 1.5 MiB at once on one connection, against a client that honours its windows."""
    rig = Rig()
    size = 1_500_000
    left = {2 * n + 1: grpc_message(b"x" * size) for n in range(30)}
    window = dict.fromkeys(left, HTTP2_STREAM_WINDOW_BYTES)
    rig.session.receive(b"".join(rig.client.headers(stream) for stream in left))
    answered: set[int] = set()
    for _ in range(10_000):
        sent = b""
        for stream, body in left.items():
            count = min(window[stream], 16_384, len(body))
            if count:
                left[stream] = body[count:]
                window[stream] -= count
                sent += frame(h2.DATA, int(not left[stream]), stream, body[:count])
        rig.session.receive(sent)
        out = b""
        while part := rig.session.take():
            out += part
        for each in h2.split(out):
            assert each.kind != h2.RST_STREAM
            if each.kind == h2.WINDOW_UPDATE and each.stream:
                window[each.stream] += int.from_bytes(each.payload, "big")
            elif each.kind == h2.HEADERS and each.stream in left:
                answered.add(each.stream)
        assert rig.shared.admission.in_bytes <= 4 * 2**20
        if len(answered) == 30:
            break
    assert len(answered) == 30


def test_a_message_that_fits_needs_no_wider_window() -> None:
    rig = Rig()
    body = grpc_message(b"x" * 30_000)
    data = rig.client.headers(1)
    for start in range(0, len(body), 16_000):
        data += frame(h2.DATA, int(start + 16_000 >= len(body)), 1, body[start : start + 16_000])
    rig.session.receive(data)
    kinds = [each.kind for each in h2.split(rig.session.take())]
    assert h2.WINDOW_UPDATE not in kinds


def test_a_long_stream_of_messages_never_runs_out_of_window() -> None:
    rig = Rig()
    window = HTTP2_STREAM_WINDOW_BYTES
    rig.session.receive(rig.client.headers(1, "/test.Echo/Stream"))
    for number in range(2_000):
        size = (number * 37) % 900
        piece = frame(h2.DATA, 0, 1, grpc_message(b"x" * size))
        window -= size + 5
        assert window >= 0
        rig.session.receive(piece)
        for each in h2.split(rig.session.take()):
            if each.kind == h2.WINDOW_UPDATE and each.stream == 1:
                window += int.from_bytes(each.payload, "big")
        rig.session.receive(h2.window_update(1, size + 5) + h2.window_update(0, size + 5))
        assert window <= HTTP2_STREAM_WINDOW_BYTES


def test_requests_wait_while_the_peer_leaves_its_answers_lying(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session_module, "CONNECTION_OUT_BYTES_MAX", 100_000)
    rig = Rig(initial_window_size=0)
    rig.session.receive(h2.window_update(0, 2**30))
    rig.send(rig.client.call(1, b"150000", "/test.Echo/Big"))
    assert rig.send(rig.client.call(3, b"second") + rig.client.call(5, b"third")) == {}
    assert not rig.api.calls
    rig.send(h2.reset(5))
    rig.send(h2.window_update(1, 150_005))
    rig.session.receive(b"")
    assert [raw for _, raw in rig.api.calls] == [b"second"]
    assert rig.shared.admission.in_bytes == 0
    assert rig.send(h2.window_update(3, 100))[3].messages == [b"second"]


# --- identity, drain, HTTP -----------------------------------------------------------------------


def test_an_unacceptable_certificate_is_told_and_then_cut_off() -> None:
    rig = Rig(refuse=True)
    for number in range(3):
        assert not rig.session.finished
        answer = rig.send(rig.client.call(2 * number + 1, b"x"))[2 * number + 1]
        assert answer.status == 16
        assert answer.fields["grpc-message"] == "certificate not acceptable"
    assert rig.session.finished
    assert not rig.api.calls


def test_an_unacceptable_certificate_and_http() -> None:
    rig = Rig(refuse=True)
    for number in range(3):
        data = rig.client.headers(
            2 * number + 1, "/health", end=True, method="GET", content_type=None
        )
        assert rig.send(data)[2 * number + 1].fields[":status"] == "401"
    assert rig.session.finished
    assert not rig.http.requests


def test_drain_finishes_what_is_there() -> None:
    rig = Rig()
    rig.send(
        rig.client.call(1, b"x", "/test.Echo/Wait") + rig.client.headers(3, "/test.Echo/Stream")
    )
    rig.session.drain()
    assert not rig.session.finished
    rig.session.end_streams(StoppedError())
    rig.session.finish_drain()
    assert rig.answers()[3].status == 14
    assert rig.api.streams[0].heard == ["cancel"]
    assert not rig.session.finished
    rig.api.waiting[0].complete(b"done")
    assert rig.answers()[1].messages == [b"done"]
    assert rig.session.finished


def http(rig: Rig, stream: int, path: str, method: str = "GET", **options: bool) -> bytes:
    return rig.client.headers(stream, path, method=method, content_type=None, **options)


def test_http_requests_go_to_the_gateway() -> None:
    rig = Rig()
    answers = rig.send(
        http(rig, 1, "/health?a=b", end=True)
        + http(rig, 3, "/v3/kv/put", "POST")
        + frame(h2.DATA, 0, 3, b'{"a"')
        + frame(h2.DATA, 1, 3, b":1}")
    )
    assert answers[1].fields[":status"] == "200"
    assert answers[1].fields["content-length"] == "17"
    assert answers[1].body == b'{"health":"true"}'
    assert answers[3].body == b'{"a":1}'
    get, post = rig.http.requests
    assert (get.method, get.path, get.query) == ("GET", "/health", "a=b")
    assert (b"host", b"localhost") in get.headers
    assert post.body == b'{"a":1}'
    assert rig.shared.admission.in_bytes == 0


def test_http_answers_in_pieces_and_without_a_body() -> None:
    rig = Rig()
    answers = rig.send(
        http(rig, 1, "/chunks", end=True)
        + http(rig, 3, "/health", "HEAD", end=True)
        + http(rig, 5, "/bug", end=True)
        + http(rig, 7, "/inject", end=True)
    )
    assert answers[1].body == b"chunk 0\nchunk 1\nchunk 2\n"
    assert answers[1].ended
    assert answers[3].body == b""
    assert answers[3].fields["content-length"] == "17"
    assert answers[5].fields[":status"] == "500"
    assert answers[7].fields["x-echo"] == "a  set-cookie: b"


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [("health", "GET", "400"), ("*", "OPTIONS", "400")],
)
def test_http_targets_are_paths(path: str, method: str, status: str) -> None:
    rig = Rig()
    assert rig.send(http(rig, 1, path, method, end=True))[1].fields[":status"] == status


def test_a_grpc_content_type_needs_post() -> None:
    rig = Rig()
    answer = rig.send(rig.client.headers(1, method="GET", end=True))[1]
    assert answer.fields[":status"] == "405"


@pytest.mark.parametrize("announced", [True, False])
def test_http_bodies_are_bounded(*, announced: bool) -> None:
    rig = Rig()
    extra = (("content-length", "2097152"),) if announced else ()
    rig.session.receive(rig.client.headers(1, "/v3/x", extra, method="POST", content_type=None))
    status = ""
    window = HTTP2_STREAM_WINDOW_BYTES
    sent = 0
    while not status:
        count = min(window, 16_000)
        assert count, "the window must follow the body"
        window -= count
        sent += count
        rig.session.receive(frame(h2.DATA, 0, 1, b"x" * count))
        for each in h2.split(rig.session.take()):
            if each.kind == h2.WINDOW_UPDATE and each.stream == 1:
                window += int.from_bytes(each.payload, "big")
            elif each.kind == h2.HEADERS:
                status = rig.client.fields(each.payload)[":status"]
        if announced and sent >= 2_000_000:
            return
    assert status == "413"
    assert sent <= 2_097_152 + 16_000
    assert rig.shared.admission.in_bytes == 0
    assert not rig.http.requests


def test_a_body_that_is_announced_too_large_is_refused_at_once() -> None:
    rig = Rig()
    extra = (("content-length", "2097153"),)
    data = rig.client.headers(1, "/v3/x", extra, method="POST", content_type=None)
    answer = rig.send(data)[1]
    assert (answer.fields[":status"], answer.reset) == ("413", 0)


def test_slow_readers_of_http_are_waited_for_and_cut_off_in_the_end() -> None:
    rig = Rig(initial_window_size=0)
    rig.session.receive(h2.window_update(0, 2**30))
    rig.send(http(rig, 1, "/wait", end=True))
    running = rig.http.running[0]
    running.sink.start(200, ())
    sent = 0
    while running.sink.chunk(b"x" * 65_536):
        sent += 65_536
    assert 2**20 - 65_536 <= sent <= 2**20
    rig.send(h2.window_update(1, 800_000))
    assert running.heard == ["writable"]
    for _ in range(100):
        running.sink.chunk(b"x" * 65_536)
    assert running.heard[-1] == "cancel"
    assert rig.answers()[1].reset == 2
    assert rig.session.waiting_bytes == 0
    running.sink.end()
    running.sink.start(200, ())
    assert not running.sink.chunk(b"x")


def test_host_and_authority_must_agree_outside_grpc() -> None:
    rig = Rig()
    extra = (("host", "elsewhere"),)
    assert rig.send(rig.client.call(1, b"x", extra=extra))[1].status == 0
    rig.send(rig.client.headers(3, "/health", extra, end=True, method="GET", content_type=None))
    assert rig.session.fault == "host is not authority"


def test_a_gone_http_client_is_told_to_the_gateway() -> None:
    rig = Rig()
    rig.send(http(rig, 1, "/wait", end=True))
    rig.send(h2.reset(1))
    (running,) = rig.http.running
    assert running.heard == ["cancel"]
    running.sink.respond(200, (), b"late")
    assert rig.answers() == {}


def test_a_listener_for_http_alone_serves_no_grpc() -> None:
    rig = Rig(serves_grpc=False)
    answers = rig.send(rig.client.call(1, b"x") + http(rig, 3, "/health", end=True))
    assert answers[1].status == 12
    assert answers[3].fields[":status"] == "200"
