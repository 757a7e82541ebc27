"""One pass of the member's loop: what gathered is proposed or asked, then the machine runs.

Whatever arrives wakes at most one pass. One pass makes one log frame and at most one write per
connection.

Always true:
  * Nothing is proposed before the own term's first entry is applied, while a change of the
    configuration is unapplied (5.5 a), or while leadership is being handed over.
  * Apply waits while SQL lags at its bound (Q2); the log and the links go on.

Not here: the order of consensus work (``machine``), what woke the pass (``peering``, ``timing``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol

from configsvc.errors import OverloadedError
from configsvc.limits import READY_ENTRIES_MAX, WRITES_HELD_S_MAX
from configsvc.raft.errors import ProposalDropped
from configsvc.raft.messages import Message, MessageType
from configsvc.types import NodeId

if TYPE_CHECKING:
    from configsvc.runtime.member import Member

FEW_CALLERS: Final = 8  # up to here each message of a peer gets a pass of its own


class Corked(Protocol):
    """Output that gathers during a pass."""

    def cork(self) -> None: ...

    def uncork(self) -> None: ...


class Uncorked:
    """Nobody gathers anything."""

    def cork(self) -> None:
        """Nothing to hold back."""

    def uncork(self) -> None:
        """Nothing was held back."""


class Passes:
    """When the machine runs, and what it is given first."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._loop = member.loop
        self._scheduled = False
        self._held_since: float | None = None  # writes wait since then, without a pause
        self.answers: Corked = Uncorked()  # the front end's, once there is one

    def wake(self) -> None:
        """Schedule one pass, if none is."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._pass)

    def _pass(self) -> None:
        """A pass that was woken, unless another one came before it."""
        if self._scheduled:
            self._begin()
            try:
                self._run()
            finally:
                self._end()

    def _begin(self) -> None:
        self._member.net.cork()
        self.answers.cork()

    def _end(self) -> None:
        """What the pass made leaves without another turn of the loop: peers first."""
        self._member.net.uncork()
        self.answers.uncork()

    def _run(self) -> None:
        self._scheduled = False
        member = self._member
        machine, proposals = member.machine, member.proposals
        lead = machine.lead
        if lead:
            if lead == member.self_id:
                self._propose()
            elif proposals.queued and not member.lost_leader.silent:
                proposals.forward_to(lead)
            # While a write hangs the core may have another leader than was told: a read asked of
            # that one would not be noticed if leadership went there and back (R4).
            asked = member.reads.queued and lead == machine.raft.lead
            if asked and not member.lost_leader.silent:
                member.reads.flush(machine.raft)
        elif proposals.queued:
            proposals.hand_back()
        # The history writer wakes us when there is room again.
        if member.news.expected:
            member.news.deliver()
        again = machine.run(member.history.has_room)
        if machine.raft.commit_untold:
            member.news.look()
        if member.hub.behind or member.hub.feeding:
            again = member.hub.catch_up() or again
        if again:
            self.wake()

    def _propose(self) -> None:
        member = self._member
        raft, proposals = member.machine.raft, member.proposals
        if (
            not proposals.queued
            or member.leading_since_term != raft.term
            or raft.conf_change_unapplied  # the barrier (5.5 a)
            or member.handover.under_way is not None
        ):
            self._held_since = None
            return
        held = member.housekeeping.hold_writes()
        if held:
            self._hold()
            if member.housekeeping.hold_writes(urgent=True):
                return
        foreign = proposals.foreign
        commands, batch = proposals.take_for_leader(member.state.last_time_ns, urgent_only=held)
        if not commands:
            return
        try:
            raft.propose(commands)
        except ProposalDropped:  # too much is not applied yet, or leadership is on its way
            proposals.give_back(batch)
            self._hold()
            return
        if not held:
            self._held_since = None
        for peer in foreign:
            member.news.expects(peer, raft.last_index)
        if len(batch) == READY_ENTRIES_MAX and proposals.queued:
            self.wake()  # not when the core drops them: it would do so again, without a pause

    def _hold(self) -> None:
        """Writes wait for SQL or apply to catch up; for longer than a moment they are refused."""
        member = self._member
        now = member.clock.monotonic()
        if self._held_since is None:
            self._held_since = now
        elif now - self._held_since >= WRITES_HELD_S_MAX:
            member.proposals.refuse_waiting(OverloadedError())

    def on_durable(self, token: int) -> None:
        """The log's writer finished a frame (called on the loop)."""
        member = self._member
        self._begin()
        try:
            member.machine.durable_up_to(token)
            member.installs.receiver.idle()
            self._run()
        finally:
            self._end()

    def on_messages(self, peer: NodeId, messages: Sequence[Message]) -> None:
        """Raft messages of a peer whose certificate was checked by the transport.

        A pass follows at once while few callers wait. While many do, more is about to arrive in
        this turn of the loop, and one pass for all of it costs less than it delays.
        """
        member = self._member
        if member.joining:
            # Born with no configuration, this member must not begin with the log's first entry.
            messages = [m for m in messages if m.type is not MessageType.APP or m.index]
        member.machine.step(messages)
        if self._scheduled or member.proposals.waiting > FEW_CALLERS:
            self.wake()
            return
        self._begin()
        try:
            self._run()
        finally:
            self._end()
