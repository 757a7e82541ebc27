"""A member as the rooms beside it see it: facts that tests set, calls that they look at."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from configsvc.apply.state import ApplyState
from configsvc.errors import FatalError
from configsvc.raft.messages import ConfState
from configsvc.raft.node import PeerStatus
from configsvc.raft.progress import ProgressState
from configsvc.raft.storage import MemoryLog
from configsvc.types import LogIndex, NodeId


class FakeClock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def time_ns(self) -> int:
        return int(self.now * 1e9)


class FakeReport:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, caller: str, msg: str, **fields: Any) -> None:
        self.lines.append(msg)

    warn = error = debug = info


class FakeWal:
    """The log's writer: how old its oldest write is, how long syncs take."""

    def __init__(self) -> None:
        self.age = 0.0
        self.frames_total = 0
        self.sync_seconds_last = 0.0
        self.compacted = 0

    def oldest_unsynced_age(self, now: float) -> float:
        return self.age

    def compact(self, up_to: int) -> None:
        self.compacted = up_to


class FakeHistory:
    def __init__(self) -> None:
        self.checkpoints_asked = 0

    def request_checkpoint(self) -> None:
        self.checkpoints_asked += 1


class FakeRaft:
    def __init__(self) -> None:
        self.progress: dict[int, PeerStatus] = {}
        self.transferee = NodeId(0)

    def status(self) -> Any:
        return SimpleNamespace(progress=self.progress)


def peer(
    match: int, *, active: bool = True, state: ProgressState = ProgressState.REPLICATE
) -> PeerStatus:
    """A member as its leader sees it."""
    zero = LogIndex(0)
    return PeerStatus(
        LogIndex(match), LogIndex(match + 1), state, active, False, 0, False, zero, False
    )


class FakeMember:
    """Leader of a cluster of three, with a healthy disk."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.report = FakeReport()
        self.wal = FakeWal()
        self.history = FakeHistory()
        self.config = SimpleNamespace(
            election_timeout_ms=1_000,
            tick=0.05,
            snapshot_count=100,
            snapshot_catchup_entries=50,
            advertised_etcd_version="3.7.1",
        )
        self.state = ApplyState()
        self.self_id = NodeId(1)
        self.is_leader = True
        self.term = self.leading_since_term = 1
        self.applied = 0
        self.history_durable = 0
        self.machine = SimpleNamespace(
            log=MemoryLog(),
            raft=FakeRaft(),
            conf_state=ConfState(voters=(NodeId(1), NodeId(2), NodeId(3))),
        )
        self.frames: list[tuple[int, int, bytes]] = []  # to whom, kind, body
        self.net = SimpleNamespace(
            connected=lambda who: True, send_frame=lambda *frame: bool(self.frames.append(frame))
        )
        self.lead = NodeId(1)
        self.installs = SimpleNamespace(sender=SimpleNamespace(hold=lambda: self.hold))
        self.housekeeping = SimpleNamespace(peers={})
        self.proposals = self
        self.handover = self
        self.reads = SimpleNamespace(shedding=False)
        self.hold: int | None = None
        self.unfit: set[str] = set()
        self.successor = True
        self.handed_over = 0
        self.healthy_wanted: list[bool] = []
        self.gave_up = 0
        self.alarms: list[int] = []
        self.submitted: list[tuple[int, bytes]] = []
        self.died: FatalError | None = None

    def set_fit(self, reason: str, *, fit: bool) -> bool:
        news = (reason not in self.unfit) != fit
        (self.unfit.discard if fit else self.unfit.add)(reason)
        return news

    def begin(self, *, caught_up: bool = False, healthy: bool = False) -> bool:
        self.healthy_wanted.append(healthy)
        self.handed_over += self.successor
        return self.successor

    def give_up(self) -> None:
        self.gave_up += 1
        self.is_leader = False

    def raise_alarm(self, alarm: int) -> None:
        self.alarms.append(alarm)

    def submit(self, actor: bytes, op_field: int, op: bytes, encode: Any, **more: Any) -> None:
        self.submitted.append((op_field, op))

    def die(self, error: FatalError) -> None:
        self.died = self.died or error
