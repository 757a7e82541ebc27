"""Writes on their way from the member that took them to the leader, and back unproposed.

A member sends what waits in batches. The leader answers only for those it never proposed: it hands
them back, to be tried elsewhere, or refuses them for good. Whoever's entry it did propose learns
the outcome from the log.

Not here: who waits (``proposals``), the frames' way (``peering``).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, Protocol

from configsvc import limits
from configsvc.errors import DecodeError, LeaderChangedError, OverloadedError, RequestError
from configsvc.types import NodeId

_HEAD = struct.Struct("<BI")  # flags, bytes of the command
_NEEDS_ID: Final = 1
_URGENT: Final = 2
_ID = struct.Struct("<Q")
_COMMAND_HEAD_BYTES: Final = 9  # the request id's field, which comes first
_REQUEST_ID_TAG: Final = 0x09

# Numbers travel and never change. All of them mean that nothing was proposed.
_REASONS: Final[dict[int, type[RequestError]]] = {1: OverloadedError, 2: LeaderChangedError}


class Queued(NamedTuple):
    """A write that nobody has proposed yet."""

    command: bytes
    needs_id: bool  # the leader adds a random one
    accepted_by: int
    request_id: int
    urgent: bool = False


class Forwarder(Protocol):
    """The way to other members."""

    def forward(self, leader: NodeId, body: bytes) -> bool:
        """Send a batch to the leader; False when it cannot be sent now."""

    def hand_back(self, peer: NodeId, body: bytes) -> None:
        """Tell a member that these of its writes were not proposed and may be tried again."""

    def refuse(self, peer: NodeId, body: bytes) -> None:
        """Tell a member that these of its writes were not proposed, and what to tell callers."""


def encode_batch(queue: Sequence[Queued]) -> tuple[bytes, int]:
    """As many as fit into a frame, at least one, and how many those are."""
    batch: list[bytes] = []
    size, taken = 0, 0
    for queued in queue:
        size += len(queued.command) + _HEAD.size
        if batch and size > limits.PEER_FRAME_BYTES_MAX // 2:
            break
        flags = (_NEEDS_ID if queued.needs_id else 0) | (_URGENT if queued.urgent else 0)
        batch += (_HEAD.pack(flags, len(queued.command)), queued.command)
        taken += 1
    return b"".join(batch), taken


def decode_batch(peer: NodeId, body: bytes) -> list[Queued]:
    """What ``peer`` took and sent here; it answers for its callers.

    Raises:
        DecodeError: the batch is malformed.
    """
    out = []
    at = 0
    while at < len(body):
        if at + _HEAD.size > len(body):
            raise DecodeError("forwarded batch is cut short")
        flags, length = _HEAD.unpack_from(body, at)
        at += _HEAD.size
        if length < _COMMAND_HEAD_BYTES or length > limits.REQUEST_BYTES_MAX + 64 * limits.KIB:
            raise DecodeError("forwarded command of impossible length")
        command = body[at : at + length]
        if len(command) != length or command[0] != _REQUEST_ID_TAG:
            raise DecodeError("forwarded batch is cut short")
        at += length
        request_id = int.from_bytes(command[1:_COMMAND_HEAD_BYTES], "little")
        needs_id, urgent = bool(flags & _NEEDS_ID), bool(flags & _URGENT)
        out.append(Queued(command, needs_id, peer, request_id, urgent))
    return out


def by_member(foreign: Iterable[Queued]) -> dict[NodeId, bytes]:
    """Ids of the writes of each member, in ascending order of the members."""
    ids: dict[NodeId, list[bytes]] = {}
    for queued in foreign:
        ids.setdefault(NodeId(queued.accepted_by), []).append(_ID.pack(queued.request_id))
    return {who: b"".join(ids[who]) for who in sorted(ids)}


def decode_ids(body: bytes) -> list[int]:
    """Request ids that came back; a cut one at the end is left out."""
    return [found for (found,) in _ID.iter_unpack(body[: len(body) - len(body) % _ID.size])]


def encode_refusal(error: RequestError, ids: bytes) -> bytes:
    """One of ``_REASONS``, and whose writes are refused for it."""
    [code] = [number for number, kind in _REASONS.items() if type(error) is kind]
    return bytes((code,)) + ids


def decode_refusal(body: bytes) -> tuple[RequestError, list[int]]:
    """What to tell whom.

    Raises:
        DecodeError: there is no reason in it.
    """
    if not body:
        raise DecodeError("refusal of forwarded writes without a reason")
    return _REASONS.get(body[0], OverloadedError)(), decode_ids(body[1:])
