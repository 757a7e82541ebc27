"""Every outcome of an install is reported to the core, once; the log waits for it (S1–S3)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from runtime_fakes import FakeMember, peer

from configsvc import limits
from configsvc.raft.messages import ConfState, Message, MessageType, Snapshot
from configsvc.runtime import install_sender
from configsvc.runtime.install_frames import FRAME_INSTALL_OFFER, Answer, InstallStatus
from configsvc.runtime.install_sender import InstallSender
from configsvc.types import LogIndex, NodeId, Term

INDEX = 50
WHO, OTHER = NodeId(2), NodeId(3)


class Source:
    """A history of three chunks, or one that cannot be read."""

    broken = False

    def __init__(self, reader: Any, breathe: Any) -> None:
        self.end = SimpleNamespace(index=INDEX)

    def chunks(self) -> Iterator[bytes]:
        if Source.broken:
            raise OSError(5, "unreadable")
        yield from (b"a", b"b", b"c")


class World:
    """The leader's side; its loop runs what is due at once, or when time passes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(install_sender, "InstallSource", Source)
        monkeypatch.setattr(Source, "broken", False)
        self.reports: list[tuple[int, bool]] = []
        self.sent: list[int] = []
        self.room = True
        self.since: float | None = 1.0
        self.soon: list[Callable[[], None]] = []
        member = cast(Any, FakeMember())
        member.reader = SimpleNamespace(current=None)
        member.loop = SimpleNamespace(
            call_soon=self._soon,
            call_later=lambda seconds, call, *args: self._soon(call, *args),
            run_in_executor=self._executed,
        )
        member.net = SimpleNamespace(
            connected=lambda who: self.since is not None,
            active_since=lambda who: self.since,
            send_frame=self._send,
        )
        member.machine.raft.report_snapshot = lambda who, ok: self.reports.append((who, ok))
        member.machine.log = SimpleNamespace(bytes_retained=0)
        member.report_failure = lambda error: "id"
        member.wake = lambda: None
        self.member = member
        self.sender = InstallSender(member, cast(Any, SimpleNamespace(submit=self._close)))

    def _soon(self, call: Callable[..., None], *args: Any) -> None:
        self.soon.append(lambda: call(*args))

    def _executed(self, executor: Any, call: Callable[..., Any], *args: Any) -> Any:
        done: Any = asyncio.Future(loop=asyncio.new_event_loop())
        try:
            done.set_result(call(*args))
        except OSError as error:
            done.set_exception(error)
        done.get_loop().close()
        return SimpleNamespace(add_done_callback=lambda then: self._soon(then, done))

    @staticmethod
    def _close(call: Callable[..., None], *args: Any) -> None:
        call(*args)

    def _send(self, who: int, kind: int, body: bytes, *, bulk: bool) -> bool:
        assert bulk
        if self.room:
            self.sent.append(kind)
        return self.room

    def runs(self) -> None:
        for _ in range(50):
            due, self.soon = self.soon, []
            for call in due:
                call()

    def begin(self, who: NodeId = WHO) -> None:
        snapshot = Snapshot(LogIndex(INDEX), Term(1), ConfState(voters=(NodeId(1), who)))
        message = Message(MessageType.SNAP, who, NodeId(1), Term(1), snapshot=snapshot)
        self.sender.begin(message)
        assert self.reports == [], "not from within the core's own step"
        self.runs()

    def answered(self, status: InstallStatus, taken: int = 0) -> None:
        self.sender.answered(WHO, Answer(1, taken, status))
        self.runs()

    def after(self, seconds: float) -> None:
        self.member.clock.now += seconds
        self.sender.tick(self.member.clock.now)
        self.runs()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def breaks(world: World) -> None:
    world.since = 7.0
    world.after(0.1)


def silence(world: World) -> None:
    world.after(limits.INSTALL_SILENCE_S + 1)


def too_long(world: World) -> None:
    world.member.machine.log.bytes_retained = limits.LOG_RETAINED_BYTES_MAX + 1
    world.after(0.1)


