"""Reads of a simulated cluster: each is backed by a quorum that was asked after it began.

I12: an answer confirmed for an earlier leader is never used. I13: a leader that answers a read
has heard, of a majority of each half of the configuration, an answer to a round of heartbeats that
left after the read was asked for. An answer without that would be a lease read, which are off: it
may overlap a newer commit elsewhere.

What is known here comes from the messages alone, not from the leader's own count of its rounds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from configsvc.raft.messages import ConfState, Message, MessageType
from configsvc.types import NodeId

if TYPE_CHECKING:
    from tests.simulation.node.sim_node import Life, Node
    from tests.simulation.node.sim_world import World


class ReadChecks:
    def __init__(self, world: World) -> None:
        self.world = world
        self._asked: dict[bytes, int] = {}  # context -> when its read was asked for
        self._begun: dict[tuple[NodeId, int, int], int] = {}  # (leader, term, round) -> when
        self._heard: dict[NodeId, dict[NodeId, int]] = {}  # leader -> peer -> round's beginning
        self._told: set[bytes] = set()  # answered by a leader to another member

    def watch(self, life: Life) -> None:
        """Stand between a member's reads and its core."""
        member = life.member
        reads, raft = member.reads, member.machine.raft
        leaders: dict[bytes, NodeId] = {}
        read_index, confirmed = raft.read_index, reads.confirmed

        def ask(context: bytes) -> None:
            leaders[context] = raft.lead
            self._asked[context] = self.world.kernel.now
            read_index(context)

        def use(index: int, context: bytes, applied: int) -> None:
            if context in reads._rounds:
                same = leaders.pop(context) == raft.lead
                assert same, "I12 a read confirmed for an earlier leader"
            if context not in self._told:
                self._proven(life, context, index)
            confirmed(index, context, applied)

        raft.read_index = ask  # type: ignore[method-assign]
        reads.confirmed = use  # type: ignore[method-assign]

    def sent(self, node: Node, message: Message) -> None:
        """Something leaves a member."""
        if message.type is MessageType.HEARTBEAT and message.read_round:
            round_ = (node.id, message.term, message.read_round)
            self._begun.setdefault(round_, self.world.kernel.now)
        elif message.type is MessageType.READ_INDEX_RESP and node.life is not None:
            self._told.add(message.context)
            self._proven(node.life, message.context, message.index)

    def heard(self, life: Life, message: Message) -> None:
        """Something arrives at a member."""
        if message.type is not MessageType.HEARTBEAT_RESP or not message.read_round:
            return
        begun = self._begun.get((life.node.id, message.term, message.read_round))
        if begun is not None:
            heard = self._heard.setdefault(life.node.id, {})
            heard[message.from_] = max(heard.get(message.from_, 0), begun)

    def _proven(self, life: Life, context: bytes, index: int) -> None:
        asked = self._asked.get(context)
        if asked is None:
            return  # of a start that is over
        raft = life.member.machine.raft.raft
        confs = (raft.conf, life.conf_before, life.conf_earlier)
        if any(conf is not None and self._backed(life, conf, asked) for conf in confs):
            return
        newer = len(self.world.checks.committed) - 1 - index
        raise AssertionError(
            f"I13 a read that no round proves; {max(newer, 0)} newer commits are known elsewhere"
        )

    def _backed(self, life: Life, conf: ConfState, since: int) -> bool:
        heard = self._heard.get(life.node.id, {})
        for voters in (conf.voters, conf.voters_outgoing):
            backing = sum(v == life.node.id or heard.get(v, -1) >= since for v in voters)
            if voters and 2 * backing <= len(voters):
                return False
        return True
