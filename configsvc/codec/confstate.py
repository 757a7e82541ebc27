"""Configurations as bytes: in SQL's meta row, in install frames, in snapshots on the peer link."""

from __future__ import annotations

import struct

from configsvc.errors import DecodeError
from configsvc.raft.messages import ConfState
from configsvc.types import NodeId

FORMAT = 1
MEMBERS_MAX = 1_000
_HEAD = struct.Struct("<BB4H")


def encode_conf_state(conf: ConfState) -> bytes:
    """Format, auto-leave, four counts, then the ids."""
    groups = (conf.voters, conf.voters_outgoing, conf.learners, conf.learners_next)
    ids = [i for group in groups for i in group]
    head = _HEAD.pack(FORMAT, conf.auto_leave, *(len(g) for g in groups))
    return head + struct.pack(f"<{len(ids)}Q", *ids)


def decode_conf_state(data: bytes) -> ConfState:
    """Raises ``DecodeError``."""
    if len(data) < _HEAD.size:
        raise DecodeError("configuration is cut short")
    form, auto_leave, *counts = _HEAD.unpack_from(data)
    total = sum(counts)
    if form != FORMAT or auto_leave > 1 or total > MEMBERS_MAX:
        raise DecodeError("configuration of an unknown format")
    if len(data) != _HEAD.size + 8 * total:
        raise DecodeError("configuration of the wrong length")
    ids = [NodeId(i) for i in struct.unpack_from(f"<{total}Q", data, _HEAD.size)]
    groups = []
    for count in counts:
        groups.append(tuple(ids[:count]))
        ids = ids[count:]
    return ConfState(groups[0], groups[1], groups[2], groups[3], bool(auto_leave))
