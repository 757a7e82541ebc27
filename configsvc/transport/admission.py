"""Who may be at the other end of a peer connection, and what it may say. Pure.

A peer is who its certificate says, and says so itself; it is of our cluster, born as we were, and
not removed. Peers are not judged by local configuration, which may lag (L4): an unknown member
with a good certificate is accepted and its messages are the core's to judge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from configsvc.errors import DecodeError, ExitCode
from configsvc.identity.certificate import (
    CertificateRejected,
    LeafIdentity,
    parse_leaf,
)
from configsvc.identity.member_ids import member_name
from configsvc.limits import PEER_INDEX_MAX, PEER_TERM_LEAP_MAX
from configsvc.raft.messages import Message
from configsvc.transport.hello import Hello, Refusal
from configsvc.types import KIND_MEMBER, NodeId

_MEMBERS: Final = frozenset({KIND_MEMBER})
REMOVED: Final = Refusal(ExitCode.REMOVED, "the member was removed from the cluster")


def judge_leaf(der: bytes | None, *, trust_domain: str) -> LeafIdentity:
    """The member that a certificate names; its time is judged again and again (``link``).

    Raises:
        CertificateRejected: none, or of another kind or trust domain.
    """
    if der is None:
        raise CertificateRejected("no certificate")
    return parse_leaf(der, trust_domain=trust_domain, kinds=_MEMBERS)


def judge_hello(
    hello: Hello,
    own: Hello,
    *,
    leaf_name: str,
    expected: NodeId,
    removed: AbstractSet[NodeId],
) -> Refusal | None:
    """Why a hello is not acceptable; None if it is.

    Args:
        hello: the other side's.
        own: what we say ourselves.
        leaf_name: name part of its certificate; "" in plaintext, where the hello is all there is.
        expected: whom we dialled; 0 on the accepting side.
        removed: ids that are never accepted again (G1).
    """
    who = NodeId(hello.member_id)
    if not who or (leaf_name and leaf_name != member_name(who)):
        return Refusal(0, "the certificate names another member")
    if hello.insecure != own.insecure:
        return Refusal(0, "one side was born under --insecure-dev, the other was not")
    if hello.cluster_id != own.cluster_id:
        # A restore made a new id out of an old one: who still has the old one must end (G4).
        at_fault = hello.epoch < own.epoch
        return Refusal(ExitCode.WRONG_IDENTITY if at_fault else 0, "member of another cluster")
    if hello.epoch != own.epoch:
        return Refusal(ExitCode.WRONG_IDENTITY if hello.epoch < own.epoch else 0, "another epoch")
    if who == own.member_id:
        return Refusal(0, "the peer claims to be this member")
    if (expected and expected != who) or (hello.to and hello.to != own.member_id):
        return Refusal(0, "another member answers at this URL")
    if who in removed:
        return REMOVED
    return None


def plausible(
    messages: Sequence[Message], *, sender: NodeId, to: NodeId, term: Callable[[], int]
) -> Sequence[Message]:
    """The messages without those whose term or index cannot be (RAFT-3).

    Args:
        messages: of one frame.
        sender: whose connection they came over.
        to: this member.
        term: ours; elections do not leap by billions. Asked only when a term is that large.

    Raises:
        DecodeError: one is sent in somebody else's name or meant for somebody else.
    """
    term_max = PEER_TERM_LEAP_MAX
    absurd = False
    for m in messages:
        if m.from_ != sender or m.to != to:
            raise DecodeError("a message in somebody else's name")
        if m.term > term_max or m.index > PEER_INDEX_MAX or m.commit > PEER_INDEX_MAX:
            absurd = True
    if not absurd:
        return messages
    term_max += term()
    return [
        m
        for m in messages
        if m.term <= term_max and m.index <= PEER_INDEX_MAX and m.commit <= PEER_INDEX_MAX
    ]
