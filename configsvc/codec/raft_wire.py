"""Raft messages on the peer link: a fixed head, then context, entries and snapshot.

Strict: every length is judged against the bytes that are there before anything is kept, an
unknown type is an error of the sender. Entry payloads are the proposals' bytes, unchanged.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from configsvc.codec.confstate import decode_conf_state, encode_conf_state
from configsvc.codec.records import RecordCache, decode_entries
from configsvc.errors import DecodeError
from configsvc.raft.messages import Message, MessageType, Snapshot
from configsvc.types import LogIndex, NodeId, Term

# type, flags, to, from, term, log term, index, commit, vote, reject hint, read round,
# context length, entry count, entry bytes, snapshot bytes
_HEAD = struct.Struct("<BBQQQQQQQQQHIII")
_SNAPSHOT = struct.Struct("<QQHI")
_FLAG_REJECT: Final = 1
_FLAG_SNAPSHOT: Final = 2
CONTEXT_BYTES_MAX: Final = 256
TERM_LEAP_MAX: Final = 1 << 32
MESSAGES_MAX: Final = 4_096  # in one frame
_REMOTE: Final = frozenset(
    {
        MessageType.APP,
        MessageType.APP_RESP,
        MessageType.VOTE,
        MessageType.VOTE_RESP,
        MessageType.SNAP,
        MessageType.HEARTBEAT,
        MessageType.HEARTBEAT_RESP,
        MessageType.TIMEOUT_NOW,
        MessageType.TRANSFER_LEADER,
        MessageType.READ_INDEX,
        MessageType.READ_INDEX_RESP,
        MessageType.PRE_VOTE,
        MessageType.PRE_VOTE_RESP,
    }
)


def encode_messages(messages: Iterable[Message], records: RecordCache) -> bytes:
    """The body of one frame."""
    parts: list[bytes] = []
    for m in messages:
        entries = records.encode(m.entries) if m.entries else b""
        snapshot = _encode_snapshot(m.snapshot) if m.snapshot is not None else b""
        flags = (_FLAG_REJECT if m.reject else 0) | (_FLAG_SNAPSHOT if snapshot else 0)
        parts.append(
            _HEAD.pack(
                m.type,
                flags,
                m.to,
                m.from_,
                m.term,
                m.log_term,
                m.index,
                m.commit,
                m.vote,
                m.reject_hint,
                m.read_round,
                len(m.context),
                len(m.entries),
                len(entries),
                len(snapshot),
            )
        )
        parts += (m.context, entries, snapshot)
    return b"".join(parts)


def decode_messages(body: bytes) -> list[Message]:
    """Messages of one frame.

    Raises:
        DecodeError: anything is off; the connection is closed.
    """
    out: list[Message] = []
    at, size = 0, len(body)
    while at < size:
        if at + _HEAD.size > size or len(out) >= MESSAGES_MAX:
            raise DecodeError("raft message is cut short")
        f = _HEAD.unpack_from(body, at)
        at += _HEAD.size
        context_bytes, count, entry_bytes, snapshot_bytes = f[11:]
        end = at + context_bytes + entry_bytes + snapshot_bytes
        if end > size or context_bytes > CONTEXT_BYTES_MAX:
            raise DecodeError("raft message is cut short")
        out.append(_message(f, body, at, count))
        at = end
    return out


def _message(f: tuple[int, ...], body: bytes, at: int, count: int) -> Message:
    context_bytes, _, entry_bytes, snapshot_bytes = f[11:]
    try:
        kind = MessageType(f[0])
    except ValueError:
        raise DecodeError("raft message of an unknown type") from None
    if kind not in _REMOTE or f[1] & ~3:
        raise DecodeError("raft message that does not travel")
    context = body[at : at + context_bytes]
    at += context_bytes
    entries = ()
    if count or entry_bytes:
        if kind is not MessageType.APP:
            raise DecodeError("entries in a message that has none")
        entries = decode_entries(f[6] + 1, body[at : at + entry_bytes], count)  # type: ignore[assignment]
    at += entry_bytes
    snapshot = None
    if f[1] & _FLAG_SNAPSHOT:
        snapshot = _decode_snapshot(body[at : at + snapshot_bytes])
    elif snapshot_bytes:
        raise DecodeError("snapshot bytes without a snapshot")
    return Message(
        kind,
        NodeId(f[2]),
        NodeId(f[3]),
        Term(f[4]),
        Term(f[5]),
        LogIndex(f[6]),
        entries,
        LogIndex(f[7]),
        NodeId(f[8]),
        bool(f[1] & _FLAG_REJECT),
        LogIndex(f[9]),
        snapshot,
        context,
        f[10],
    )


def _encode_snapshot(s: Snapshot) -> bytes:
    conf = encode_conf_state(s.conf_state)
    return _SNAPSHOT.pack(s.index, s.term, len(conf), len(s.data)) + conf + s.data


def _decode_snapshot(data: bytes) -> Snapshot:
    if len(data) < _SNAPSHOT.size:
        raise DecodeError("snapshot is cut short")
    index, term, conf_bytes, data_bytes = _SNAPSHOT.unpack_from(data)
    if len(data) != _SNAPSHOT.size + conf_bytes + data_bytes:
        raise DecodeError("snapshot of the wrong length")
    conf = decode_conf_state(data[_SNAPSHOT.size : _SNAPSHOT.size + conf_bytes])
    return Snapshot(LogIndex(index), Term(term), conf, data[_SNAPSHOT.size + conf_bytes :])
