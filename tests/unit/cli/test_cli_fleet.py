"""One view of all members; unknown is never converged."""

from __future__ import annotations

import time

import pytest

from configsvc.cli.commands_fleet import is_behind, merge, percentile
from configsvc.proto import v1_pb2
from tests.support.cli_runner import Shell
from tests.support.fake_cluster import FakeCluster


def node(
    name: str,
    outcome: str = "converged",
    *,
    revision: int = 10,
    member: int = 1,
    link: str = "connected",
    start: int = 1,
    seq: int = 1,
    reason: str = "",
) -> v1_pb2.NodeStatus:
    report = v1_pb2.SetReport(
        name="web",
        outcome=outcome,
        content_revision=revision,
        target_revision=revision,
        reason=reason,
        lag_ms=12,
        durations=v1_pb2.Durations(render_us=1500, commit_us=500, total_us=2000),
    )
    return v1_pb2.NodeStatus(
        node=name,
        link=link,
        member=member,
        start_counter=start,
        seq=seq,
        sets=[report],
        reported_ns=time.time_ns(),
    )


def test_the_newest_report_of_a_node_wins() -> None:
    merged = merge(
        [
            node("b", "check_failed", start=1, seq=9, member=1),
            node("b", "converged", start=2, seq=1, member=2),
            node("a", link="lost", member=1),
            node("a", link="connected", member=2),
            node("a", "pending", start=1, seq=0, member=3),
        ]
    )
    assert [(one.node, one.member, one.link) for one in merged] == [
        ("a", 2, "connected"),
        ("b", 2, "connected"),
    ]


@pytest.mark.parametrize(
    ("outcome", "link", "behind"),
    [
        ("converged", "connected", False),
        ("converged", "stale", False),
        ("converged", "lost", True),
        ("pending", "connected", True),
        ("held", "connected", True),
        ("", "connected", True),
    ],
)
def test_only_applied_and_healthy_counts(outcome: str, link: str, behind: bool) -> None:
    one = node("a", outcome, link=link)
    assert is_behind(one, one.sets[0]) is behind


def test_percentiles() -> None:
    assert percentile([], 50) == 0
    assert percentile([3, 1, 2], 50) == 2
    assert percentile(list(range(1, 101)), 99) == 99


def test_status(shell: Shell, cluster: FakeCluster) -> None:
    cluster.store.reports = [
        node("n1", member=1),
        node("n2", "check_failed", revision=9, member=2, reason="nginx: [emerg] bad"),
        node("n3", "pending", member=1, start=1),
        node("n3", member=2, start=2),
    ]
    text = shell.ok("fleet", "status", "--set", "web").out
    assert "web  check_failed  9    1" in text
    assert "web  converged     10   2" in text
    assert "n2" in text
    assert "nginx: [emerg] bad" in text
    behind = shell.ok("fleet", "status", "--behind", "--json").json
    assert [one["node"] for one in behind] == ["n2"]
    assert behind[0]["sets"][0]["outcome"] == "check_failed"
    assert shell.run("fleet", "status", "--strict").code == 1
    assert behind[0]["sets"][0]["durations_ms"] == {
        "render": 1.5,
        "check": 0.0,
        "commit": 0.5,
        "reload": 0.0,
        "total": 2.0,
    }
    assert shell.ok("fleet", "status", "--set", "none", "--json").json == []
    cluster.store.reports = [node("n1")]
    assert shell.ok("fleet", "status", "--strict").code == 0


def test_a_set_that_nobody_has_is_named(shell: Shell, cluster: FakeCluster) -> None:
    for more in ((), ("--strict",)):
        ran = shell.run("fleet", "status", "--set", "no-such-set", *more)
        assert (ran.code, "no-such-set: no node has reported" in ran.err) == (len(more), True)


def test_nodes(shell: Shell, cluster: FakeCluster) -> None:
    cluster.store.reports = [node("n1"), node("n2", link="lost")]
    assert "web:converged" in shell.ok("fleet", "nodes").out
    assert [one["link"] for one in shell.ok("fleet", "nodes", "--json").json] == [
        "connected",
        "lost",
    ]
    assert shell.run("fleet", "nodes", "--node", "n9").code == 1


def test_wait(shell: Shell, cluster: FakeCluster) -> None:
    wait = ("fleet", "wait", "--set", "web", "--timeout", "0.3s")
    assert shell.run(*wait).code == 1  # no node at all is not everybody
    cluster.store.reports = [node("n1", revision=10), node("n2", revision=9)]
    assert shell.ok(*wait).code == 0
    ran = shell.run(*wait, "--rev", "10", "--json")
    assert ran.code == 1
    assert ran.json["behind"] == ["n2"]
    assert shell.ok(*wait, "--rev", "10", "--percent", "50").code == 0


def test_a_silent_member_makes_the_view_partial(shell: Shell, cluster: FakeCluster) -> None:
    cluster.store.reports = [node("n1")]
    cluster.members[1].stop()
    ran = shell.ok("fleet", "status", "--json")
    assert "partial" in ran.err
    assert len(ran.json) == 1
    assert shell.run("fleet", "status", "--strict").code == 1
    ran = shell.run("fleet", "wait", "--set", "web", "--timeout", "0.3s")
    assert ran.code == 1
    assert "silent" in ran.err
