"""Bytes of the write-ahead log: segment headers and frames. Encoding and judging, no files.

A *segment* starts with a header block of 4 KiB that holds two copies of the header, then frames on
4 KiB boundaries. A *frame* is one group commit: a header with the full hard state, then the sealed
records. CRCs are independent of one another, so frames behind a bad one are still recognised;
"a later valid frame exists" proves corruption, its absence means a torn tail.

Source: reliability.md 5.10. Numbers are little-endian.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

import google_crc32c

from configsvc.errors import DecodeError, ensure
from configsvc.raft.messages import HardState
from configsvc.types import LogIndex, NodeId, Term

BLOCK: Final = 4096
FORMAT: Final = 1
MIN_READER: Final = 1
SEGMENT_MAGIC: Final = b"CFGSVCWL"
FRAME_MAGIC: Final = 0x46574743  # "CGWF"
HEADER_COPY: Final = 2048
SALT_BYTES: Final = 16
WRAPPED_KEY_BYTES: Final = 60  # nonce, 32 key bytes, tag
KEY_ID_BYTES: Final = 16
FLAG_INSECURE: Final = 1
FLAG_REPLACES: Final = 2  # repeats the segment before it, which is void from here on (W7)

KIND_ENTRIES: Final = 1
KIND_INSTALLED: Final = 2
KIND_START: Final = 3
KIND_CLEAN_STOP: Final = 4
KIND_SEAL: Final = 5
KINDS: Final = frozenset({KIND_ENTRIES, KIND_INSTALLED, KIND_START, KIND_CLEAN_STOP, KIND_SEAL})

# magic, format, reader, flags, cluster, member, store id, incarnation, segment, salt, last frame,
# last CRC, term, vote, commit, first index, term before, key id, wrapped key
_SEGMENT = struct.Struct("<8sHHIQQ16sQQ16sQIQQQQQ16s60s")
# magic, format, kind, frame number, payload length, records, first, last, term, vote, commit,
# CRC of the previous frame, payload CRC
_FRAME = struct.Struct("<IHHQIIQQQQQII")
FRAME_HEAD_BYTES: Final = _FRAME.size + 4


class SegmentHeader(NamedTuple):
    """What a segment says about itself and about where the log stood when it was begun."""

    flags: int
    cluster_id: int
    member_id: int
    store_id: bytes
    incarnation: int
    segment: int
    salt: bytes
    last_frame: int  # number of the newest frame before this segment
    last_crc: int
    hard_state: HardState
    first_index: int  # index that the next entry of the log would have had
    term_before: int
    key_id: bytes
    wrapped_key: bytes


class FrameHeader(NamedTuple):
    kind: int
    number: int
    payload_bytes: int  # sealed
    records: int
    first_index: int
    last_index: int  # first_index - 1 when there are no records
    hard_state: HardState
    previous_crc: int
    payload_crc: int


def crc(data: bytes, seed: bytes = b"") -> int:
    """CRC32C of ``seed`` followed by ``data``."""
    return (
        int(google_crc32c.extend(google_crc32c.value(seed), data))
        if seed
        else int(google_crc32c.value(data))
    )


def encode_segment_header(h: SegmentHeader) -> bytes:
    """One block: the header twice, each copy with its own CRC."""
    hard = h.hard_state
    body = _SEGMENT.pack(
        SEGMENT_MAGIC,
        FORMAT,
        MIN_READER,
        h.flags,
        h.cluster_id,
        h.member_id,
        h.store_id,
        h.incarnation,
        h.segment,
        h.salt,
        h.last_frame,
        h.last_crc,
        hard.term,
        hard.vote,
        hard.commit,
        h.first_index,
        h.term_before,
        h.key_id,
        h.wrapped_key,
    )
    copy = (body + crc(body).to_bytes(4, "little")).ljust(HEADER_COPY, b"\0")
    return copy + copy


class TooNewError(DecodeError):
    """The format needs a newer reader."""


def decode_segment_header(block: bytes) -> SegmentHeader:
    """The header from whichever copy is good.

    Raises:
        TooNewError: written by a newer program.
        DecodeError: neither copy is good.
    """
    for at in (0, HEADER_COPY):
        body = block[at : at + _SEGMENT.size]
        stored = block[at + _SEGMENT.size : at + _SEGMENT.size + 4]
        if len(stored) != 4 or crc(body).to_bytes(4, "little") != stored:
            continue
        f = _SEGMENT.unpack(body)
        if f[0] != SEGMENT_MAGIC:
            continue
        if f[2] > FORMAT:
            raise TooNewError(f"segment needs a reader of version {f[2]}")
        hard = HardState(Term(f[12]), NodeId(f[13]), LogIndex(f[14]))
        return SegmentHeader(*f[3:12], hard, *f[15:])  # type: ignore[call-arg]
    raise DecodeError("both copies of the segment header are bad")


def frame_aad(kind: int, number: int, records: int, first: int, hard: HardState) -> bytes:
    """What the payload's seal binds: the header without lengths and CRCs."""
    return struct.pack("<HHQIQQQQ", FORMAT, kind, number, records, first, *hard)


def encode_frame(
    kind: int,
    number: int,
    records: int,
    first_index: int,
    hard: HardState,
    sealed: bytes,
    previous_crc: int,
    salt: bytes,
) -> tuple[bytes, int]:
    """(whole blocks, CRC of the header): the bytes of one frame."""
    body = _FRAME.pack(
        FRAME_MAGIC,
        FORMAT,
        kind,
        number,
        len(sealed),
        records,
        first_index,
        first_index + records - 1 if first_index else 0,
        hard.term,
        hard.vote,
        hard.commit,
        previous_crc,
        crc(sealed),
    )
    head_crc = crc(body, salt)
    size = FRAME_HEAD_BYTES + len(sealed)
    padding = -size % BLOCK
    return b"".join((body, head_crc.to_bytes(4, "little"), sealed, bytes(padding))), head_crc


def frame_blocks(payload_bytes: int) -> int:
    """Blocks that a frame with so many sealed bytes takes."""
    return -(-(FRAME_HEAD_BYTES + payload_bytes) // BLOCK)


def decode_frame_header(head: bytes, salt: bytes) -> tuple[FrameHeader, int] | None:
    """(header, its CRC) if ``head`` begins a frame of this segment; None otherwise.

    Raises:
        TooNewError: a good frame of a format or kind this program does not know.
    """
    if len(head) < FRAME_HEAD_BYTES:
        return None
    body = head[: _FRAME.size]
    stored = int.from_bytes(head[_FRAME.size : FRAME_HEAD_BYTES], "little")
    if int.from_bytes(body[:4], "little") != FRAME_MAGIC or crc(body, salt) != stored:
        return None
    f = _FRAME.unpack(body)
    if f[1] > FORMAT or f[2] not in KINDS:
        raise TooNewError(f"frame {f[3]} is of a newer format")
    hard = HardState(Term(f[8]), NodeId(f[9]), LogIndex(f[10]))
    header = FrameHeader(f[2], f[3], f[4], f[5], f[6], f[7], hard, f[11], f[12])
    ensure(len(head) >= FRAME_HEAD_BYTES, "checked above")
    return header, stored
