"""Membership changes: the operation's bytes, and the core's change that carries them."""

from __future__ import annotations

from typing import Final

from configsvc.apply.commands import MemberChangeOp
from configsvc.proto import command_pb2
from configsvc.raft.messages import (
    ConfChange,
    ConfChangeSingle,
    ConfChangeType,
)
from configsvc.types import NodeId

_ACTIONS: Final = {
    "promote": ConfChangeType.ADD_NODE,
    "remove": ConfChangeType.REMOVE_NODE,
    "update": ConfChangeType.UPDATE_NODE,
}


def encode_op(op: MemberChangeOp) -> bytes:
    """``MemberChange``."""
    return command_pb2.MemberChange(
        action=op.action, member=op.member, peer_urls=op.peer_urls, is_learner=op.is_learner
    ).SerializeToString()


def core_change(op: MemberChangeOp, command: bytes) -> ConfChange:
    """What the core is told; the stamped command rides along and is applied with it."""
    kind = _ACTIONS.get(op.action)
    if kind is None:
        kind = ConfChangeType.ADD_LEARNER if op.is_learner else ConfChangeType.ADD_NODE
    return ConfChange((ConfChangeSingle(kind, NodeId(op.member)),), context=command)
