"""The member-local stream: counting floods, anchoring, order (AUD-5, AUD-6, LIM-9)."""

from __future__ import annotations

import pytest

from configsvc.audit.leaf import decode_leaf
from configsvc.audit.local import LocalStream, Occurrence
from configsvc.audit.merkle import Frontier
from configsvc.audit.record import Position, Resource
from configsvc.limits import (
    ANCHOR_INTERVAL_NS,
    ANCHOR_RECORDS,
    REPEAT_WINDOW_NS,
    REPEATS_SINGLE_MAX,
)
from tests.support.audit_cases import HANA, HOME

AT = Position(0, 0, 9, 3, 1)
DENIED = Occurrence(
    "authz.denied", HANA, HOME, 1_000, b"s" * 32, "PERMISSION_DENIED", "default",
    resource=Resource(b"/x"),
)  # fmt: skip
READ = Occurrence("kv.range", HANA, HOME, 1_000, b"s" * 32, resource=Resource(b"/secret"))


def test_a_record_names_member_and_outcome() -> None:
    stream = LocalStream(0x11)
    made = stream.note(DENIED, AT)
    assert made is not None
    fields = decode_leaf(made[0])
    assert (fields["member"], fields["code"], fields["rule"]) == (0x11, 7, "default")
    assert (fields["raft_index"], fields["revision"]) == (0, 9)
    assert stream.size == 1


def test_a_flood_of_equal_refusals_is_counted_not_dropped() -> None:
    stream = LocalStream(1)
    made = [stream.note(DENIED._replace(time_ns=1_000 + i), AT) for i in range(250)]
    assert sum(record is not None for record in made) == REPEATS_SINGLE_MAX
    assert stream.flush(1_000 + REPEAT_WINDOW_NS - 1, AT) == []
    ((leaf, _),) = stream.flush(1_000 + REPEAT_WINDOW_NS, AT)
    assert decode_leaf(leaf)["repeated"] == 250 - REPEATS_SINGLE_MAX
    assert stream.size == REPEATS_SINGLE_MAX + 1
    assert stream.note(DENIED, AT) is not None  # a new minute


def test_other_refusals_and_reads_keep_their_records() -> None:
    stream = LocalStream(1)
    for number in range(300):
        assert stream.note(READ, AT) is not None
        assert stream.note(DENIED._replace(resource=Resource(b"/%d" % number)), AT) is not None


def test_stopping_writes_what_is_counted() -> None:
    stream = LocalStream(1)
    for _ in range(REPEATS_SINGLE_MAX + 3):
        stream.note(DENIED, AT)
    ((leaf, _),) = stream.flush(1_001, AT, everything=True)
    assert decode_leaf(leaf)["repeated"] == 3
    assert stream.flush(1_001, AT, everything=True) == []


def test_too_many_kinds_are_recorded_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("configsvc.audit.local.REPEAT_KINDS_MAX", 1)
    stream = LocalStream(1)
    other = DENIED._replace(detail="other")
    for _ in range(REPEATS_SINGLE_MAX + 5):
        stream.note(DENIED, AT)
        assert stream.note(other, AT) is not None


def test_aud6_anchors_follow_new_records_only() -> None:
    stream = LocalStream(1)
    assert not stream.anchor_due(10**18)
    stream.note(READ, AT)
    assert not stream.anchor_due(1_000 + ANCHOR_INTERVAL_NS - 1)
    assert stream.anchor_due(1_000 + ANCHOR_INTERVAL_NS)
    stream.anchored(1, 5_000)
    assert not stream.anchor_due(10**18)
    for _ in range(ANCHOR_RECORDS - 1):
        stream.note(READ, AT)
    assert not stream.anchor_due(1_000)
    stream.note(READ, AT)
    assert stream.anchor_due(1_000)
    stream.anchored(5, 7_000)  # some came in while the anchor was on its way
    assert stream.size == ANCHOR_RECORDS + 1
    assert not stream.anchor_due(7_000 + ANCHOR_INTERVAL_NS - 1)
    assert stream.anchor_due(7_000 + ANCHOR_INTERVAL_NS)


def test_a_clock_that_steps_back_does_not_turn_the_order() -> None:
    stream = LocalStream(1)
    times = []
    for time_ns in (5, 3, 9):
        made = stream.note(READ._replace(time_ns=time_ns), AT)
        assert made is not None
        times.append(decode_leaf(made[0])["time_ns"])
    assert times == [5, 5, 9]


def test_a_restart_goes_on_where_it_was() -> None:
    one = LocalStream(1)
    one.note(READ, AT)
    frontier = Frontier()
    made = LocalStream(1, 0, frontier)
    assert made.note(READ, AT)
    again = LocalStream(1, 1, frontier.copy())
    assert (again.size, again.root()) == (1, one.root())
    assert not again.anchor_due(10**18)
    assert LocalStream(1, 0, frontier.copy()).anchor_due(10**18)  # stopped before it was anchored
