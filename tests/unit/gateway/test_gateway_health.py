"""Health paths against a member of which only the health is real."""

from __future__ import annotations

from typing import Any, cast

import pytest

from configsvc.errors import InvalidArgumentError, NoLeaderError
from configsvc.gateway.health import Health
from tests.support.gateway_fakes import FakeMember, FakeSink

ETCDS = [
    "[+]data_corruption ok",
    "[+]serializable_read ok",
    "[+]linearizable_read ok",
    "[+]non_learner ok",
]


class World:
    def __init__(self) -> None:
        self.member = FakeMember()
        self.health = Health(cast(Any, self.member))

    def get(self, path: str, query: str = "") -> FakeSink:
        sink = FakeSink()
        self.running: Any
        if path == "health":
            self.running = self.health.health_answer(query, sink)
        else:
            group, _, only = path.partition("/")
            self.running = self.health.group_answer(group, only, query, sink)
        return sink

    def confirm(self, result: Any = b"") -> None:
        self.member.reads.waiting.pop(0).complete(result)


@pytest.fixture
def world() -> World:
    return World()


def test_healthy_means_a_linearizable_read(world: World) -> None:
    sink = world.get("health")
    assert not sink.status
    world.confirm()
    assert (sink.status, sink.body) == (200, b'{"health":"true","reason":""}')
    assert world.health.health == {"success": 1}


@pytest.mark.parametrize(
    ("alarms", "lead", "query", "reason"),
    [
        ([1], 1, "", "ALARM NOSPACE"),
        ([2], 1, "", "ALARM CORRUPT"),
        ([9], 1, "", "ALARM UNKNOWN"),
        ([1, 2], 1, "exclude=NOSPACE", "ALARM CORRUPT"),
        ([1, 2], 1, "exclude=NOSPACE&exclude=CORRUPT&serializable=true", ""),
        ([], 0, "", "RAFT NO LEADER"),
        ([], 0, "serializable=true", ""),
        ([], 0, "serializable=false", "RAFT NO LEADER"),
        ([1], 0, "serializable=true", "ALARM NOSPACE"),
    ],
)
def test_reasons(world: World, alarms: list[int], lead: int, query: str, reason: str) -> None:
    world.member.raised, world.member.lead = alarms, lead
    sink = world.get("health", query)
    state = "false" if reason else "true"
    assert sink.body.decode() == f'{{"health":"{state}","reason":"{reason}"}}'
    assert sink.status == (503 if reason else 200)


def test_a_read_that_fails_is_the_reason(world: World) -> None:
    sink = world.get("health")
    world.confirm(NoLeaderError())
    assert sink.status == 503
    assert sink.body == b'{"health":"false","reason":"RANGE ERROR:etcdserver: no leader"}'


def test_livez_looks_at_this_member_alone(world: World) -> None:
    world.member.lead, world.member.raised = 0, [1, 2]
    assert (world.get("livez").status, world.get("livez").body) == (200, b"ok\n")
    assert world.get("livez", "verbose").body == b"[+]serializable_read ok\nok\n"
    world.member.stopping = True
    assert world.get("livez").status == 503


def test_readyz_runs_all_its_checks(world: World) -> None:
    sink = world.get("readyz", "verbose")
    assert not sink.status
    world.confirm()
    lines = sink.body.decode().splitlines()
    assert set(ETCDS) <= set(lines)
    assert lines == [*(f"[+]{name} ok" for name in world.health.groups["readyz"]), "ok"]


def test_a_failed_check_says_why_and_the_others_are_told_too(world: World) -> None:
    world.member.raised, world.member.is_learner = [2], True
    sink = world.get("readyz")
    world.confirm(NoLeaderError())
    assert sink.status == 503
    lines = sink.body.decode().splitlines()
    assert [line for line in lines if line.startswith("[-]")] == [
        "[-]data_corruption failed: alarm activated: CORRUPT",
        "[-]linearizable_read failed: etcdserver: no leader",
        "[-]non_learner failed: server is learner",
    ]
    assert "[+]serializable_read ok" in lines
    assert "ok" not in lines
    assert world.health.last["readyz", "non_learner"] is False
    assert world.health.checks["readyz", "linearizable_read", "error"] == 1


def test_space_does_not_matter_to_readiness(world: World) -> None:
    world.member.raised = [1]
    sink = world.get("readyz")
    world.confirm()
    assert sink.status == 200


def test_checks_can_be_left_out_or_asked_alone(world: World) -> None:
    world.member.is_learner = True
    query = "exclude=non_learner&exclude=linearizable_read&exclude=nonsense&verbose=1"
    lines = world.get("readyz", query).body.decode().splitlines()
    assert set(ETCDS) - set(lines) == {"[+]linearizable_read ok", "[+]non_learner ok"}
    assert world.get("readyz/data_corruption").body == b"ok\n"
    assert world.get("readyz/non_learner").status == 503
    assert not world.member.reads.waiting


def test_a_client_that_leaves_waits_for_no_read(world: World) -> None:
    world.get("readyz")
    world.running.on_cancel()
    assert world.member.reads.waiting[0].cancelled
    world.get("health")
    world.running.on_cancel()
    assert world.member.reads.waiting[1].cancelled


def test_a_query_of_any_length_is_not_read(world: World) -> None:
    with pytest.raises(InvalidArgumentError):
        world.get("readyz", "&".join("exclude=x" for _ in range(100)))
