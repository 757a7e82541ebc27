"""Sessions without sockets: unary calls, at once and waiting, and how they end."""

from __future__ import annotations

import pytest

from configsvc.errors import InvariantViolationError, PermissionDeniedError, StoppedError
from configsvc.limits import MESSAGE_BYTES_MAX
from tests.support import http2_frames as h2
from tests.support.http2_frames import frame, grpc_message
from tests.support.session_rig import Rig, http


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


def test_an_unacceptable_certificate_is_told_and_then_cut_off() -> None:
    rig = Rig(refuse=True)
    for number in range(3):
        assert not rig.session.finished
        answer = rig.send(rig.client.call(2 * number + 1, b"x"))[2 * number + 1]
        assert answer.status == 16
        assert answer.fields["grpc-message"] == "certificate not acceptable"
    assert rig.session.finished
    assert not rig.api.calls


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
