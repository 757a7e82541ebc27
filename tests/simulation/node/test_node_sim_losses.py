"""Old copies, damaged logs and read-only disks: each acts, is told, and would be noticed if not."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from configsvc.codec.records import encode_entries
from configsvc.errors import FatalError
from configsvc.raft import dispatch
from configsvc.raft.messages import Message, MessageType
from configsvc.raft.state import Raft
from configsvc.runtime.membership import Membership
from configsvc.storage.seal.keyfile import KeyFile
from configsvc.storage.wal.format import FrameKind
from configsvc.storage.wal.wal import Wal
from configsvc.types import LogIndex
from tests.simulation.node import sim_damage, sim_world
from tests.simulation.node.sim_kernel import MS, S
from tests.simulation.node.sim_losses import DAMAGE_CODES, Losses
from tests.simulation.node.sim_swarm import calm
from tests.simulation.node.sim_world import World, doors, simulate
from tests.support.simdisk import Image, SimDisk
from tests.support.wal_cases import IDENTITY, KEY, hard, options, run_of

SEEDS = 6


def test_an_old_copy_ends_itself_and_is_replaced() -> None:
    world = World(1, calm())
    with doors(world):
        world.run(6 * S)
    assert not world.counts["an old copy was told"], "nothing happens by itself"
    counts: Counter[str] = Counter()
    for seed in range(SEEDS):
        counts += simulate(seed, calm(old_copies=0.8)).counts
    assert counts["fault: old copy"] > 2
    assert counts["an old copy was told"] == counts["exit 87"] > 0
    assert counts["member removed"] >= counts["exit 87"]
    assert counts["a vote was forgotten"] == 0
    assert 0 < counts["member replaced"] <= counts["member added"]


def test_an_old_copy_forgets_only_votes_that_are_over() -> None:
    counts: Counter[str] = Counter()
    for seed in range(SEEDS):
        counts += simulate(seed, calm(members=5, old_copies=0.8, kills=0.4, transfers=0.4)).counts
    assert counts["a vote was forgotten"]


def test_an_old_copy_that_nobody_tells_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without both proofs of G2 it never catches up with a leader that remembers more."""
    monkeypatch.setattr(Membership, "_went_back", lambda *_: False)

    hear = dispatch._FOLLOWER[MessageType.HEARTBEAT]

    def trusting(raft: Raft, message: Message) -> None:
        known = LogIndex(min(message.commit, raft.log.last_index))
        hear(raft, message._replace(commit=known))

    monkeypatch.setitem(dispatch._FOLLOWER, MessageType.HEARTBEAT, trusting)
    monkeypatch.setattr(sim_world, "HEAL_WRITE", 2 * S)  # both go on asking, without a pause
    with pytest.raises(AssertionError, match="I24 no write everywhere"):
        for seed in range(SEEDS):
            simulate(seed, calm(old_copies=0.8), safety=6 * S)


def test_a_damaged_log_is_refused_or_equal() -> None:
    counts = simulate(0, calm(damage=1.0)).counts
    for seed in range(1, SEEDS):
        counts += simulate(seed, calm(damage=1.0, members=5)).counts
    assert counts["fault: damage"] >= SEEDS
    assert counts["a damaged log was refused"]
    assert counts["a damaged log was used"]
    refused = counts["exit 82"] + counts["exit 83"] + counts["exit 84"]
    assert counts["a damaged log was refused"] == refused


def test_a_damaged_log_that_is_believed_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that lost its end without a trace is none that may be used as if it were whole."""

    def shorten(image: Image, key: KeyFile, *_: object) -> sim_damage.Damaged:
        where, found = sim_damage.LogMap(image, key), sim_damage.read(image, key)
        newest = where.segments[-1]
        at = max(f.offset for f in newest.frames if f.header.kind == FrameKind.ENTRIES)
        data = image[newest.name]
        short = {**image, newest.name: data[:at] + bytes(len(data) - at)}
        return sim_damage.Damaged(short, found, found.first - 1 + len(found.entries))

    monkeypatch.setattr(sim_damage, "damage", shorten)
    late = calm(damage=1.0, ops_per_s=20.0, sql_linger=600 * MS)  # else the history would tell
    with pytest.raises(AssertionError, match="I8"):
        for seed in range(SEEDS):
            simulate(seed, late)


def test_a_read_only_disk_ends_a_member_until_it_is_mended() -> None:
    world = World(2, calm())
    with doors(world):
        world.serve()
        leader = world.leader()
        assert leader is not None
        leader.disk.read_only = True
        world.kernel.run(8 * S)
        assert leader.life is None
        assert leader.exits[0] == 80
        assert world.counts["start failed: errno 30"]
        leader.disk.read_only = False
        world.kernel.run(8 * S)
        assert leader.life is not None
        applied = {life.member.applied for life in world.lives()}
        assert max(applied) - min(applied) < 5


def test_the_atlas_spares_whoever_the_quorum_needs() -> None:
    world = World(3, calm())
    with doors(world):
        world.serve(15 * S)
        one, other, third = world.nodes.values()
        world.net.cut = {(a, third.id) for a in (one.id, other.id)}
        world.kernel.run(3 * S)
        losses: Losses = world.nemesis.losses
        assert not losses.may_lose(one), "the third one lacks what it holds"
        assert not losses.may_lose(other)
        world.net.calm()
        world.swarm.ops_per_s = 0.001
        world.kernel.run(8 * S)
        assert losses.may_lose(one)
        losses.hit[other.id] = other.durable.last
        assert not losses.may_lose(one), "one of three is the most"


def test_damage_spares_what_nobody_could_tell() -> None:
    """The newest frame is spared until a seal stands behind it; whatever else is hit is told."""
    disk = SimDisk(record=False)
    log = Wal.create(disk, IDENTITY, KEY, options=options())
    for index in range(1, 9):
        log.append(hard(1, 0xA1), index, 1, encode_entries(run_of(index, 1, 1)))
    open_end = sim_damage.LogMap(disk.image(), KEY)
    log.seal_idle()
    sealed = sim_damage.LogMap(disk.image(), KEY)
    assert open_end.spares(open_end.frames[-1])
    assert not open_end.spares(open_end.frames[-2])
    assert not sealed.spared
    told: Counter[int] = Counter()
    used = 0
    for number in range(300):
        kind = sim_damage.KINDS[number % len(sim_damage.KINDS)]
        result = sim_damage.damage(disk.image(), KEY, kind, Random(number))
        if result is None:
            continue
        try:
            found = sim_damage.read(result.image, KEY)
        except FatalError as error:
            told[error.code] += 1
            continue
        used += 1
        if result.expected is not None:
            assert found == result.expected
        else:
            assert result.last <= found.first - 1 + len(found.entries) <= 8
    assert set(told) <= set(DAMAGE_CODES)
    assert told[82] > 100
    assert told[83], "both copies of the newest header"
    assert used > 20
