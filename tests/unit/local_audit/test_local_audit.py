"""The stream on the loop: who is answered when, what is counted, when a head is anchored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from audit_world import World, levels

from configsvc.audit.leaf import decode_leaf
from configsvc.audit.merkle import root_of
from configsvc.audit.record import Resource
from configsvc.errors import AuditUnavailableError, ConflictError, PermissionDeniedError
from configsvc.limits import ANCHOR_RECORDS, REPEATS_SINGLE_MAX
from configsvc.proto import command_pb2
from configsvc.runtime.local_audit import marked_spans
from configsvc.runtime.waiting import Waiting
from configsvc.storage.local.messages import LocalHead
from configsvc.types import KeySpan, Principal, Source

ALICE = Principal("user", "alice", "alice", "u1", "spiffe://t/user/alice", "", "", "c", "", "", 0)
HERE = Source("10.0.0.1", "TLSv1.3", "grpc-go", "")


def fields(world: World) -> list[dict[str, Any]]:
    return [dict(decode_leaf(item.record.leaf)) for item in world.disk.items]


def anchors(world: World) -> list[command_pb2.AuditAnchor]:
    return [command_pb2.AuditAnchor.FromString(op) for _, op, _ in world.member.proposals.sent]


def test_nobody_is_answered_before_the_disk() -> None:
    world = World()
    world.note(resource=Resource(key=b"a"))
    world.note(resource=Resource(key=b"b"))
    assert world.told == []
    world.audit.on_durable(1)
    assert world.told == [None]
    world.audit.on_durable(2)
    assert world.told == [None, None]


def test_an_answer_that_waits_is_made_after_the_record() -> None:
    world = World()
    made: list[str] = []
    out, done = world.audit.before(lambda: made.append("now") or b"answer")
    world.audit.note("kv.range", ALICE, HERE, done)
    results: list[Any] = []
    out.bind(results.append)
    assert (made, results) == ([], [])
    world.sync()
    assert results == [b"answer"]


@pytest.mark.parametrize("failing", ["answer", "disk", "inner"])
def test_an_answer_that_waits_can_fail(failing: str) -> None:
    world = World()
    inner = Waiting()

    def answer() -> Waiting:
        if failing == "answer":
            raise PermissionDeniedError
        return inner

    out, done = world.audit.before(answer)
    world.audit.note("kv.range", ALICE, HERE, done)
    results: list[Any] = []
    out.bind(results.append)
    if failing == "disk":
        world.audit.on_failed("OSError")
    else:
        world.sync()
        inner.complete(PermissionDeniedError())
    expected = AuditUnavailableError if failing == "disk" else PermissionDeniedError
    assert [type(result) for result in results] == [expected]


def test_a_failing_disk_turns_requests_away_and_is_counted_afterwards() -> None:
    world = World()
    world.note()
    world.audit.on_failed("OSError")
    assert [type(told) for told in world.told] == [AuditUnavailableError]
    assert world.audit.problem
    world.disk.takes = False
    for _ in range(3):
        world.note()
    assert [type(told) for told in world.told] == [AuditUnavailableError] * 4
    assert len(world.disk.items) == 1, "the stream has no gap: nothing was taken meanwhile"
    world.disk.takes = True
    world.audit.on_durable(1)
    assert not world.audit.problem
    world.ticks(2)
    last = fields(world)[-1]
    assert (last["repeated"], last["detail"]) == (3, "audit log unavailable")


def test_equal_refusals_become_one_count_and_nobody_waits_for_it() -> None:
    world = World()
    for _ in range(REPEATS_SINGLE_MAX + 50):
        world.note(principal=ALICE)
    assert len(world.disk.items) == REPEATS_SINGLE_MAX
    assert world.told == [None] * 50
    world.sync()
    world.ticks(61)
    counted = [each["repeated"] for each in fields(world) if "repeated" in each]
    assert counted == [50]


def test_settled_waits_for_everything_noted_before() -> None:
    world = World()
    world.audit.settled(world.told.append)
    assert world.told == [None], "there is nothing to wait for"
    world.note()
    world.audit.settled(world.told.append)
    assert world.told == [None]
    world.sync()
    assert world.told == [None, None, None]


def test_first_records_of_a_boot_and_the_last() -> None:
    world = World()
    world.audit.begin("1.0", ["allow_root=true"])
    assert world.audit.end("signal")
    found = [(each["event"], each.get("detail", "")) for each in fields(world)]
    assert found == [(104, "allow_root=true"), (100, ""), (101, "signal")]


def test_time_never_goes_back_and_a_set_clock_is_told() -> None:
    world = World(LocalHead(0, (), 5_000_000_000_000))
    world.note()
    assert fields(world)[0]["time_ns"] == 5_000_000_000_000, "of the run before"
    world.ticks(2)
    world.member.clock.wall_ns -= 30_000_000_000
    world.ticks(1)
    steps = [each["detail"] for each in fields(world) if each["event"] == 126]
    assert steps == ["back 30 s"]
    world.member.clock.advance(10)
    world.ticks(3)
    assert len([each for each in fields(world) if each["event"] == 126]) == 1


# --- anchors -------------------------------------------------------------------------------------


def test_an_anchor_ten_seconds_after_the_first_news_and_then_silence() -> None:
    world = World()
    world.ticks(30)
    assert world.member.proposals.sent == [], "without records nothing is anchored"
    world.note()
    world.ticks(20)
    assert world.member.proposals.sent == [], "what is not on disk is not anchored"
    world.sync()
    world.ticks(2)
    [anchor] = anchors(world)
    assert anchor.size == 1
    assert anchor.root == root_of([world.disk.items[0].record.leaf])
    assert anchor.origin == "test/0000000000000009/local/0000000000000001/abcd"
    world.member.proposals.sent[0][2].complete(b"")
    world.ticks(60)
    assert len(world.member.proposals.sent) == 1


def test_many_records_are_anchored_at_once() -> None:
    world = World()
    for number in range(ANCHOR_RECORDS):
        world.note(resource=Resource(key=b"%d" % number))
    world.sync()
    world.ticks(1)
    assert [each.size for each in anchors(world)] == [ANCHOR_RECORDS]


def test_a_lost_anchor_is_proposed_again() -> None:
    world = World()
    world.note()
    world.sync()
    world.ticks(12)
    world.member.proposals.sent[0][2].complete(ConflictError())
    world.ticks(20)
    assert [each.size for each in anchors(world)] == [1, 1]


@pytest.mark.parametrize(
    ("known", "problem"),
    [
        (("test/0000000000000009/local/0000000000000001/abcd", 7, b"r" * 32), "went back"),
        (("test/0000000000000009/local/0000000000000001/0000", 7, b"r" * 32), "begun anew"),
    ],
)
def test_a_stream_that_lost_anchored_records_is_told(known: Any, problem: str) -> None:
    world = World()
    world.member.state.anchors[1] = known
    world.ticks(1)
    assert any(problem in line for line in world.member.report.lines)
    assert any(problem in each.get("detail", "") for each in fields(world))
    assert bool(world.audit.problem) == (problem == "went back")


# --- levels --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("span", "marked"),
    [
        (KeySpan(b"/secret/a", b"/secret/a\0"), True),
        (KeySpan(b"/plain", b"/plain\0"), False),
        (KeySpan(b"/secret", b"/secret\0"), False),
        (KeySpan(b"", None), True),
        (KeySpan(b"/a", b"/z"), True),
    ],
)
def test_marked_reads(span: KeySpan, marked: bool) -> None:
    world = World()
    assert world.audit.marks_read("kv.range", span) is marked
    assert world.audit.marks_read("kv.watch", span) is marked
    assert world.audit.marks_read("history.read", span), "not silenced by this file"


def test_without_a_silencing_rule_every_read_is_recorded() -> None:
    text = 'schema = "configsvc.audit/v1"\n'
    assert marked_spans(levels(text)) is None
    assert World(text=text).audit.marks_read("kv.range", KeySpan(b"a", b"b"))


def test_the_shipped_levels_silence_plain_reads() -> None:
    path = Path(__file__).resolve().parents[3] / "policies" / "audit.toml"
    spans = marked_spans(levels(path.read_text()))
    assert spans is not None
    assert not any(span.holds(b"/demo/x") for span in spans)
