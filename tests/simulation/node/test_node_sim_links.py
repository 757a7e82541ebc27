"""Links that are slow, clogged or half-open: each fault acts, and its bounds are checked."""

from __future__ import annotations

from typing import Any

import pytest

from configsvc.transport.connection import PeerConnection
from tests.simulation.node.sim_kernel import MS, S
from tests.simulation.node.sim_node import Life
from tests.simulation.node.sim_swarm import calm
from tests.simulation.node.sim_world import World, doors, simulate


def running(world: World) -> tuple[Life, Life]:
    """A cluster that serves: its leader and somebody else."""
    world.serve()
    leader = world.leader()
    assert leader is not None
    follower = next(n for n in world.nodes.values() if n is not leader)
    assert leader.life is not None
    assert follower.life is not None
    return leader.life, follower.life


def test_who_believes_in_a_half_open_link_talks_to_nobody_until_it_was_silent() -> None:
    world = World(1, calm())
    with doors(world):
        leader, other = running(world)
        way = leader.node.id, other.node.id
        assert world.net.half_open(*way)
        world.kernel.run(2 * S)
        assert world.counts["vanished"] > 10
        assert world.net.believed(*way) is not None
        assert world.net.standing(*way) is not None, "the end that lost it dialled again"
        assert not world.net.half_open(*way), "it is half-open already"
        vanished = world.counts["vanished"]
        world.kernel.run(4 * S)
        more = world.counts["vanished"]
        world.kernel.run(2 * S)
        assert vanished < more == world.counts["vanished"], "the silence closed it (L5)"
        applied = {life.member.applied for life in world.lives()}
        assert max(applied) - min(applied) < 5


def test_a_newer_start_replaces_what_its_peers_believe_in() -> None:
    world = World(2, calm())
    with doors(world):
        leader, other = running(world)
        assert world.net.half_open(leader.node.id, other.node.id)
        other.node.kill()
        world.kernel.run(6 * S)
        assert other.node.life is not None
        before = world.counts["vanished"]
        world.kernel.run(2 * S)
        assert world.counts["vanished"] == before


def test_a_clogged_link_gives_everything_at_once_and_in_order() -> None:
    world = World(3, calm())
    with doors(world):
        leader, other = running(world)
        link = leader.node.id, other.node.id
        heard: list[tuple[int, int]] = []
        hear = other.hear

        def listen(peer: Any, messages: Any) -> None:
            heard.extend((world.kernel.now, m.index) for m in messages if m.entries)
            hear(peer, messages)

        other.hear = listen  # type: ignore[method-assign]
        world.net.clog(link)
        world.kernel.run(10 * MS)
        del heard[:]  # what had arrived before
        world.kernel.run(700 * MS)
        assert heard == []
        world.net.unclog(link)
        world.kernel.run(MS // 100)
        assert len(heard) > 1
        assert len({when for when, _ in heard}) == 1


def test_a_narrow_link_makes_appends_wait_and_fills_the_queue() -> None:
    world = World(4, calm(queue_bytes=2048, ops_per_s=40.0))
    with doors(world):
        leader, other = running(world)
        world.net.bandwidth[leader.node.id, other.node.id] = 512
        world.kernel.run(5 * S)
        assert world.counts["a peer's queue is full"]
        assert leader.member.applied - other.member.applied > 10
        world.net.widen((leader.node.id, other.node.id))
        world.kernel.run(3 * S)
        assert leader.member.applied - other.member.applied < 10


@pytest.mark.parametrize("late", [False, True])
def test_a_connection_that_is_cut_is_noticed_after_its_silence(late: bool) -> None:
    world = World(5, calm(long_silence=late))
    with doors(world):
        leader, other = running(world)
        world.net.cut.add((leader.node.id, other.node.id))
        world.kernel.run(3 * S)
        noticed = world.net.standing(leader.node.id, other.node.id) is None
        assert noticed is not late
        world.kernel.run(3 * S)
        assert world.net.standing(leader.node.id, other.node.id) is None


def test_a_queue_without_a_bound_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PeerConnection, "_has_room", lambda *_: True)
    swarm = {"bandwidth": 1.0, "queue_bytes": 2048, "ops_per_s": 30.0}
    with pytest.raises(AssertionError, match="I14 the queue of a peer"):
        for seed in range(4):
            simulate(seed, calm(**swarm), safety=6 * S)
