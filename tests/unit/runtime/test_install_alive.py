"""A receiver whose thread is busy says that it lives; one that waits for chunks does not.

And one whose install makes no sense gives it up, wherever that shows.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from runtime_fakes import FakeMember

from configsvc import limits
from configsvc.runtime.install_frames import InstallStatus, Offer, decode_answer
from configsvc.runtime.install_receiver import InstallReceiver
from configsvc.storage.snapshot.sink import Installed
from configsvc.types import NodeId

LEADER = NodeId(2)


class Rig:
    """The receiving side; its thread ends a piece of work when told."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.work: list[asyncio.Future[Any]] = []
        self.told: list[InstallStatus] = []
        member = cast(Any, FakeMember())
        member.loop = SimpleNamespace(run_in_executor=self._run)
        self.since: float | None = None
        member.net = SimpleNamespace(send_frame=self._send, active_since=lambda _: self.since)
        self.member = member
        member.machine.writing = False
        self.clock = member.clock
        self.unfit = member.unfit
        executor = cast(Any, SimpleNamespace(submit=lambda *_: None))
        self.receiver = InstallReceiver(member, executor, cast(Any, lambda: None))
        self.receiver.offered(LEADER, Offer(1, 1))

    def _run(self, executor: Any, work: Any) -> asyncio.Future[Any]:
        self.work.append(self.loop.create_future())
        return self.work[-1]

    def _send(self, peer: int, kind: int, body: bytes) -> None:
        self.told.append(decode_answer(body).status)

    def ends(self, result: Any) -> None:
        self.work.pop().set_result(result)
        self.loop.run_until_complete(asyncio.sleep(0))

    def after(self, seconds: float) -> None:
        self.clock.now += seconds
        self.receiver.tick(self.clock.now)


@pytest.fixture
def rig() -> Any:
    made = Rig()
    yield made
    made.loop.close()


ALIVE = limits.INSTALL_ALIVE_S * 1.01


def test_long_work_is_no_silence(rig: Rig) -> None:
    """A fold of many rows may take longer than a sender waits for an answer."""
    for _ in range(3):
        rig.after(ALIVE)
    rig.after(ALIVE / 2)
    assert rig.told == [InstallStatus.GOING_ON] * 3


def test_who_waits_for_a_chunk_has_nothing_to_say(rig: Rig) -> None:
    rig.ends("a sink")
    rig.after(ALIVE)
    assert rig.told == []
    rig.receiver.chunk(LEADER, 1, b"chunk")
    rig.after(ALIVE)
    assert rig.told == [InstallStatus.GOING_ON]


def test_a_sender_that_is_silent_is_given_up(rig: Rig) -> None:
    rig.after(limits.INSTALL_SILENCE_S + 1)
    assert rig.receiver.busy, "its own thread was slow, not the sender"
    rig.ends("a sink")
    rig.after(limits.INSTALL_SILENCE_S - 1)
    assert rig.receiver.busy
    rig.after(2)
    assert rig.told[-1] is InstallStatus.FAILED
    assert not rig.receiver.busy


def sender_ends(rig: Rig) -> None:
    rig.since = None


def sender_starts_again(rig: Rig) -> None:
    rig.since = 9.0


def another_one_leads(rig: Rig) -> None:
    rig.member.term += 1


@pytest.mark.parametrize("happens", [sender_ends, sender_starts_again, another_one_leads])
@pytest.mark.parametrize("working", [True, False])
def test_a_sender_that_is_gone_is_not_waited_for(rig: Rig, happens: Any, working: bool) -> None:
    """Who is being installed may not lead; of three members the others may need that it does."""
    rig.after(0.1)  # the lane that brought the offer is up before the other one
    rig.since = 1.0
    rig.after(0.1)
    rig.after(0.1)
    if not working:
        rig.ends("a sink")
    assert rig.receiver.busy
    assert rig.unfit == {"install"}
    happens(rig)
    rig.after(0.1)
    assert not rig.receiver.busy
    assert rig.unfit == set()


def test_a_whole_stream_is_made_use_of_without_its_sender(rig: Rig) -> None:
    rig.since = 1.0
    rig.after(0.1)
    rig.ends(SimpleNamespace(feed=None, finish=None, history=None))
    rig.receiver.chunk(LEADER, 1, b"the last one")
    rig.ends(True)
    rig.since = None
    rig.after(0.1)
    assert rig.receiver.busy


def test_an_end_that_makes_no_sense_is_an_end(rig: Rig) -> None:
    """All bytes are as the leader sent them, and its configuration is none."""
    history = SimpleNamespace(load_live_slices=lambda: iter(()))
    rig.ends(SimpleNamespace(feed=None, finish=None, history=history))
    rig.receiver.chunk(LEADER, 1, b"the last one")
    rig.ends(True)
    rig.ends(Installed(9, 1, b"no configuration", b"", 5, 2))
    rig.ends("what was stored")
    rig.ends(None)  # no row is left to be read
    assert rig.told[-1] is InstallStatus.FAILED
    assert not rig.receiver.busy
    assert rig.unfit == set()
