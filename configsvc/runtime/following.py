"""What follows when the machine moved: rows to SQL, answers to callers, events to watchers.

Always true:
  * What a run of entries did is told in the pass that applied it.
  * A write is stamped only by a leader that applied its own term's first entry.

Not here: the machine itself, and how each room takes what it is told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from configsvc.apply.commands import Command, Effects, Granted
from configsvc.codec.confstate import encode_conf_state
from configsvc.raft.messages import ConfState, Role, Snapshot
from configsvc.types import NodeId

if TYPE_CHECKING:
    from configsvc.runtime.member import Member


class Following:
    """The machine's listener."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._conf_submitted: ConfState | None = None  # the one that SQL was given last
        self._denials = member.state.auth.denials
        self.on_denied: Callable[[], object] = lambda: None  # somebody may be denied who was not

    def on_role(self, lead: NodeId, role: Role) -> None:
        """Leadership moved: nothing confirmed for an earlier leader is used any more (R4)."""
        member = self._member
        member.report.info(
            "raft", "leadership", lead=f"{lead:016x}", role=role.name.lower(), term=member.term
        )
        member.lost_leader.leadership(lead)
        member.reads.leadership_changed()
        member.proposals.leadership_changed()
        member.news.forget()
        if role is Role.LEADER:
            member.leases.promoted()
        else:
            member.leading_since_term = 0
            member.change_pending = False
            member.leases.demoted()
            member.installs.sender.demoted()
        member.timing.leadership(lead)
        member.handover.leadership(lead)
        member.publishing.leadership(lead)
        if role is Role.LEADER:
            member.checkpoints.leadership()
        member.elections.leadership(lead)
        member.wake()

    def on_read(self, index: int, context: bytes) -> None:
        self._member.reads.confirmed(index, context, self._member.machine.applied)

    def on_applied(self, effects: Sequence[Effects], commands: Sequence[Command | None]) -> None:
        member = self._member
        conf = member.machine.conf_state
        changed = conf is not self._conf_submitted
        self._conf_submitted = conf
        member.history.submit(effects, encode_conf_state(conf) if changed else None)
        if member.is_leader:
            self._as_leader(effects)
        if member.proposals.waiting:  # a follower mostly is asked by nobody
            accepted = [c.envelope.accepted_by if c is not None else 0 for c in commands]
            member.proposals.answer(effects, accepted)
        member.hub.feed(effects)
        member.housekeeping.note_digest(effects[-1].index, effects[-1].digest)
        member.reads.applied(effects[-1].index)
        member.publishing.applied(effects, commands)
        self._look_for_denials()
        if member.checkpoints.waited_for:
            member.checkpoints.look_for_good(member.clock.monotonic())

    def _look_for_denials(self) -> None:
        denials = self._member.state.auth.denials
        if denials != self._denials:
            self._denials = denials
            self.on_denied()

    def _as_leader(self, effects: Sequence[Effects]) -> None:
        member = self._member
        term = member.machine.raft.term
        if member.leading_since_term != term and effects[-1].term == term:
            member.leading_since_term = term  # everything of earlier terms is applied
        for outcome in effects:
            result = outcome.result
            if type(result) is Granted:
                member.leases.granted(result.id)

    def on_configuration(self, conf_state: ConfState, index: int) -> None:
        member = self._member
        member.change_pending = False
        member.report.info(
            "raft",
            "configuration",
            voters=[f"{v:016x}" for v in conf_state.voters],
            learners=[f"{v:016x}" for v in conf_state.learners],
            index=index,
        )
        member.peering.tell_net()
        member.membership.configuration()
        member.wake()

    def on_snapshot(self, snapshot: Snapshot) -> int:
        return self._member.installs.receiver.generation()

    def on_installed(self) -> None:
        self._member.installs.switch()

    def switched(self, index: int, digest: bytes, revision: int) -> None:
        """Another generation is this member's since now; ``revision`` is what it had before."""
        member = self._member
        self._conf_submitted = member.machine.conf_state
        member.written_revision = member.store.revision
        member.history_durable = index
        member.housekeeping.installed(index, digest)
        member.proposals.leadership_changed()  # theirs may be among the entries never seen here
        member.gate.on_written(index)
        member.reads.applied(index)
        member.hub.resume(revision)
        self._look_for_denials()
        member.wake()