@pytest.mark.parametrize(
    ("happens", "ok"),
    [
        pytest.param(lambda w: w.answered(InstallStatus.DONE, 3), True, id="done"),
        pytest.param(lambda w: w.answered(InstallStatus.FAILED), False, id="given-up"),
        pytest.param(silence, False, id="silent"),
        pytest.param(breaks, False, id="another-connection"),
        pytest.param(too_long, False, id="the-log-is-too-long"),
        pytest.param(lambda w: w.sender.demoted(), False, id="demoted"),
    ],
)
def test_each_end_is_reported_once(world: World, happens: Any, ok: bool) -> None:
    world.begin()
    assert world.sent[0] == FRAME_INSTALL_OFFER
    assert world.sender.busy
    happens(world)
    world.runs()
    world.answered(InstallStatus.DONE, 3)  # too late
    world.after(1_000.0)
    assert world.reports == [(WHO, ok)]
    assert not world.sender.busy


@pytest.mark.parametrize("why", ["no-way", "no-room", "unreadable"])
def test_one_that_cannot_begin_is_reported_too(world: World, why: str) -> None:
    if why == "no-way":
        world.since = None
    elif why == "no-room":
        world.room = False
    else:
        Source.broken = True
    world.begin()
    assert world.reports == [(WHO, False)]
    assert not world.sender.busy


def test_S3_one_at_a_time(world: World) -> None:
    world.begin()
    world.sender.begin(
        Message(
            MessageType.SNAP, OTHER, NodeId(1), Term(1),
            snapshot=Snapshot(LogIndex(INDEX), Term(1), ConfState(voters=(OTHER,))),
        )
    )  # fmt: skip
    world.runs()
    assert world.reports == [(OTHER, False)]
    world.answered(InstallStatus.DONE, 3)
    assert world.reports[1:] == [(WHO, True)]


def test_a_member_that_fails_again_and_again_is_waited_for(world: World) -> None:
    world.begin()
    world.answered(InstallStatus.FAILED)
    world.reports.clear()
    world.begin()
    assert world.reports == [(WHO, False)], "not before its pause is over"
    world.reports.clear()
    world.after(limits.INSTALL_PAUSE_S_MIN + 0.1)
    world.begin()
    assert world.sender.busy


def test_a_member_whose_second_lane_is_not_up_is_not_waited_for(world: World) -> None:
    """One that joins is reached on one lane first; its first install must not come seconds late."""
    world.room = False
    for _ in range(3):
        world.begin()
        assert world.reports == [(WHO, False)]
        world.reports.clear()
    assert world.sender.failed_total == 0
    world.room = True
    world.begin()
    assert world.sender.busy
    world.answered(InstallStatus.DONE, 3)
    assert world.reports == [(WHO, True)]


def test_S1_the_log_is_held_until_the_member_acknowledged_beyond_it(world: World) -> None:
    assert world.sender.hold() is None
    world.begin()
    assert world.sender.hold() == INDEX
    world.answered(InstallStatus.DONE, 3)
    progress = world.member.machine.raft.progress
    progress[WHO] = peer(INDEX)
    world.after(1.0)
    assert world.sender.hold() == INDEX
    progress[WHO] = peer(INDEX + 1)
    world.after(1.0)
    assert world.sender.hold() is None


def test_S1_nobody_is_waited_for_for_ever(world: World) -> None:
    world.begin()
    world.answered(InstallStatus.DONE, 3)
    world.member.machine.raft.progress[WHO] = peer(1)
    world.after(limits.INSTALL_HOLD_S + 1)
    assert world.sender.hold() is None


def test_writes_that_suffer_slow_the_reading_down(world: World) -> None:
    def ticks(sync_s: float) -> float:
        for _ in range(100):
            world.member.wal.frames_total += 1
            world.member.wal.sync_seconds_last = sync_s
            world.after(world.member.config.tick)
        return world.sender._pace.share

    first = ticks(0.001)
    world.begin()
    assert ticks(0.001) == first
    assert ticks(0.1) < first
    world.answered(InstallStatus.DONE, 3)
    assert ticks(0.1) == first, "the next install begins anew"


def test_the_window_is_never_more_than_a_few_chunks(world: World) -> None:
    world.begin()
    chunks = len(world.sent) - 1
    assert 1 <= chunks <= limits.INSTALL_CHUNKS_IN_FLIGHT_MAX
