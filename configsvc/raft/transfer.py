"""Handing leadership to a chosen voter: catch it up, then make it campaign at once.

While this lasts the leader takes no proposals; it gives up after an election timeout
(``raft.clock``), or as soon as the target says that it declines (E3).

Not here: choosing the target, which is the shell's (reliability.md D2).
"""

from __future__ import annotations

from configsvc.raft import election
from configsvc.raft.messages import Message, MessageType, Role
from configsvc.raft.roles import set_lead
from configsvc.raft.sending import send_append, send_timeout_now
from configsvc.raft.state import NOBODY, Raft


def on_leader(raft: Raft, message: Message) -> None:
    """``message.from_`` is to lead. Asking for the leader itself calls a transfer off."""
    target = message.from_
    if message.reject:
        if target == raft.transferee:
            raft.transferee = NOBODY
        return
    progress = raft.progress.get(target)
    if progress is None or progress.is_learner or target == raft.transferee:
        return
    raft.transferee = NOBODY
    if target == raft.id:
        return
    raft.election_elapsed = 0  # the transfer has one election timeout
    raft.transferee = target
    if progress.match == raft.log.last_index:
        send_timeout_now(raft, target)
    else:
        send_append(raft, target, progress)


def on_follower(raft: Raft, message: Message) -> None:
    if raft.lead != NOBODY and not message.reject:  # a refusal was meant for us, who led then
        raft.send(message._replace(to=raft.lead))


def on_timeout_now(raft: Raft, message: Message) -> None:
    """The leader wants this member in its place; told at once if it must not be."""
    if raft.declines_transfer or not raft.promotable_flag:
        raft.send(Message(MessageType.TRANSFER_LEADER, to=message.from_, reject=True))
        return
    election.start(raft, election.Campaign.TRANSFER)


def forget_leader(raft: Raft) -> None:
    """Let a follower vote for somebody else within its leader's lease.

    Refused in lease-based mode, where that lease is what makes reads safe.
    """
    if raft.role is Role.FOLLOWER and raft.config.read_only != "lease-based":
        set_lead(raft, NOBODY)
