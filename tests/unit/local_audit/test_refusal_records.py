"""Refusals become records once, and are told after them; anchors judge an exported stream."""

from __future__ import annotations

from typing import Any

import pytest
from audit_world import World

from configsvc import errors
from configsvc.api.candidacy import as_unknown
from configsvc.api.contract import Caller, Method
from configsvc.api.refusals import RECORDS, Refusals, row_of
from configsvc.audit.events import EVENTS
from configsvc.audit.leaf import decode_leaf
from configsvc.audit.local import LocalStream, Occurrence
from configsvc.audit.record import Position, Resource
from configsvc.audit.verify import Anchor, Verdict
from configsvc.cli.audit_local import LocalLog, judge_local
from configsvc.proto import v1_pb2
from configsvc.runtime.waiting import Waiting
from configsvc.types import NO_SOURCE, SYSTEM_PRINCIPAL, Principal, Source

ALICE = Principal("user", "alice", "alice", "u1", "spiffe://t/user/alice", "", "", "c", "", "", 0)
HERE = Source("10.0.0.1", "TLSv1.3", "grpc-go", "")
CALLER = Caller(ALICE, HERE, b"")


class Asked:
    """A world, its refusals, and what they told."""

    def __init__(self) -> None:
        self.world = World()
        self.world.member.report_failure = lambda error: "id7"
        self.refusals = Refusals(self.world.member)
        self.told: list[Any] = []

    def record(self, error: BaseException) -> None:
        self.refusals.record(error, ALICE, HERE, "/p", self.told.append)

    @property
    def events(self) -> list[str]:
        names = {number: name for name, number in EVENTS.items()}
        items = self.world.disk.items
        return [names[int(decode_leaf(item.record.leaf)["event"])] for item in items]


@pytest.fixture
def asked() -> Asked:
    return Asked()


def test_every_row_names_an_event() -> None:
    assert {row.event for row in RECORDS.values()} <= EVENTS.keys()


@pytest.mark.parametrize("kind", [k for k, row in RECORDS.items() if row.waits])
def test_a_refusal_waits_for_its_record(asked: Asked, kind: Any) -> None:
    error = kind("text of the refusal")
    asked.record(error)
    assert asked.told == []
    asked.world.sync()
    assert asked.told == [error]
    assert asked.events == [RECORDS[kind].event]
    asked.record(error)
    assert asked.told == [error, error]
    assert len(asked.events) == 1, "recorded once"
    said = asked.world.disk.items[0].record.leaf
    assert b"text of the refusal" not in said, "texts may quote the request"


def test_a_refused_step_of_a_lock_or_election_is_recorded_as_any_refusal(asked: Asked) -> None:
    """Its client is told Unknown, as etcd has it; else nobody would know who had asked."""
    denied = errors.PermissionDeniedError()
    denied.about = Resource(key=b"/secret/")
    error = as_unknown(denied)
    asked.record(error)
    assert asked.told == []
    asked.world.sync()
    assert asked.told == [error]
    assert type(error) is errors.ElectionError
    leaf = decode_leaf(asked.world.disk.items[0].record.leaf)
    assert asked.events == ["authz.denied"]
    assert leaf["key"] == b"/secret/"
    asked.record(as_unknown(denied))
    assert len(asked.events) == 1, "recorded once"
    asked.record(as_unknown(errors.CompactedError()))
    assert len(asked.events) == 1, "a plain mistake"


def test_an_overloaded_member_answers_at_once(asked: Asked) -> None:
    asked.record(errors.OverloadedError())
    assert len(asked.told) == 1
    assert asked.events == ["limit.hit"]


@pytest.mark.parametrize("error", [errors.EmptyKeyError(), errors.CompactedError()])
def test_plain_mistakes_leave_no_record(asked: Asked, error: errors.RequestError) -> None:
    assert row_of(error) is None
    asked.record(error)
    assert (asked.told, asked.events) == ([error], [])


def test_a_bug_is_recorded_by_class_only(asked: Asked) -> None:
    asked.record(ValueError("a secret"))
    leaf = asked.world.disk.items[0].record.leaf
    assert asked.events == ["internal"]
    assert decode_leaf(leaf)["detail"] == "ValueError"
    assert asked.refusals.status_of(ValueError("a secret")) == (13, "internal error, id=id7")


def test_without_a_disk_the_answer_is_that_there_is_none(asked: Asked) -> None:
    asked.world.disk.takes = False
    asked.record(errors.PermissionDeniedError())
    assert [type(error) for error in asked.told] == [errors.AuditUnavailableError]


def method(unary: Any = None, stream: Any = None) -> Method:
    return Method("/p", unary, stream, False, False, None, None)


