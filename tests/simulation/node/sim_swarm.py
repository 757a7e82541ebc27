"""What a seed draws before its run: which classes of faults are on, how hard, and small limits.

Each class is off in half of the seeds (swarm testing): a run in which everything goes wrong at
once hides the bugs that need one thing to go right. Small limits make rare paths common.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any, Final

from configsvc.raft.config import NO_LIMIT
from tests.simulation.node.sim_kernel import MS, S

KIB: Final = 1024


@dataclass
class Swarm:
    """The parameters of one run. Rates are per second of virtual time; 0 is never."""

    members: int = 3
    segment_bytes: int = 64 * KIB
    snapshot_count: int = 10_000
    catchup_entries: int = 5_000
    sql_batch: int = 256
    sql_linger: int = 100 * MS
    sql_checkpoint: int = 30 * S
    clients: int = 4
    ops_per_s: float = 10.0
    watchers: int = 2
    leases: bool = True
    compactions: float = 0.02
    strict_reconfig: bool = True
    raft: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)
    drift: float = 0.0
    crash_point: float = 0.0  # at each place between two steps
    # rates of faults
    partitions: float = 0.0
    one_way: bool = False
    lossy: float = 0.0
    duplicates: float = 0.0
    reorder: bool = False
    slow_links: float = 0.0
    resets: float = 0.0
    kills: float = 0.0
    power: float = 0.0
    restart_all: float = 0.0
    pauses: float = 0.0
    slow_disks: float = 0.0
    hung_disks: float = 0.0
    failed_syncs: float = 0.0
    full_disks: float = 0.0
    slow_sql: float = 0.0
    clock_jumps: float = 0.0
    transfers: float = 0.0
    churn: float = 0.0
    half_open: float = 0.0
    bandwidth: float = 0.0
    queue_bytes: int = 0  # bound of a peer connection's queue; 0: the product's
    clogs: float = 0.0
    long_silence: bool = False  # broken connections are noticed late
    read_only: float = 0.0
    old_copies: float = 0.0  # copies that are taken; few are put back
    damage: float = 0.0  # tried; few are allowed
    quota_bytes: int = -1  # negative: none
    key_changes: float = 0.0
    shared_streams: bool = False  # watchers have two watches on one stream
    hasty: bool = False  # operators do not wait for one change before the next
    broken_rest: bool = False  # the heal leaves a minority broken
    minority: bool = False  # after the heal one member is broken, and what it costs is measured

    def clock_rate(self, rng: random.Random) -> float:
        """How fast a member's clocks run."""
        return 1.0 + (rng.random() * 2 - 1) * self.drift if self.drift else 1.0


# Class of faults -> how a seed draws it.
_CLASSES: Final = {
    "partitions": lambda r: r.choice((0.1, 0.3, 0.6)),
    "lossy": lambda r: r.choice((0.02, 0.1, 0.3)),
    "duplicates": lambda r: r.choice((0.05, 0.2, 0.5)),
    "reorder": lambda r: True,
    "one_way": lambda r: True,
    "slow_links": lambda r: r.choice((0.1, 0.5)),
    "resets": lambda r: r.choice((0.1, 0.5)),
    "kills": lambda r: r.choice((0.05, 0.2, 0.4)),
    "power": lambda r: r.choice((0.05, 0.2)),
    "restart_all": lambda r: r.choice((0.02, 0.05)),
    "pauses": lambda r: r.choice((0.1, 0.4)),
    "slow_disks": lambda r: r.choice((0.1, 0.3)),
    "hung_disks": lambda r: r.choice((0.03, 0.1)),
    "failed_syncs": lambda r: r.choice((0.02, 0.1)),
    "full_disks": lambda r: r.choice((0.02, 0.1)),
    "slow_sql": lambda r: r.choice((0.1, 0.3)),
    "clock_jumps": lambda r: r.choice((0.05, 0.2)),
    "transfers": lambda r: r.choice((0.05, 0.2)),
    "churn": lambda r: r.choice((0.05, 0.15)),
    "hasty": lambda r: True,
    "broken_rest": lambda r: True,
    "drift": lambda r: r.choice((0.01, 0.05)),
    "crash_point": lambda r: r.choice((0.0005, 0.002)),
}


