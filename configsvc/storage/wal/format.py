"""Bytes of the write-ahead log: segment headers and frames. Encoding and decoding, no files.

A *segment* begins with two blocks of 4 KiB, each a copy of its header, so that one bad page never
takes both. Frames follow on 4 KiB boundaries: a write never touches a block that holds older synced
data. A *frame* is one group commit: a header with the whole hard state, then the sealed records.

  * CRCs are independent of one another: frames behind a bad one are still recognised.
  * A frame header's CRC is seeded with the segment's salt: what a recycled file held before its
    new life is never taken for a frame.
  * The frame header without its CRCs is associated data of the seal: a forged header with right
    CRCs does not open.

Numbers are little-endian. What recovery concludes from all this is ``recovery``'s.
Source: reliability.md 5.10, W1, W2.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

import google_crc32c

from configsvc.errors import DecodeError
from configsvc.raft.messages import HardState
from configsvc.storage.seal.frames import FrameSealer
from configsvc.types import LogIndex, NodeId, Term

BLOCK: Final = 4096
FIRST_FRAME: Final = 2 * BLOCK  # offset of the first frame in a segment
FORMAT: Final = 1
READER_MIN: Final = 1  # oldest program that understands what we write
SALT_BYTES: Final = 16
STORE_ID_BYTES: Final = 16
KEY_ID_BYTES: Final = 16
WRAPPED_KEY_BYTES: Final = 60  # nonce, 32 key bytes, tag
SEAL_BYTES: Final = 16  # what sealing adds to a payload
SEGMENT_MAGIC: Final = b"CFGSVCWL"
FRAME_MAGIC: Final = 0x46574743  # "CGWF"

FLAG_INSECURE: Final = 1  # born under --insecure-dev, marked for ever
FLAG_RECYCLED: Final = 2  # the file had another life: bytes behind the end mean nothing

# magic, format, oldest reader, flags, cluster, member, store id, incarnation, segment, salt,
# last frame, its CRC, term, vote, commit, first index, term before it, generation
_SEGMENT: Final = struct.Struct("<8sHHIQQ16sQQ16sQIQQQQQQ")
_KEY: Final = struct.Struct(f"<{KEY_ID_BYTES}s{WRAPPED_KEY_BYTES}s")
# magic, format, kind, number, payload length, records, first, last, term, vote, commit
_FRAME: Final = struct.Struct("<IHHQIIQQQQQ")
_CRCS: Final = struct.Struct("<III")  # of the previous frame's header, the payload, this header
FRAME_HEAD_BYTES: Final = _FRAME.size + _CRCS.size


class FrameKind(IntEnum):
    """Numbers stand on disks and never change."""

    ENTRIES = 1  # entries, or none: then only the hard state is new
    INSTALLED = 2  # the log before is void: a snapshot took its place
    START = 3
    CLEAN_STOP = 4
    SEAL = 5  # empty; proves that what stands before it had been synced (W6)
    TWIN = 6  # repeats the hard state of the frame before it, in the same write (W6)


_KINDS: Final = frozenset(int(kind) for kind in FrameKind)


class TooNewError(DecodeError):
    """Only a newer program may read this."""


class SegmentHeader(NamedTuple):
    """What a segment says about itself, and where the log stood when it was begun."""

    flags: int
    cluster_id: int
    member_id: int
    store_id: bytes
    incarnation: int
    segment: int
    salt: bytes
    last_frame: int  # number of the newest frame before this segment; 0: none
    last_crc: int  # that frame's header CRC
    hard_state: HardState
    first_index: int  # index that the next entry would have had
    term_before: int  # term of the entry before that; 0: none
    generation: int  # of the history, as the last INSTALLED frame before this segment named it
    key_id: bytes
    wrapped_key: bytes


class FrameHeader(NamedTuple):
    kind: int
    number: int  # grows by one from frame to frame, over all segments
    payload_bytes: int  # sealed
    records: int
    first_index: int  # 0 without records
    last_index: int
    hard_state: HardState
    previous_crc: int
    payload_crc: int
    crc: int
    sealed_under: bytes  # associated data

    @property
    def blocks(self) -> int:
        """Blocks that the whole frame takes."""
        return frame_blocks(self.payload_bytes)


def frame_blocks(payload_bytes: int) -> int:
    """Blocks that a frame with so many sealed bytes takes."""
    return -(-(FRAME_HEAD_BYTES + payload_bytes) // BLOCK)


# --- segments ------------------------------------------------------------------------------------


def wrapping_context(header: SegmentHeader) -> bytes:
    """What the wrapped key is bound to: all of the header but the key's own fields."""
    hard = header.hard_state
    return _SEGMENT.pack(
        SEGMENT_MAGIC,
        FORMAT,
        READER_MIN,
        header.flags,
        header.cluster_id,
        header.member_id,
        header.store_id,
        header.incarnation,
        header.segment,
        header.salt,
        header.last_frame,
        header.last_crc,
        hard.term,
        hard.vote,
        hard.commit,
        header.first_index,
        header.term_before,
        header.generation,
    )


def encode_segment_header(header: SegmentHeader) -> bytes:
    """One copy: a block whose last four bytes are its CRC."""
    body = wrapping_context(header) + _KEY.pack(header.key_id, header.wrapped_key)
    body = body.ljust(BLOCK - 4, b"\0")
    return body + int(google_crc32c.value(body)).to_bytes(4, "little")


