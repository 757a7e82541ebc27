"""The live table: newest report wins, silence is lost, and what is kept of one node is bounded."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from configsvc import limits
from configsvc.fleet.table import FileState, FleetTable, NodeReport, SetState, Took

TTL = 30


def a_set(name: str = "web", **changes: Any) -> SetState:
    state = SetState(name, 7, 5, 2, "converged", "", 0, 1, 12, ())
    return state._replace(**changes)


def a_report(node: str = "n1", **changes: Any) -> NodeReport:
    report = NodeReport(node, 1, 1, "0.1", "connected", 0, (a_set(),), 100)
    return report._replace(**changes)


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 6)), min_size=1, max_size=20))
def test_the_newest_report_wins(ranks: list[tuple[int, int]]) -> None:
    table = FleetTable(TTL)
    best = (0, 0)
    for start, seq in ranks:
        taken = table.report(a_report(start_counter=start, seq=seq))
        assert taken == ((start, seq) > best)
        best = max(best, (start, seq))
    (kept,) = table.status(100)
    assert (kept.start_counter, kept.seq) == best


def test_silence_is_lost_and_lost_is_behind() -> None:
    table = FleetTable(TTL)
    table.report(a_report())
    assert [one.link for one in table.status(100 + TTL)] == ["connected"]
    assert [one.link for one in table.status(101 + TTL)] == ["lost"]
    assert table.status(100 + TTL, behind=True) == []
    assert len(table.status(101 + TTL, behind=True)) == 1


def test_one_node_and_one_set() -> None:
    table = FleetTable(TTL)
    table.report(a_report("n1", sets=(a_set("web"), a_set("db"))))
    table.report(a_report("n2"))
    assert [one.node for one in table.status(100)] == ["n1", "n2"]
    assert [one.node for one in table.status(100, set_name="db")] == ["n1"]
    (found,) = table.status(100, node="n1", set_name="db")
    assert [one.name for one in found.sets] == ["db"]


def test_durations_root_and_trust_bundle_are_kept() -> None:
    table = FleetTable(TTL)
    took = Took(1, 2, 3, 4, 11)
    table.report(a_report(sets=(a_set(took=took, root="ab" * 32),), trust_bundle="cd" * 32))
    (kept,) = table.status(100)
    assert kept.sets[0].took == took
    assert (kept.sets[0].root, kept.trust_bundle) == ("ab" * 32, "cd" * 32)


def test_what_an_agent_may_say_is_bounded() -> None:
    table = FleetTable(TTL)
    files = tuple(
        FileState(f"/f{n}", "", "converged", "y" * 5000) for n in range(limits.FLEET_FILES_MAX)
    )
    states = tuple(
        a_set(name, files=files, reason="x" * 5000, root="r" * 5000, outcome="made up")
        for name in ("a", "b")
    )
    table.report(a_report(sets=states, link="made up", trust_bundle="t" * 5000))
    (kept,) = table.status(100)
    assert kept.link == "stale"
    assert len(kept.trust_bundle) == limits.FLEET_DIGEST_CHARS_MAX
    assert sum(len(one.files) for one in kept.sets) == limits.FLEET_FILES_MAX
    for one in kept.sets:
        assert one.outcome == "pending"
        assert len(one.reason) == limits.FLEET_REASON_CHARS_MAX
        assert len(one.root) == limits.FLEET_DIGEST_CHARS_MAX
        assert all(len(file.reason) == limits.FLEET_REASON_CHARS_MAX for file in one.files)
