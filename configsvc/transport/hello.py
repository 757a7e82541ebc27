"""The first frame of a peer connection: who speaks, of which cluster, since which start (L3).

The dialler speaks first; the other side answers with its own hello or with a refusal. Bytes behind
what this version knows are ignored, so a later one may add fields; a layout that older readers
must not read raises its minimum reader instead (V1).

Not here: whether a hello is acceptable (``transport.admission``).
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from configsvc.errors import DecodeError

MAGIC: Final = b"CFGPEER1"
VERSION: Final = 1
MIN_READER: Final = 1
CONTROL: Final = 0  # votes, heartbeats, acks, reads, calls
BULK: Final = 1  # appends, forwarded writes, installs
LANES: Final = (CONTROL, BULK)
STORE_ID_BYTES: Final = 16
_HELLO = struct.Struct("<8sHHBBQQQ16sQIQQB")
_TEXT_MAX: Final = 64
_REFUSAL = struct.Struct("<BB")
_REFUSAL_TEXT_MAX: Final = 200


class Hello(NamedTuple):
    """What each side says first."""

    lane: int
    insecure: bool  # born under --insecure-dev (DEV-3)
    cluster_id: int
    member_id: int
    to: int  # whom the speaker means to reach; 0: whoever it is
    store_id: bytes
    incarnation: int  # grows at each start of the speaker
    epoch: int  # grows with each restore
    term: int
    last_index: int  # last durable entry
    version: str  # of the program, for people


class Refusal(NamedTuple):
    """Why a connection is not accepted, told to the other side.

    ``code`` is the exit code for the side at fault (``errors.ExitCode``), 0 when nobody must end.
    The text is a constant of the refusing side.
    """

    code: int
    text: str


def encode_hello(h: Hello) -> bytes:
    """The body of a hello frame."""
    version = h.version.encode()[:_TEXT_MAX]
    head = _HELLO.pack(
        MAGIC,
        VERSION,
        MIN_READER,
        h.lane,
        h.insecure,
        h.cluster_id,
        h.member_id,
        h.to,
        h.store_id,
        h.incarnation,
        h.epoch,
        h.term,
        h.last_index,
        len(version),
    )
    return head + version


def decode_hello(body: bytes) -> Hello:
    """What ``encode_hello`` or a later version of it made.

    Raises:
        DecodeError: another protocol, malformed, or for newer readers only.
    """
    if len(body) < _HELLO.size:
        raise DecodeError("hello is cut short")
    magic, _, reader, lane, insecure, *rest, text_bytes = _HELLO.unpack_from(body)
    if magic != MAGIC or lane not in LANES or insecure > 1:
        raise DecodeError("hello of another protocol")
    if reader > VERSION:
        raise DecodeError("the peer needs a newer reader")
    end = _HELLO.size + text_bytes
    if text_bytes > _TEXT_MAX or len(body) < end:
        raise DecodeError("hello is cut short")
    try:
        version = body[_HELLO.size : end].decode("ascii")
    except UnicodeDecodeError:
        raise DecodeError("hello with an odd version") from None
    if not version.isprintable():
        raise DecodeError("hello with an odd version")
    return Hello._make((lane, bool(insecure), *rest, version))


def encode_refusal(refusal: Refusal) -> bytes:
    """The body of a refusal frame."""
    text = refusal.text.encode()[:_REFUSAL_TEXT_MAX]
    return _REFUSAL.pack(refusal.code, len(text)) + text


def decode_refusal(body: bytes) -> Refusal:
    """What ``encode_refusal`` made; the text may hold nothing that upsets a log.

    Raises:
        DecodeError: malformed.
    """
    if len(body) < _REFUSAL.size:
        raise DecodeError("refusal is cut short")
    code, length = _REFUSAL.unpack_from(body)
    text = body[_REFUSAL.size :].decode("utf-8", "replace")
    if len(body) != _REFUSAL.size + length or not text.isprintable():
        raise DecodeError("refusal is malformed")
    return Refusal(code, text)