def decode_segment_header(block: bytes) -> SegmentHeader | None:
    """The header in one copy; None when the copy is damaged.

    Raises:
        TooNewError: the copy is good and needs a newer program.
    """
    body, stored = block[: BLOCK - 4], block[BLOCK - 4 : BLOCK]
    if len(stored) != 4 or google_crc32c.value(body) != int.from_bytes(stored, "little"):
        return None
    fields = _SEGMENT.unpack_from(body)
    if fields[0] != SEGMENT_MAGIC:
        return None
    if fields[2] > FORMAT:
        raise TooNewError(f"log format {fields[1]} needs a reader of format {fields[2]} or newer")
    hard = HardState(Term(fields[12]), NodeId(fields[13]), LogIndex(fields[14]))
    key_id, wrapped = _KEY.unpack_from(body, _SEGMENT.size)
    return SegmentHeader._make((*fields[3:12], hard, *fields[15:], key_id, wrapped))


# --- frames --------------------------------------------------------------------------------------


class FrameEncoder:
    """Encodes the frames of one segment, in order: numbers them, chains and seals them."""

    __slots__ = ("_salt_crc", "_sealer", "last_crc", "last_number")

    def __init__(self, sealer: FrameSealer, salt: bytes, last_number: int, last_crc: int) -> None:
        self._sealer = sealer
        self._salt_crc: int = google_crc32c.value(salt)
        self.last_number = last_number
        self.last_crc = last_crc

    def encode(
        self, kind: int, hard_state: HardState, first_index: int, count: int, payload: bytes
    ) -> bytes:
        """The next frame, whole blocks. ``first_index`` is 0 when ``count`` is."""
        number = self.last_number + 1
        head = _FRAME.pack(
            FRAME_MAGIC,
            FORMAT,
            kind,
            number,
            len(payload) + SEAL_BYTES,
            count,
            first_index,
            first_index + count - 1 if count else 0,
            hard_state.term,
            hard_state.vote,
            hard_state.commit,
        )
        sealed = self._sealer.seal(number, head, payload)
        chained = _CRCS.pack(self.last_crc, google_crc32c.value(sealed), 0)[:8]
        crc: int = google_crc32c.extend(google_crc32c.extend(self._salt_crc, head), chained)
        self.last_number = number
        self.last_crc = crc
        padding = bytes(-(FRAME_HEAD_BYTES + len(sealed)) % BLOCK)
        return b"".join((head, chained, crc.to_bytes(4, "little"), sealed, padding))


class FrameDecoder:
    """Recognises and opens the frames of one segment, in any order."""

    __slots__ = ("_salt_crc", "_sealer")

    def __init__(self, sealer: FrameSealer | None, salt: bytes) -> None:
        """``sealer`` None: frames are recognised and checked, not opened (scrubbing)."""
        self._sealer = sealer
        self._salt_crc: int = google_crc32c.value(salt)

    def header(self, data: bytes, offset: int) -> FrameHeader | None:
        """The header of the frame at ``offset``; None: no frame of this segment begins there.

        Raises:
            TooNewError: a frame of a kind that this program does not know.
        """
        head = data[offset : offset + FRAME_HEAD_BYTES]
        if len(head) < FRAME_HEAD_BYTES:
            return None
        f = _FRAME.unpack_from(head)
        if f[0] != FRAME_MAGIC:
            return None
        previous_crc, payload_crc, stored = _CRCS.unpack_from(head, _FRAME.size)
        if google_crc32c.extend(self._salt_crc, head[:-4]) != stored:
            return None
        if f[1] > FORMAT or f[2] not in _KINDS:
            raise TooNewError(f"frame {f[3]} is of format {f[1]}, kind {f[2]}")
        hard = HardState(Term(f[8]), NodeId(f[9]), LogIndex(f[10]))
        seal = bytes(head[: _FRAME.size])
        return FrameHeader._make((*f[2:8], hard, previous_crc, payload_crc, stored, seal))

    def sealed_payload(self, header: FrameHeader, data: bytes, offset: int) -> bytes | None:
        """The sealed bytes of the frame at ``offset``; None when they are cut short or damaged."""
        start = offset + FRAME_HEAD_BYTES
        if header.payload_bytes < SEAL_BYTES or start + header.payload_bytes > len(data):
            return None  # judged before anything is allocated (N12)
        sealed = data[start : start + header.payload_bytes]
        return sealed if google_crc32c.value(sealed) == header.payload_crc else None

    def open(self, header: FrameHeader, sealed: bytes) -> bytes:
        """The payload.

        Raises:
            SealBroken: header or payload are not what was written, although the CRCs are right.
        """
        if self._sealer is None:
            raise ValueError("a decoder without a key opens nothing")
        return self._sealer.open(header.number, header.sealed_under, sealed)


# --- the payload of INSTALLED --------------------------------------------------------------------

_INSTALLED: Final = struct.Struct("<QQQ")


class Installed(NamedTuple):
    """A snapshot that took the place of the log up to ``index``.

    ``index`` is 0 and ``conf_state`` empty when compaction took the frame: the segment headers
    remember the generation only.
    """

    index: int  # type: ignore[assignment]
    term: int
    conf_state: bytes  # as the runtime encodes it
    generation: int  # of the history that holds the snapshot


def encode_installed(installed: Installed) -> bytes:
    """Payload of an INSTALLED frame."""
    head = _INSTALLED.pack(installed.index, installed.term, installed.generation)
    return head + installed.conf_state


def decode_installed(payload: bytes) -> Installed:
    """What ``encode_installed`` made.

    Raises:
        DecodeError: too short.
    """
    if len(payload) < _INSTALLED.size:
        raise DecodeError("INSTALLED payload is cut short")
    index, term, generation = _INSTALLED.unpack_from(payload)
    return Installed(index, term, payload[_INSTALLED.size :], generation)
