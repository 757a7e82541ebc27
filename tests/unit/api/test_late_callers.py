"""A16: a member that is behind waits for the index in a simple token before it judges it."""

from __future__ import annotations

from typing import Any

import pytest

from configsvc.api.callers import Callers, Connection
from configsvc.api.contract import Caller, StreamSink
from configsvc.api.late_callers import TOO_LONG, LateCallers
from configsvc.auth.state import AuthState
from configsvc.errors import (
    ConfigServiceError,
    InvalidArgumentError,
    InvalidAuthTokenError,
    OverloadedError,
    PermissionDeniedError,
    StoppedError,
    TimeoutWaitAppliedIndexError,
)
from configsvc.identity.etcd_tokens import SimpleTokens
from configsvc.limits import LATE_STREAM_BYTES_MAX
from configsvc.runtime.reads import Reads
from configsvc.runtime.waiting import Waiting
from configsvc.types import NodeId

NOW_NS = 1_800_000_000_000_000_000
INDEX = 9
PATIENCE_S = 7.0
Told = bytes | ConfigServiceError


class Handler:
    """A stream's handler that remembers."""

    def __init__(self, name: str, sink: StreamSink) -> None:
        self.name = name
        self.sink = sink
        self.heard: list[object] = []

    def on_message(self, raw: bytes) -> None:
        self.heard.append(raw)
        if raw == b"bad":
            raise InvalidArgumentError("bad")
        if raw == b"end":
            self.sink.finish(None)

    def on_half_close(self) -> None:
        self.heard.append("half-close")

    def on_cancel(self) -> None:
        self.heard.append("cancel")

    def on_writable(self) -> None:
        self.heard.append("writable")


class Sink:
    def __init__(self) -> None:
        self.ends: list[object] = []

    def send(self, payload: bytes) -> bool:
        return True

    def finish(self, error: ConfigServiceError | None) -> None:
        self.ends.append(error)


class Behind:
    """A member that has applied less than the others; ``catch_up`` gives it root's password."""

    trust_domain = issuer = audience = "test"

    def __init__(self) -> None:
        self.now = 0.0
        self.applied = INDEX - 1
        self.auth = AuthState()
        self.auth.bootstrap(insecure=True, root_uid="")
        self.token_keys: dict[str, Any] = {}
        self.reads = Reads(
            self_id=NodeId(1), incarnation=1, clock=self, wake=lambda: None,
            timeout=PATIENCE_S, heartbeat=0.1,
        )  # fmt: skip
        self.late = LateCallers(self.reads)
        self.tokens = SimpleTokens(300, NOW_NS - 1)
        callers = Callers(self, insecure=True, etcd_tokens=self.tokens)
        self.connection: Connection = callers.connection(None, "127.0.0.1", "")
        self.streams: list[Handler] = []

    def monotonic(self) -> float:
        return self.now

    def time_ns(self) -> int:
        return NOW_NS

    def catch_up(self, *, to: int = INDEX) -> None:
        self.applied = to
        if to >= INDEX:
            self.auth = ahead_auth()
        self.reads.applied(to)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.reads.sweep()

    def caller(self, token: str) -> Caller:
        return self.connection.caller(((b"token", token.encode()),))

    def call(self, token: str, handler: Any = None) -> tuple[Any, list[Told]]:
        """A unary call; what it returned, and what was told later."""
        asked = handler or (lambda caller, raw: caller.principal.user.encode() + b" " + raw)
        out = self.late.unary(asked)(self.caller(token), b"raw")
        told: list[Told] = []
        if isinstance(out, Waiting):
            out.bind(told.append)
        return out, told

    def stream(self, token: str, *, refusing: bool = False) -> tuple[Any, Sink]:
        def factory(caller: Caller, sink: StreamSink) -> Handler:
            self.streams.append(Handler(caller.principal.user, sink))
            return self.streams[-1]

        def refused(error: Any, identity: Any, metadata: Any, sink: StreamSink) -> Handler:
            assert identity is self.connection
            assert metadata == ((b"token", token.encode()),)
            self.streams.append(Handler(type(error).__name__, sink))
            return self.streams[-1]

        sink = Sink()
        made = self.late.stream(factory, refused if refusing else None)
        return made(self.caller(token), sink), sink


