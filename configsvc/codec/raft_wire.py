"""Raft messages on the peer link: a fixed head, then context, entries and snapshot.

Strict: every length is judged against the bytes that are there before anything is kept; a kind
that never travels, unknown flags and entries where none belong are errors of the sender. A kind
from a later version is skipped and counted (C11). Entry payloads are the proposals' bytes.

Not here: frames and connections (``transport``), entries as bytes (``codec.records``).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from configsvc.codec.confstate import decode_conf_state, encode_conf_state
from configsvc.codec.records import RecordCache, decode_entries
from configsvc.errors import DecodeError
from configsvc.limits import (
    PEER_CONTEXT_BYTES_MAX,
    PEER_MESSAGES_MAX,
    PEER_SNAPSHOT_NOTE_BYTES_MAX,
)
from configsvc.raft.messages import Entry, Message, MessageType, Snapshot
from configsvc.types import LogIndex, Term

# type, flags, to, from, term, log term, index, commit, vote, reject hint, read round,
# context length, entry count, entry bytes, snapshot bytes
_HEAD = struct.Struct("<BBQQQQQQQQQHIII")
MESSAGE_HEAD_BYTES: Final = _HEAD.size
_SNAPSHOT = struct.Struct("<QQHI")
_FLAG_REJECT: Final = 1
_FLAG_SNAPSHOT: Final = 2
_FLAGS: Final = _FLAG_REJECT | _FLAG_SNAPSHOT
_new = tuple.__new__  # skips the Python frame of a named tuple's constructor
_KINDS: Final = {int(kind): kind for kind in MessageType}
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


class Decoded(NamedTuple):
    """One frame's worth of messages, and how many of unknown kinds were skipped."""

    messages: list[Message]
    unknown: int


def encode_messages(messages: Iterable[Message], records: RecordCache) -> bytes:
    """The body of one frame; entries are encoded once per batch, whoever gets them."""
    parts: list[bytes] = []
    for message in messages:
        encode_parts(message, records.encode(message.entries), parts)
    return b"".join(parts)


def encode_parts(m: Message, entries: bytes, parts: list[bytes]) -> int:
    """Append a message to ``parts``; ``entries`` are its entries, encoded. Returns its bytes."""
    snapshot = _encode_snapshot(m.snapshot) if m.snapshot is not None else b""
    flags = (_FLAG_REJECT if m.reject else 0) | (_FLAG_SNAPSHOT if snapshot else 0)
    context = m.context
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
            len(context),
            len(m.entries),
            len(entries),
            len(snapshot),
        )
    )
    if context:
        parts.append(context)
    if entries:
        parts.append(entries)
    if snapshot:
        parts.append(snapshot)
    return MESSAGE_HEAD_BYTES + len(context) + len(entries) + len(snapshot)


def decode_messages(body: bytes) -> Decoded:
    """Messages of one frame.

    Raises:
        DecodeError: anything is off; the connection is closed.
    """
    out: list[Message] = []
    unknown = at = 0
    size = len(body)
    while at < size:
        if at + MESSAGE_HEAD_BYTES > size or len(out) >= PEER_MESSAGES_MAX:
            raise DecodeError("raft message is cut short")
        fields = _HEAD.unpack_from(body, at)
        at += MESSAGE_HEAD_BYTES
        context_bytes, _, entry_bytes, snapshot_bytes = fields[11:]
        end = at + context_bytes + entry_bytes + snapshot_bytes
        if end > size:
            raise DecodeError("raft message is cut short")
        if context_bytes > PEER_CONTEXT_BYTES_MAX or snapshot_bytes > PEER_SNAPSHOT_NOTE_BYTES_MAX:
            raise DecodeError("raft message with an overlong part")
        kind = _KINDS.get(fields[0])
        if kind is None:
            unknown += 1
        else:
            out.append(_message(kind, fields, body, at))
        at = end
    return Decoded(out, unknown)


def _message(kind: MessageType, f: tuple[int, ...], body: bytes, at: int) -> Message:
    flags = f[1]
    context_bytes, count, entry_bytes, snapshot_bytes = f[11:]
    if kind not in _REMOTE or flags & ~_FLAGS:
        raise DecodeError("raft message that does not travel")
    context = body[at : at + context_bytes]
    at += context_bytes
    entries: tuple[Entry, ...] = ()
    if count or entry_bytes:
        if kind is not MessageType.APP:
            raise DecodeError("entries in a message that has none")
        entries = decode_entries(f[6] + 1, memoryview(body)[at : at + entry_bytes], count)
    at += entry_bytes
    snapshot = None
    if flags & _FLAG_SNAPSHOT:
        if kind is not MessageType.SNAP:
            raise DecodeError("snapshot in a message that has none")
        snapshot = _decode_snapshot(body[at : at + snapshot_bytes])
    elif snapshot_bytes:
        raise DecodeError("snapshot bytes without a snapshot")
    reject = bool(flags & _FLAG_REJECT)
    # to, from, term, log term, index; commit, vote; reject hint; read round
    return _new(
        Message,
        (kind, *f[2:7], entries, f[7], f[8], reject, f[9], snapshot, context, f[10], ()),
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