# Classes that came later have dice of their own: a seed in which they are off goes as it went.
_LATER: Final = {
    "half_open": lambda r: r.choice((0.05, 0.2)),
    "bandwidth": lambda r: r.choice((0.1, 0.4)),
    "clogs": lambda r: r.choice((0.1, 0.4)),
    "long_silence": lambda r: True,
    "read_only": lambda r: r.choice((0.02, 0.1)),
    "old_copies": lambda r: r.choice((0.1, 0.3)),
    "damage": lambda r: r.choice((0.1, 0.4)),
}


# Bounds of queues -> what a seed may draw instead: so small that they are met (I14).
_BOUNDS: Final = {
    "APPLY_LAG_ENTRIES_MAX": (8, 5_000),
    "PENDING_READS_MAX": (4, 10_000),
    "PROPOSALS_WAITING_MAX": (4, 16, 10_000),
    "READY_ENTRIES_MAX": (2, 512),
    "SQL_LAG_ENTRIES_MAX": (8, 40, 5_000),
}


def draw(seed: int, overrides: dict[str, Any] | None = None, *, later: bool = True) -> Swarm:
    """The parameters of a seed; ``overrides`` name what is decided already.

    ``later`` False leaves out the classes that are newer than the first seeds in
    ``regressions.txt``, which went their way without them.
    """
    rng = random.Random(f"swarm {seed}")
    swarm = Swarm(members=rng.choice((1, 2, 3, 3, 3, 3, 5, 5)), minority=True)
    for name, choose in _CLASSES.items():
        value = choose(rng)
        if rng.random() < 0.5:
            setattr(swarm, name, value)
    swarm.segment_bytes = rng.choice((16, 16, 64)) * KIB
    if rng.random() < 0.6:
        swarm.snapshot_count = rng.choice((5, 20, 100))
        swarm.catchup_entries = rng.choice((1, 5, 20))
    swarm.sql_batch = rng.choice((1, 8, 256))
    swarm.sql_linger = rng.choice((MS, 20 * MS, 100 * MS))
    swarm.sql_checkpoint = rng.choice((S // 5, S, 5 * S, 30 * S))
    swarm.ops_per_s = rng.choice((3.0, 10.0, 10.0, 30.0))
    swarm.clients = rng.choice((2, 4, 8))
    swarm.compactions = rng.choice((0.0, 0.02, 0.2))
    if rng.random() < 0.5:
        swarm.raft = {
            "inflight_messages": rng.choice((1, 2, 8, 128)),
            "max_append_bytes": rng.choice((0, 100, 1024 * KIB)),
            "max_committed_entries_per_ready": rng.choice((1, 3, 512)),
            "max_uncommitted_bytes": rng.choice((2_000, NO_LIMIT)),
        }
    if rng.random() < 0.5:
        swarm.limits = {"WATCH_CATCHUP_REVISIONS": rng.choice((1, 2, 10))}
    bounds = random.Random(f"bounds {seed}")
    if bounds.random() < 0.25:
        swarm.limits |= {name: bounds.choice(values) for name, values in _BOUNDS.items()}
    if later:
        _draw_later(swarm, random.Random(f"world {seed}"))
        _draw_upkeep(swarm, random.Random(f"upkeep {seed}"))
        swarm.shared_streams = random.Random(f"streams {seed}").random() < 0.5
    for name, value in (overrides or {}).items():
        setattr(swarm, name, value)
    return swarm


def _draw_later(swarm: Swarm, rng: random.Random) -> None:
    for name, choose in _LATER.items():
        value = choose(rng)
        if rng.random() < 0.5:
            setattr(swarm, name, value)
    if swarm.bandwidth and rng.random() < 0.5:
        swarm.queue_bytes = rng.choice((2, 8, 32)) * KIB


def _draw_upkeep(swarm: Swarm, rng: random.Random) -> None:
    if rng.random() < 0.5:
        swarm.key_changes = rng.choice((0.05, 0.2))
    if rng.random() < 0.25:
        swarm.quota_bytes = rng.choice((1_000, 2_000))


def calm(**overrides: Any) -> Swarm:
    """No faults at all: for measuring, and for tests that plant their own."""
    return Swarm(**overrides)
