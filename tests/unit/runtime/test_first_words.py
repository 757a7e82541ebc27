"""The first words of a start prove that a member went back in time; later ones do not (G2)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from runtime_fakes import FakeMember, peer

from configsvc.apply.members import Member
from configsvc.runtime.membership import WENT_BACK, Membership
from configsvc.transport.hello import CONTROL, Hello
from configsvc.types import NodeId

PEER = NodeId(2)
STORE = bytes(16)


class World:
    """The leader of a cluster whose list of members it has yet to apply."""

    def __init__(self) -> None:
        self.member = cast(Any, FakeMember())
        self.member.calls = SimpleNamespace(serve=lambda method, handler: None)
        self.membership = Membership(self.member)

    def applied(self) -> None:
        """The entry that names the members; by now the peer holds two entries."""
        known = Member(PEER, "", ("http://127.0.0.1:2380",), (), False, b"", "")
        self.member.state.members.by_id[PEER] = known
        self.member.machine.raft.progress[PEER] = peer(2)

    def hears(self, *, incarnation: int, last: int) -> object:
        hello = Hello(CONTROL, True, 1, PEER, 1, STORE, incarnation, 0, 1, last, "test")
        return self.membership.judge_hello(PEER, hello)


def test_words_that_acknowledgements_overtook_prove_nothing() -> None:
    """Four connections are made at once, and a member is a member only when that is applied."""
    world = World()
    assert world.hears(incarnation=1, last=0) == ""
    world.applied()
    assert world.hears(incarnation=1, last=0) == ""


def test_the_first_words_of_another_start_do() -> None:
    world = World()
    world.hears(incarnation=1, last=0)
    world.applied()
    assert world.hears(incarnation=2, last=1) == WENT_BACK
    assert world.hears(incarnation=3, last=2) == ""


def test_a_start_that_was_never_heard_is_judged() -> None:
    world = World()
    world.applied()
    assert world.hears(incarnation=1, last=1) == WENT_BACK
