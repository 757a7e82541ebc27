"""Sessions without sockets: what calls may hold, and who waits or is refused (LIM-5, LIM-18)."""

from __future__ import annotations

import pytest

from configsvc.frontend import admission as admission_module
from configsvc.frontend import http2_session as session_module
from configsvc.frontend import intake as intake_module
from configsvc.limits import HTTP2_STREAM_WINDOW_BYTES
from tests.support import http2_frames as h2
from tests.support.http2_frames import frame, grpc_message
from tests.support.session_rig import Rig


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


def test_unary_calls_of_all_identities_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_module, "UNARY_IN_FLIGHT_MAX", 2)
    rig = Rig()
    rig.tally.key = ""  # nobody in particular: no bound of its own
    calls = b"".join(rig.client.call(2 * n + 1, b"x", "/test.Echo/Wait") for n in range(3))
    assert rig.send(calls)[5].status == 8


@pytest.mark.parametrize(
    ("bound", "key"), [("STREAMS_PER_IDENTITY_MAX", "alice"), ("STREAMS_MAX", "")]
)
def test_streams_are_bounded(bound: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third is refused; each way in which another ends makes room."""
    monkeypatch.setattr(admission_module, bound, 2)
    rig = Rig()
    rig.tally.key = key
    heads = [rig.client.headers(2 * n + 1, "/test.Echo/Stream") for n in range(3)]
    answers = rig.send(b"".join(heads))
    assert [answers[stream].status for stream in answers] == [8]
    assert len(rig.api.streams) == 2
    ends = [
        h2.reset(1),
        frame(h2.DATA, 0, 3, grpc_message(b"finish")),
        frame(h2.DATA, 0, 7, grpc_message(b"fail")),
        frame(h2.DATA, 0, 9, grpc_message(b"x", compressed=True)),
    ]
    for number, end in enumerate(ends):
        rig.send(end)
        stream = 2 * number + 7
        assert not rig.send(rig.client.headers(stream, "/test.Echo/Stream"))
        assert rig.shared.admission.streams == rig.tally.streams == 2
    rig.session.lost()
    assert rig.shared.admission.streams == rig.tally.streams == 0