def ahead_auth() -> AuthState:
    """What the members know that are not behind."""
    auth = AuthState()
    auth.bootstrap(insecure=True, root_uid="")
    auth.user_add("root", "$hash", False, "0a")
    auth.user_grant_role("root", "root")
    auth.enable()
    return auth


def token_of(index: int = INDEX) -> str:
    auth = ahead_auth()
    return SimpleTokens(300, NOW_NS - 1).assign(auth, auth.users["root"], index, NOW_NS)


NOBODYS = f"{'A' * 16}.{INDEX}"


@pytest.fixture
def member() -> Behind:
    return Behind()


def test_a_call_waits_for_the_index_of_its_token(member: Behind) -> None:
    _, told = member.call(token_of())
    assert told == []
    member.catch_up(to=INDEX - 1)
    assert told == []
    member.catch_up()
    assert told == [b"root raw"]


def test_nobody_waits_once_the_index_is_applied(member: Behind) -> None:
    member.catch_up()
    assert member.call(token_of())[0] == b"root raw"
    assert member.reads.waiting == 0


@pytest.mark.parametrize("token", ["bad", "A" * 16, f"{'A' * 15}.{INDEX}", "A" * 16 + ".-9"])
def test_what_is_no_simple_token_is_refused_at_once(member: Behind, token: str) -> None:
    with pytest.raises(InvalidAuthTokenError):
        member.caller(token)


def test_a_bad_token_is_refused_when_its_index_is_applied(member: Behind) -> None:
    _, told = member.call(NOBODYS)
    member.catch_up()
    assert [type(t) for t in told] == [InvalidAuthTokenError]


def test_the_wait_is_bounded_and_ends_as_a_bad_token(member: Behind) -> None:
    _, told = member.call(token_of(1 << 60))
    member.wait(PATIENCE_S - 0.1)
    assert told == []
    member.wait(0.1)
    (error,) = told
    assert isinstance(error, InvalidAuthTokenError)
    assert error.detail == TOO_LONG
    assert member.reads.waiting == 0


def test_others_go_on_waiting(member: Behind) -> None:
    _, first = member.call(token_of())
    member.wait(PATIENCE_S - 1)
    _, second = member.call(token_of())
    member.wait(1)
    assert (len(first), len(second)) == (1, 0)
    member.catch_up()
    assert second == [b"root raw"]


def test_whoever_holds_the_caller_learns_who_it_is(member: Behind) -> None:
    """A refusal after the wait is recorded with the caller that the call began with."""

    def refuse(caller: Caller, raw: bytes) -> bytes:
        raise PermissionDeniedError

    caller = member.caller(token_of())
    assert caller.principal.user == ""
    told: list[Told] = []
    out = member.late.unary(refuse)(caller, b"")
    assert isinstance(out, Waiting)
    out.bind(told.append)
    member.catch_up()
    assert [type(t) for t in told] == [PermissionDeniedError]
    assert (caller.principal.user, caller.ahead) == ("root", None)


def test_cancelling_before_the_index_frees_the_wait(member: Behind) -> None:
    out, told = member.call(token_of())
    out.cancel()
    member.wait(0)
    assert member.reads.waiting == 0
    member.catch_up()
    assert told == []


def test_cancelling_after_the_index_cancels_what_the_handler_waits_for(member: Behind) -> None:
    inner = Waiting()
    out, told = member.call(token_of(), lambda caller, raw: inner)
    member.catch_up()
    out.cancel()
    assert inner.cancelled
    inner.complete(b"late")
    assert told == []


def test_an_answer_that_comes_later_is_told(member: Behind) -> None:
    inner = Waiting()
    _, told = member.call(token_of(), lambda caller, raw: inner)
    member.catch_up()
    inner.complete(b"answer")
    assert told == [b"answer"]


def test_a_member_that_stops_says_so(member: Behind) -> None:
    _, told = member.call(token_of())
    member.reads.stop()
    assert [type(t) for t in told] == [StoppedError]
    with pytest.raises(StoppedError):
        member.call(token_of())


