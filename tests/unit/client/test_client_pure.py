"""Endpoints, spans, retries: rules without a network."""

from __future__ import annotations

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configsvc import errors
from configsvc.client import EndpointError, parse_endpoint, parse_endpoints, prefix_end
from configsvc.client.endpoints import Ring
from configsvc.client.errors import (
    BY_TEXT,
    Failure,
    OutcomeUnknownError,
    UnavailableError,
    cancel_error,
    error_of,
    failure_of,
    refusal,
)
from configsvc.client.retry import Attempts, Effect
from configsvc.types import span_of


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("db1", "https://db1:2379"),
        ("db1:99", "https://db1:99"),
        ("https://[::1]:5/", "https://[::1]:5"),
        ("http://127.0.0.1:5", "http://127.0.0.1:5"),
        ("http://localhost", "http://localhost:2379"),
        ("http://[::1]:7", "http://[::1]:7"),
    ],
)
def test_endpoints_that_can_be_used(text: str, shown: str) -> None:
    assert str(parse_endpoint(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        "http://10.0.0.1:2379",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com:1",
        "ftp://a",
        "https://user:pw@a",
        "https://a/path",
        "https://a?x=1",
        "https://a:99999",
        "https://:1",
        "https://[::1",
        "",
    ],
)
def test_endpoints_that_are_refused(text: str) -> None:
    with pytest.raises(EndpointError):
        parse_endpoints(text)


def test_lists_drop_duplicates() -> None:
    assert len(parse_endpoints("a, a:2379,,https://b")) == 2


def test_ring_moves_on_once_for_many_callers() -> None:
    first, second, third = parse_endpoints("a,b,c")
    ring = Ring((first, second, third))
    ring.leave(first)
    ring.leave(first)
    assert ring.current == second
    ring.leave(second)
    ring.leave(third)
    assert ring.current == first


@given(st.binary(max_size=4), st.binary(max_size=6))
def test_prefix_end_holds_exactly_the_prefix(prefix: bytes, key: bytes) -> None:
    span = span_of(prefix or b"\0", prefix_end(prefix))
    assert span.holds(key) == key.startswith(prefix)


def test_every_text_of_the_error_table_is_known() -> None:
    assert BY_TEXT["etcdserver: mvcc: database space exceeded"] is errors.NoSpaceError
    assert len([kind for kind in BY_TEXT.values() if issubclass(kind, errors.EtcdError)]) > 55


def test_unknown_statuses_keep_code_and_text() -> None:
    assert str(refusal("UNKNOWN", "what")) == "UNKNOWN: what"
    assert isinstance(refusal("NOT_FOUND", "gone"), errors.NotFoundError)


def test_cancel_reasons() -> None:
    denied = cancel_error("rpc error: code = PermissionDenied desc = etcdserver: permission denied")
    assert isinstance(denied, errors.PermissionDeniedError)
    other = cancel_error("rpc error: code = FailedPrecondition desc = no")
    assert isinstance(other, errors.ConflictError)
    assert isinstance(cancel_error(""), errors.WatchCanceledError)


def lost(code: str = "UNAVAILABLE", *, sent: bool = True, text: str = "gone") -> Failure:
    return Failure(code, text, "https://a:1", sent)


@pytest.mark.parametrize("code", ["UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"])
def test_a_doubtful_write_never_claims_to_have_failed(code: str) -> None:
    for text in (
        "",
        "Socket closed",
        "etcdserver: request timed out",
        "etcdserver: server stopped",
    ):
        assert isinstance(error_of(lost(code, text=text), write=True), OutcomeUnknownError)


class EndedMeanwhile:
    """What grpc.aio raises when it writes to a stream whose end it has not told yet."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.INTERNAL

    def details(self) -> str:
        return "Internal error from Core"


@pytest.mark.parametrize(
    ("write", "kind"), [(False, UnavailableError), (True, OutcomeUnknownError)]
)
def test_a_call_that_ended_while_it_was_written_may_be_tried_again(
    write: bool, kind: type[Exception]
) -> None:
    assert isinstance(error_of(failure_of(EndedMeanwhile(), "e"), write=write), kind)


def test_a_write_that_was_not_sent_is_just_unavailable() -> None:
    assert isinstance(error_of(lost(sent=False), write=True), UnavailableError)
    assert isinstance(error_of(lost(), write=False), UnavailableError)


@given(
    st.sampled_from(list(Effect)),
    st.integers(1, 4),
    st.lists(st.tuples(st.sampled_from(["UNAVAILABLE", "DEADLINE_EXCEEDED"]), st.booleans())),
)
def test_a_sent_write_is_never_repeated_and_every_call_ends(
    effect: Effect, endpoints: int, failures: list[tuple[str, bool]]
) -> None:
    attempts = Attempts(effect, endpoints=endpoints, deadline=5.0, can_login=True)
    now = 0.0
    for code, sent in failures + [("UNAVAILABLE", False)] * 40:
        step = attempts.after(lost(code, sent=sent), now, 0.5)
        if sent and effect is Effect.ONCE:
            assert not step.again
        if not step.again:
            assert step.move
            return
        now += step.pause_s + 0.1
        assert now < 5.2
    pytest.fail("never gave up")


def test_refusals_are_final() -> None:
    for effect in Effect:
        attempts = Attempts(effect, endpoints=3, deadline=5.0, can_login=True)
        step = attempts.after(lost("PERMISSION_DENIED"), 0.0, 0.0)
        assert not step.again
        assert not step.move


@pytest.mark.parametrize("effect", Effect)
def test_a_learner_sends_on_to_the_next_member_each_once(effect: Effect) -> None:
    learner = Failure("FAILED_PRECONDITION", errors.NotSupportedForLearnerError.text, "m4", True)
    attempts = Attempts(effect, endpoints=3, deadline=5.0, can_login=False)
    steps = [attempts.after(learner, 0.0, 0.0) for _ in range(3)]
    assert [(s.again, s.move, s.pause_s) for s in steps] == [
        (True, True, 0.0), (True, True, 0.0), (False, True, 0.0),
    ]  # fmt: skip
    alone = Attempts(effect, endpoints=1, deadline=5.0, can_login=False)
    assert not alone.after(learner, 0.0, 0.0).again
    late = Attempts(effect, endpoints=3, deadline=5.0, can_login=False)
    assert not late.after(learner, 6.0, 0.0).again


def test_time_is_left_for_other_members() -> None:
    read = Attempts(Effect.READ, endpoints=3, deadline=8.0, can_login=False)
    assert read.allowance_s(0.0) == 4.0
    assert read.allowance_s(7.0) == 1.0
    write = Attempts(Effect.ONCE, endpoints=3, deadline=8.0, can_login=False)
    assert write.allowance_s(0.0) == 8.0
    assert write.allowance_s(9.0) > 0