def test_a_held_unary_call(asked: Asked) -> None:
    inner = Waiting()
    held = asked.refusals.held(method(lambda caller, raw: inner if raw == b"wait" else raw)).unary
    assert held is not None
    assert held(CALLER, b"now") == b"now"
    out = held(CALLER, b"wait")
    results: list[Any] = []
    assert isinstance(out, Waiting)
    out.bind(results.append)
    inner.complete(errors.PermissionDeniedError())
    assert results == []
    asked.world.sync()
    assert [type(result) for result in results] == [errors.PermissionDeniedError]


def test_cancelling_a_held_call_cancels_what_it_waits_for(asked: Asked) -> None:
    inner = Waiting()
    held = asked.refusals.held(method(lambda caller, raw: inner)).unary
    assert held is not None
    out = held(CALLER, b"")
    assert isinstance(out, Waiting)
    out.cancel()
    assert inner.cancelled


class Sink:
    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.ended: list[Any] = []

    def send(self, payload: bytes) -> bool:
        self.sent.append(payload)
        return True

    def finish(self, error: Any) -> None:
        self.ended.append(error)


class Handler:
    """Sends what it gets, and refuses "bad"."""

    def __init__(self, sink: Any) -> None:
        self.sink = sink
        self.cancelled = 0

    def on_message(self, raw: bytes) -> None:
        if raw == b"bad":
            raise errors.PermissionDeniedError
        self.sink.send(raw)

    def on_half_close(self) -> None:
        self.sink.finish(None)

    def on_cancel(self) -> None:
        self.cancelled += 1

    def on_writable(self) -> None:
        return


def test_a_held_stream(asked: Asked) -> None:
    made: list[Handler] = []

    def factory(caller: Caller, sink: Any) -> Handler:
        made.append(Handler(sink))
        return made[-1]

    held = asked.refusals.held(method(stream=factory)).stream
    assert held is not None
    sink = Sink()
    running = held(CALLER, sink)
    running.on_message(b"good")
    running.on_message(b"bad")
    running.on_message(b"late")
    assert (sink.sent, sink.ended, made[0].cancelled) == ([b"good"], [], 1)
    asked.world.sync()
    assert [type(error) for error in sink.ended] == [errors.PermissionDeniedError]

    def refuses(caller: Caller, sink: Any) -> Handler:
        raise errors.PermissionDeniedError

    held = asked.refusals.held(method(stream=refuses)).stream
    assert held is not None
    other = Sink()
    held(CALLER, other).on_message(b"x")
    asked.world.sync()
    assert [type(error) for error in other.ended] == [errors.PermissionDeniedError]


# --- anchors against an exported stream ----------------------------------------------------------


class FakeClient:
    """Streams what it was given."""

    def __init__(self, chunks: list[v1_pb2.ExportChunk]) -> None:
        self.chunks = chunks

    def stream(self, path: str, *_: Any, **__: Any) -> Any:
        assert path == "/configsvc.v1.Audit/LocalExport"
        return iter(self.chunks)


def exported(count: int, forge: int = -1, drop: int = -1) -> tuple[Any, list[Anchor]]:
    """An export of ``count`` records, and honest anchors at every size."""
    stream = LocalStream(7)
    chunk = v1_pb2.ExportChunk(origin="o")
    anchors = []
    for number in range(count):
        seen = Occurrence("start", SYSTEM_PRINCIPAL, NO_SOURCE, 10 + number, bytes(32))
        made = stream.note(seen, Position(0, 0, 1, 1, 1))
        assert made is not None
        leaf, values = made
        if values[7]:
            chunk.actors.add(hash=values[6], record=values[7], salt=values[8])
        anchors.append(Anchor(number, "o", stream.size, stream.root()))
        if number == forge:
            leaf = leaf[:-1] + b"\x01"
        if number != drop:
            chunk.leaves.add(seq=number, leaf=leaf)
    return LocalLog(FakeClient([chunk]), "m"), anchors  # type: ignore[arg-type]


def test_an_honest_stream_holds_its_anchors() -> None:
    log, anchors = exported(5)
    other = Anchor(9, "another stream", 3, b"x" * 32)
    finding = judge_local(log, [*anchors, other])
    assert (finding.verdict, finding.problem, finding.leaves) == (Verdict.INTACT, "", 5)


@pytest.mark.parametrize("how", [{"forge": 2}, {"drop": 2}, {"drop": 4}])
def test_an_altered_stream_does_not(how: dict[str, int]) -> None:
    log, anchors = exported(5, **how)
    finding = judge_local(log, anchors)
    assert finding.verdict is Verdict.TAMPERED
    assert finding.problem