def test_a_handlers_own_failure_is_told_as_it_is(member: Behind) -> None:
    def broken(caller: Caller, raw: bytes) -> bytes:
        raise ZeroDivisionError

    _, told = member.call(token_of(), broken)
    member.catch_up()
    assert [type(t).__name__ for t in told] == ["ZeroDivisionError"]


def test_a_stream_begins_once_the_index_is_applied(member: Behind) -> None:
    stream, sink = member.stream(token_of())
    stream.on_message(b"1")
    stream.on_message(b"2")
    stream.on_half_close()
    assert member.streams == []
    member.catch_up()
    (handler,) = member.streams
    assert (handler.name, handler.heard) == ("root", [b"1", b"2", "half-close"])
    stream.on_writable()
    stream.on_cancel()
    assert handler.heard[-2:] == ["writable", "cancel"]
    assert sink.ends == []


def test_messages_after_the_index_pass_through(member: Behind) -> None:
    stream, _ = member.stream(token_of())
    member.catch_up()
    stream.on_message(b"1")
    stream.on_half_close()
    assert member.streams[0].heard == [b"1", "half-close"]


def test_a_cancelled_stream_never_begins(member: Behind) -> None:
    stream, sink = member.stream(token_of())
    stream.on_cancel()
    member.catch_up()
    assert (member.streams, sink.ends) == ([], [])


@pytest.mark.parametrize("bounded", [True, False])
def test_a_refused_stream_ends_with_the_refusal(member: Behind, bounded: bool) -> None:
    _, sink = member.stream(NOBODYS)
    if bounded:
        member.wait(PATIENCE_S)
    else:
        member.catch_up()
    assert [type(e) for e in sink.ends] == [InvalidAuthTokenError]


def test_a_watch_stream_lives_on_to_refuse_each_watcher(member: Behind) -> None:
    stream, sink = member.stream(NOBODYS, refusing=True)
    stream.on_message(b"1")
    member.catch_up()
    (handler,) = member.streams
    assert (handler.name, handler.heard) == ("InvalidAuthTokenError", [b"1"])
    assert sink.ends == []


def test_a_message_that_ends_the_stream_is_the_last(member: Behind) -> None:
    stream, sink = member.stream(token_of())
    for raw in (b"end", b"2"):
        stream.on_message(raw)
    stream.on_half_close()
    member.catch_up()
    assert member.streams[0].heard == [b"end"]
    assert sink.ends == [None]


def test_a_message_that_is_refused_ends_the_stream(member: Behind) -> None:
    stream, sink = member.stream(token_of())
    for raw in (b"bad", b"2"):
        stream.on_message(raw)
    member.catch_up()
    assert member.streams[0].heard == [b"bad", "cancel"]
    assert [type(e) for e in sink.ends] == [InvalidArgumentError]


def test_what_is_kept_meanwhile_is_bounded(member: Behind) -> None:
    stream, _ = member.stream(token_of())
    stream.on_message(b"x" * (LATE_STREAM_BYTES_MAX - 2))
    stream.on_message(b"")
    with pytest.raises(OverloadedError):
        stream.on_message(b"")


def test_only_one_who_is_known_reaches_a_handler(member: Behind) -> None:
    """The two ways in agree: with the index applied there is nothing to wait for."""
    assert member.caller(token_of()).ahead is not None
    member.catch_up()
    assert member.caller(token_of()).ahead is None


def test_a_members_patience_is_kept_apart_from_its_rounds(member: Behind) -> None:
    """A read whose round is confirmed ends at its deadline, too, while apply stands still."""
    told: list[Told] = []
    member.reads.submit(lambda: b"read").bind(told.append)

    class Core:
        def read_index(self, ctx: bytes) -> None:
            self.ctx = ctx

    core = Core()
    member.reads.flush(core)
    member.reads.confirmed(INDEX, core.ctx, member.applied)
    member.wait(PATIENCE_S - 0.1)
    assert told == []
    member.wait(0.1)
    assert [type(t) for t in told] == [TimeoutWaitAppliedIndexError]
