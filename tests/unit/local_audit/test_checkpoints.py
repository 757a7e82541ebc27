"""Which heads of stream M a member signs, and what it does when somebody disagrees."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from audit_world import FakeMember, World

from configsvc.audit.checkpoint import Checkpoint, decode_note, encode_checkpoint
from configsvc.audit.merkle import root_of
from configsvc.errors import FatalError, OverloadedError
from configsvc.limits import CHECKPOINT_INTERVAL_S, CHECKPOINT_LEAVES
from configsvc.proto import command_pb2
from configsvc.runtime.checkpoints import Checkpoints
from configsvc.storage.local.heads import NO_HEAD, Head, load_last


class Signer:
    """A member's checkpoints, and the log that carries signatures."""

    def __init__(self, folder: Path, lead: int = 1) -> None:
        self.member: Any = World().member
        self.member.lead = lead
        self.path = folder / "log.signed"
        self.made = Checkpoints(self.member, self.path)

    @property
    def sent(self) -> list[command_pb2.CheckpointSignature]:
        found = [op for field, op, _ in self.member.proposals.sent if field == 58]
        return [command_pb2.CheckpointSignature.FromString(op) for op in found]

    def ticks(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            self.member.clock.advance(1.0)
            self.made.tick(self.member.clock.monotonic())

    def apply(self) -> None:
        """The own signatures come back through the log."""
        for each in self.sent:
            self.member.state.signatures[each.member, each.size] = (each.root, each.signature)

    def root(self, size: int) -> bytes:
        return root_of(self.member.reader.leaves[:size])

    def signed_by(self, who: int, size: int, root: bytes, key: int = 0) -> None:
        """Another member's signature is applied."""
        text = encode_checkpoint(Checkpoint(self.member.log_origin, size, root)).encode()
        signature = self.member.keys[key or who].sign(text)
        self.member.state.signatures[who, size] = (root, signature)


@pytest.fixture
def leader(tmp_path: Path) -> Signer:
    return Signer(tmp_path)


@pytest.fixture
def follower(tmp_path: Path) -> Signer:
    return Signer(tmp_path, lead=2)


def test_the_leader_signs_ten_seconds_after_news_and_then_is_silent(leader: Signer) -> None:
    leader.ticks(30)
    assert leader.sent == []
    leader.member.grow(3)
    leader.ticks(9)
    assert leader.sent == []
    leader.ticks(3)
    [signed] = leader.sent
    assert (signed.member, signed.size, signed.root) == (1, 3, leader.root(3))
    leader.apply()
    leader.ticks(60)
    assert len(leader.sent) == 1


def test_many_leaves_are_signed_at_once_but_not_faster_than_allowed(leader: Signer) -> None:
    leader.member.grow(CHECKPOINT_LEAVES)
    leader.ticks(1)
    assert len(leader.sent) == 1
    leader.member.grow(CHECKPOINT_LEAVES)
    leader.made.tick(leader.member.clock.monotonic() + 0.1)
    assert len(leader.sent) == 1
    leader.ticks(1)
    assert len(leader.sent) == 2


def test_a_new_leader_signs_what_it_finds(follower: Signer) -> None:
    follower.member.grow(1)
    follower.ticks(30)
    assert follower.sent == [], "a follower does not begin"
    follower.member.lead = 1
    follower.made.leadership()
    follower.ticks(1)
    assert len(follower.sent) == 1


def test_followers_sign_the_head_that_they_see_signed(follower: Signer) -> None:
    follower.member.grow(4)
    follower.signed_by(2, 4, follower.root(4))
    follower.member.grow(2)
    follower.ticks(1)
    [signed] = follower.sent
    assert (signed.size, signed.root) == (4, follower.root(4))
    assert load_last(follower.path, follower.member.log_origin) == Head(4, follower.root(4))
    follower.apply()
    assert follower.made.good() == Head(4, follower.root(4))
    follower.ticks(60)
    assert len(follower.sent) == 1


def test_nothing_smaller_is_signed(follower: Signer) -> None:
    follower.member.grow(6)
    follower.signed_by(2, 6, follower.root(6))
    follower.ticks(1)
    follower.signed_by(3, 2, follower.root(2))
    follower.signed_by(2, 4, follower.root(4))
    follower.ticks(5)
    assert [each.size for each in follower.sent] == [6]
    assert not follower.member.alarms


def test_nothing_smaller_is_signed_after_a_restart(follower: Signer) -> None:
    follower.member.grow(6)
    follower.signed_by(2, 6, follower.root(6))
    follower.ticks(1)
    again = Checkpoints(follower.member, follower.path)
    del follower.member.state.signatures[2, 6]
    follower.signed_by(2, 3, follower.root(3))
    again.tick(1e9)
    assert len(follower.sent) == 1


def test_a_note_holds_good_signatures_only(follower: Signer) -> None:
    follower.member.grow(2)
    follower.signed_by(2, 2, follower.root(2))
    follower.signed_by(3, 2, follower.root(2), key=2)
    follower.ticks(3)
    follower.apply()
    note = decode_note(follower.made.note(Head(2, follower.root(2))))
    assert len(note.signatures) == 2
    assert follower.made.note(Head(1, follower.root(1))) == ""


def test_who_asks_gets_a_head_signed_by_a_majority(leader: Signer) -> None:
    leader.member.grow(2)
    told: list[int] = []
    leader.made.ask(2, lambda: told.append(1))
    leader.ticks(1)
    leader.apply()
    assert told == []
    leader.signed_by(3, 2, leader.root(2))
    leader.made.look_for_good(leader.member.clock.monotonic())
    assert told == [1]
    leader.made.ask(2, lambda: told.append(2))
    assert told == [1, 2], "it is there already"
    leader.member.grow(1)
    leader.made.ask(3, lambda: told.append(3))
    leader.ticks(5)
    assert told == [1, 2, 3], "nobody waits for ever"


def test_the_last_head_is_signed_at_the_end(leader: Signer) -> None:
    leader.member.grow(5)

    async def stop() -> None:
        leader.member.loop.create_future = asyncio.get_running_loop().create_future
        ending = asyncio.ensure_future(leader.made.final())
        await asyncio.sleep(0)
        leader.apply()
        leader.signed_by(2, 5, leader.root(5))
        leader.made.look_for_good(0.0)
        await ending
        await leader.made.final()

    asyncio.run(stop())
    assert [each.size for each in leader.sent] == [5]


def test_a_signature_that_got_lost_is_sent_again_without_news(follower: Signer) -> None:
    follower.member.grow(4)
    follower.signed_by(2, 4, follower.root(4))
    follower.ticks(2)
    assert len(follower.sent) == 1
    follower.ticks(CHECKPOINT_INTERVAL_S)  # it did not come back: leadership moved
    assert [each.size for each in follower.sent] == [4, 4]
    follower.apply()
    follower.ticks(3 * CHECKPOINT_INTERVAL_S)
    assert len(follower.sent) == 2


def test_who_asks_while_history_takes_no_more_questions_is_not_forgotten(leader: Signer) -> None:
    run, told = leader.member.gate.run, []

    def full(*_: Any) -> None:
        raise OverloadedError

    leader.member.gate.run = full
    leader.member.grow(2)
    leader.made.ask(2, lambda: told.append(2))
    leader.ticks(1)
    leader.member.gate.run = run
    leader.made.tick(leader.member.clock.monotonic())
    leader.apply()
    leader.signed_by(3, 2, leader.root(2))
    leader.made.look_for_good(leader.member.clock.monotonic())
    assert (len(leader.sent), told) == (1, [2])


# --- disagreement --------------------------------------------------------------------------------


def evidence(signer: Signer) -> str:
    [path] = signer.path.parent.glob("evidence-*.txt")
    return path.read_text()


def test_one_that_differs_is_told_and_the_majority_goes_on(follower: Signer) -> None:
    follower.member.grow(4)
    follower.signed_by(2, 4, b"x" * 32)
    follower.ticks(2)
    assert follower.sent == []
    assert follower.member.alarms == [2]
    assert not follower.member.later
    assert "member 0000000000000002 signed" in evidence(follower)


def test_the_outvoted_member_ends(follower: Signer) -> None:
    follower.member.grow(4)
    follower.signed_by(2, 4, b"x" * 32)
    follower.signed_by(3, 4, b"x" * 32)
    follower.ticks(2)
    assert follower.member.alarms
    [(fatal,)] = follower.member.later
    assert fatal.code == 91
    assert follower.sent == []


def test_a_forged_signature_accuses_nobody(follower: Signer) -> None:
    follower.member.grow(4)
    follower.signed_by(2, 4, b"x" * 32, key=3)
    follower.ticks(2)
    assert not follower.member.alarms
    assert not list(follower.path.parent.glob("evidence-*"))


def test_a_removed_members_signature_stays_good_and_accuses_nobody(follower: Signer) -> None:
    member = follower.member
    member.grow(4)
    follower.signed_by(2, 4, follower.root(4))
    member.retired[2] = member.keys.pop(2)
    follower.ticks(2)
    assert [each.size for each in follower.sent] == [4]
    assert not member.alarms
    assert not member.report.lines.count("a signature is wrong")
    note = decode_note(follower.made.note(Head(4, follower.root(4))))
    assert len(note.signatures) == 1


def test_a_retired_key_still_tells_roots_that_differ(follower: Signer) -> None:
    follower.member.grow(4)
    follower.signed_by(2, 4, b"x" * 32)
    follower.member.retired[2] = follower.member.keys.pop(2)
    follower.ticks(2)
    assert follower.member.alarms == [2]


def test_a_wrong_signature_is_told_from_one_that_nobody_can_judge(follower: Signer) -> None:
    member = follower.member
    member.grow(4)
    follower.signed_by(2, 4, follower.root(4), key=3)
    follower.ticks(1)
    assert member.report.lines.count("a signature is wrong") == 1
    del member.keys[2]
    follower.signed_by(2, 3, follower.root(3), key=3)
    follower.ticks(2)
    assert member.report.lines.count("a signature is wrong") == 1
    assert member.report.lines.count("a signature of a withdrawn key") == 1
    assert follower.sent == []


@pytest.mark.parametrize("signed_before", [True, False])
def test_a_database_that_lies_ends_its_member(leader: Signer, signed_before: bool) -> None:
    if signed_before:
        leader.member.grow(2)
        leader.ticks(12)
    leader.member.grow(3)
    leader.member.reader.leaves[0] = b"forged"
    leader.ticks(12)
    assert [each.size for each in leader.sent] == ([2] if signed_before else [])
    assert leader.member.alarms == [2]
    assert [fatal.code for (fatal,) in leader.member.later] == [91]
    before = len(leader.sent)
    leader.member.grow(1)
    leader.ticks(30)
    assert len(leader.sent) == before, "it signs nothing any more"


def test_a_disk_that_keeps_no_evidence_does_not_keep_the_alarm_back(follower: Signer) -> None:
    follower.member.grow(4)
    (follower.path.parent / "evidence-4.txt").symlink_to("nowhere")  # cannot be written
    follower.signed_by(2, 4, b"x" * 32)
    follower.signed_by(3, 4, b"x" * 32)
    follower.ticks(2)
    assert "evidence cannot be kept" in follower.member.report.lines
    assert follower.member.alarms
    assert [fatal.code for (fatal,) in follower.member.later] == [91]


def test_an_alarm_that_finds_no_room_is_raised_when_there_is_some(follower: Signer) -> None:
    member, raised = follower.member, follower.member.raise_alarm

    def full(_: int) -> None:
        raise OverloadedError

    member.raise_alarm = full
    member.grow(4)
    follower.signed_by(2, 4, b"x" * 32)
    follower.ticks(2)
    assert member.alarms == []
    member.raise_alarm = raised
    follower.ticks(2)
    assert member.alarms == [2]
    assert member.report.lines.count("roots differ") == 1, "looked at once"


def test_a_file_that_holds_no_head_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.signed"
    assert load_last(path, "o") == NO_HEAD
    for content in (b"", b"o\n3\nnot base64\n", b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(FatalError) as caught:
            load_last(path, "o")
        assert caught.value.code == 84
    path.write_text(encode_checkpoint(Checkpoint("other/0", 3, b"r" * 32)))
    assert load_last(path, "o") == NO_HEAD, "of another epoch"


def test_without_a_published_key_nothing_is_signed(leader: Signer) -> None:
    leader.member.keys = {}
    leader.member.grow(CHECKPOINT_LEAVES)
    leader.ticks(30)
    assert leader.sent == []
    assert isinstance(leader.member, FakeMember)
