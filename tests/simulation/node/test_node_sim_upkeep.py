"""Quotas, new keys and histories in SQLite: each acts, and would be noticed if it went wrong."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from configsvc.apply import operations
from configsvc.errors import FatalError
from configsvc.storage.history.store import History
from configsvc.storage.wal.wal import Wal
from tests.simulation.node import sim_sqlite
from tests.simulation.node.sim_kernel import S
from tests.simulation.node.sim_node import Life
from tests.simulation.node.sim_sql import SqlFile
from tests.simulation.node.sim_swarm import calm
from tests.simulation.node.sim_world import simulate

SEEDS = range(1, 5)


def _full(seed: int) -> Counter[str]:
    return simulate(seed, calm(quota_bytes=1_000, ops_per_s=30.0), safety=8 * S).counts


def test_a_quota_is_met_told_and_lifted() -> None:
    counts = _full(1)
    assert counts["over the quota"]
    assert counts["alarm disarmed"]
    assert counts["acknowledged writes"] > counts["alarm disarmed"]


def test_a_write_that_grows_under_the_alarm_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "refuse_alarms", lambda *_, **__: None)
    with pytest.raises(AssertionError, match="N3 a write grew"):
        for seed in SEEDS:
            _full(seed)


def _changing(seed: int) -> Counter[str]:
    swarm = calm(key_changes=2.0, kills=0.5, power=0.3, segment_bytes=16 * 1024)
    return simulate(seed, swarm, safety=10 * S).counts


def test_keys_are_changed_by_members_and_by_starts() -> None:
    counts: Counter[str] = Counter()
    for seed in SEEDS:
        counts += _changing(seed)
    assert counts["key changed"] > counts["key change ended by a start"] > 0


def test_a_start_that_does_not_end_the_change_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Life, "_end_key_change", lambda *_: None)
    with pytest.raises(AssertionError, match="I8 start refused with 78"):
        for seed in SEEDS:
            _changing(seed)


def test_a_segment_left_under_the_old_key_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Wal, "_numbers", lambda wal: [wal._segment().number])
    with pytest.raises(AssertionError, match="I8 start refused with 78"):
        for seed in SEEDS:
            _changing(seed)


@pytest.fixture(scope="module")
def file() -> SqlFile:
    world = simulate(1, calm(), safety=4 * S)
    return next(iter(world.nodes.values())).files[1]


def test_a_history_is_the_same_in_sqlite(file: SqlFile) -> None:
    assert sim_sqlite.IMAGES < sim_sqlite.replay(file, Random(1)) <= 2 * sim_sqlite.IMAGES


@pytest.mark.parametrize("what", ["load_live", "load_actors"])
def test_what_sqlite_lost_is_noticed(
    file: SqlFile, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = getattr(History, what)
    monkeypatch.setattr(History, what, lambda history: list(load(history))[1:])
    with pytest.raises(AssertionError, match="I10"):
        sim_sqlite.replay(file, Random(1))


def test_a_checkpoint_that_moves_nothing_is_noticed(
    file: SqlFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(History, "checkpoint", lambda history, **_: history.meta().applied)
    with pytest.raises((AssertionError, FatalError)):
        sim_sqlite.replay(file, Random(1))
