"""Frames between members, and which members there are to send them to.

Forwarded writes, calls and installs travel beside the consensus messages on the peers' link; here
each kind finds the room that it is for.

Not here: the link (``transport``), who may be a member (``membership``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from configsvc.errors import DecodeError
from configsvc.runtime.install_frames import INSTALL_FRAMES
from configsvc.types import NodeId

if TYPE_CHECKING:
    from configsvc.runtime.member import Member

FRAME_FORWARD: Final = 3
FRAME_FORWARD_REPLY: Final = 4
FRAME_CALL: Final = 5
FRAME_CALL_REPLY: Final = 6
FRAME_FORWARD_REFUSED: Final = 12


class Peering:
    """The way to the other members, for the rooms of this one."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._net = member.net

    def on_frame(self, peer: NodeId, kind: int, body: bytes) -> None:
        """Anything that a peer sends beside consensus messages.

        Raises:
            DecodeError: malformed; the transport closes the connection.
        """
        member = self._member
        if kind == FRAME_FORWARD:
            member.proposals.accept_forwarded(peer, body)
        elif kind == FRAME_FORWARD_REPLY:
            member.proposals.handed_back(body)
        elif kind == FRAME_FORWARD_REFUSED:
            member.proposals.refused(body)
        elif kind == FRAME_CALL:
            member.calls.on_call(peer, body)
        elif kind == FRAME_CALL_REPLY:
            member.calls.on_reply(peer, body)
        elif kind in INSTALL_FRAMES:
            member.installs.on_frame(peer, kind, body)
        elif not member.housekeeping.on_frame(peer, kind, body):
            raise DecodeError("frame of an unknown kind")

    def on_unreachable(self, peer: NodeId) -> None:
        """Messages to ``peer`` were lost or its connection broke."""
        member = self._member
        member.machine.raft.report_unreachable(peer)
        member.calls.lost(peer)
        member.lost_leader.connection_lost(peer)
        if peer == member.lead:
            member.wake()

    # --- ports of proposals and calls ------------------------------------------------------------

    def forward(self, leader: NodeId, body: bytes) -> bool:
        return self._net.send_frame(leader, FRAME_FORWARD, body, bulk=True)

    def hand_back(self, peer: NodeId, body: bytes) -> None:
        self._net.send_frame(peer, FRAME_FORWARD_REPLY, body)

    def refuse(self, peer: NodeId, body: bytes) -> None:
        self._net.send_frame(peer, FRAME_FORWARD_REFUSED, body)

    def send_call(self, peer: NodeId, body: bytes) -> bool:
        return self._net.send_frame(peer, FRAME_CALL, body)

    def send_reply(self, peer: NodeId, body: bytes) -> bool:
        return self._net.send_frame(peer, FRAME_CALL_REPLY, body)

    # --- who they are ----------------------------------------------------------------------------

    def tell_net(self) -> None:
        """The link learns who is a member and who no longer is."""
        member = self._member
        peers: dict[NodeId, Sequence[str]] = {}
        known = member.state.members.by_id
        for who in self.known_members():
            if who != member.self_id:
                urls = known[who].peer_urls if who in known else ()
                peers[NodeId(who)] = urls or self.genesis_urls(who)
        self._net.set_removed([NodeId(i) for i in sorted(member.state.members.removed)])
        self._net.set_peers(peers)

    def known_members(self) -> list[int]:
        """Ids of the configuration in force and of the member list."""
        conf = self._member.machine.conf_state
        ids = {*conf.voters, *conf.voters_outgoing, *conf.learners, *conf.learners_next}
        return sorted(ids | set(self._member.state.members.by_id))

    def genesis_urls(self, who: int) -> Sequence[str]:
        """Peer URLs from --initial-cluster, until the first entry is applied."""
        return self._member.publishing.genesis.get(who, ())

    def active_for(self, peer: NodeId) -> float:
        """Seconds that the connection to ``peer`` has been up; 0 when it is down."""
        since = self._net.active_since(peer)
        return self._member.clock.monotonic() - since if since is not None else 0.0
