"""Segment files: their names and headers, and one file read as far as it can be trusted."""

from __future__ import annotations

import re
from typing import Final, NamedTuple, NoReturn

from configsvc import limits
from configsvc.errors import ExitCode, FatalError
from configsvc.raft.messages import HardState
from configsvc.storage.disk import Disk
from configsvc.storage.seal.errors import SealBroken
from configsvc.storage.seal.frames import FrameSealer
from configsvc.storage.wal.format import (
    BLOCK,
    FIRST_FRAME,
    FLAG_RECYCLED,
    FrameDecoder,
    FrameHeader,
    FrameKind,
    SegmentHeader,
    TooNewError,
    decode_segment_header,
    frame_blocks,
)

SPARE_NAME: Final = "spare.tmp"  # a whole file, ready to become a segment
MAKING_NAME: Final = "making.tmp"  # one that is being filled with zeros
REPLACE: Final = "replace this member; keep the directory for inspection"
_NAME: Final = re.compile(r"segment-([0-9a-f]{16})\.wal")


class Frame(NamedTuple):
    """A frame that opened."""

    header: FrameHeader
    payload: bytes
    offset: int


class Tail(NamedTuple):
    """What stands where the next frame belongs, and is none."""

    offset: int
    bytes: int  # 0: nothing that was ours
    reason: str
    twin: HardState | None  # of a twin behind it, whose hard state is safe to keep (W6)


class Segment(NamedTuple):
    """One segment as found."""

    name: str
    size: int
    header: SegmentHeader
    frames: list[Frame]
    tail: Tail

    @property
    def last_frame(self) -> int:
        """Number of the newest frame in or before this segment."""
        return self.frames[-1].header.number if self.frames else self.header.last_frame

    @property
    def last_crc(self) -> int:
        """Its header's CRC."""
        return self.frames[-1].header.crc if self.frames else self.header.last_crc


def segment_name(number: int) -> str:
    return f"segment-{number:016x}.wal"


def segment_numbers(disk: Disk) -> list[int]:
    """Of all segments in the directory, ascending."""
    matches = (_NAME.fullmatch(name) for name in disk.names())
    return sorted(int(match[1], 16) for match in matches if match)


def damaged(name: str, offset: int, what: str) -> NoReturn:
    """Refuse a log that is not what was written.

    Raises:
        FatalError: always; exit 82.
    """
    raise FatalError(ExitCode.LOG_DAMAGED, f"log damaged: {name}, offset {offset}: {what}", REPLACE)


def too_new(name: str, offset: int, error: TooNewError) -> NoReturn:
    raise FatalError(
        ExitCode.TOO_NEW,
        f"{name}, offset {offset}: {error}",
        "start the release that wrote it, or a later one",
    ) from None


# --- headers -----------------------------------------------------------------------------------


def read_header(disk: Disk, number: int, *, newest: bool) -> SegmentHeader:
    """The header of a segment, from the first good copy.

    Raises:
        FatalError: 82, 83 (both copies are bad; of the newest segment: term and vote are lost), 86.
    """
    name = segment_name(number)
    file = disk.open(name)
    try:
        copies = file.pread(FIRST_FRAME, 0)
    finally:
        file.close()
    for offset in (0, BLOCK):
        try:
            header = decode_segment_header(copies[offset : offset + BLOCK])
        except TooNewError as error:
            too_new(name, offset, error)
        if header is None:
            continue
        if header.segment != number:
            damaged(name, offset, f"the header says that this is segment {header.segment:x}")
        return header
    if newest:
        raise FatalError(
            ExitCode.HARD_STATE_LOST,
            f"hard state lost: {name}, offset 0: both copies of the header are bad",
            "this member id may never vote again: replace the member",
        )
    damaged(name, 0, "both copies of the header are bad")


# --- one file ------------------------------------------------------------------------------------


def read_segment(disk: Disk, header: SegmentHeader, key: bytes) -> Segment:
    """All good frames from the start, and what follows them.

    Raises:
        FatalError: 82, a frame is bad though its CRCs are right, is out of place, or has frames
            behind it; 86.
    """
    name = segment_name(header.segment)
    decoder = FrameDecoder(FrameSealer(key), header.salt)
    data = read_whole(disk, name)
    frames: list[Frame] = []
    offset = FIRST_FRAME
    number, crc = header.last_frame + 1, header.last_crc
    try:
        while (found := decoder.header(data, offset)) is not None:
            if found.number != number:
                damaged(name, offset, f"frame {found.number} where {number} belongs")
            sealed = decoder.sealed_payload(found, data, offset)
            if sealed is None:
                break
            if found.previous_crc != crc:
                damaged(name, offset, f"frame {number} does not follow the one before it")
            try:
                frames.append(Frame(found, decoder.open(found, sealed), offset))
            except SealBroken:
                damaged(name, offset, f"frame {number} was forged, or written by another key")
            offset += found.blocks * BLOCK
            number, crc = number + 1, found.crc
        tail = _judge_tail(name, data, offset, number, found, decoder, header)
    except TooNewError as error:
        too_new(name, offset, error)
    return Segment(name, len(data), header, frames, tail)


def read_whole(disk: Disk, name: str) -> bytes:
    """A segment's bytes, refused when no segment can be that large (N12).

    Raises:
        FatalError: 82.
    """
    file = disk.open(name)
    try:
        size = file.size()
        if size < FIRST_FRAME or size > limits.WAL_SEGMENT_BYTES_MAX:
            damaged(name, 0, f"{size} bytes are no segment")
        return file.pread(size, 0)
    finally:
        file.close()


def _judge_tail(
    name: str,
    data: bytes,
    offset: int,
    number: int,
    bad: FrameHeader | None,
    decoder: FrameDecoder,
    header: SegmentHeader,
) -> Tail:
    """Torn tail, or corruption (W5)? ``bad`` is the good header of a bad frame at ``offset``.

    Frame n+1 is written only after frame n was synced; so a frame above ``number`` proves that
    the bad one had been good. A twin is written together with its frame and proves nothing.
    """
    twin: HardState | None = None
    for at in range(offset + BLOCK, len(data), BLOCK):
        later = decoder.header(data, at)
        if later is None:
            continue
        if later.kind != FrameKind.TWIN or later.number != number + 1:
            what = f"frame {number} is bad, and frame {later.number} stands behind it at {at}"
            damaged(name, offset, what)
        sealed = decoder.sealed_payload(later, data, at)
        if sealed is None:
            continue
        try:
            decoder.open(later, sealed)
        except SealBroken:
            damaged(name, at, f"frame {later.number} was forged")
        twin = later.hard_state
    if bad is not None:
        length = min(frame_blocks(bad.payload_bytes) * BLOCK, len(data) - offset)
        return Tail(offset, length, f"the payload of frame {number} is bad", twin)
    # In a recycled file the rest belongs to its earlier life; in a fresh one it must be zeros.
    rest = b"" if header.flags & FLAG_RECYCLED else data[offset:].rstrip(b"\0")
    return Tail(offset, len(rest), f"the header of frame {number} is bad", twin)
