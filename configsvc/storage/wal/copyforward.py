"""Writing segment headers, and a fresh copy of a segment at start (W7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from configsvc import limits
from configsvc.storage.disk import Disk, File
from configsvc.storage.wal.format import (
    FIRST_FRAME,
    FrameEncoder,
    SegmentHeader,
    encode_segment_header,
)
from configsvc.storage.wal.segments import Frame, Segment

DROPPED_PREFIX: Final = "dropped-"
_BUFFER_BYTES: Final = limits.WAL_PREPARE_STEP_BYTES


def write_header(file: File, header: SegmentHeader) -> None:
    """Both copies, not synced."""
    file.pwrite(encode_segment_header(header) * 2, 0)


def write_copy(
    file: File, header: SegmentHeader, encoder: FrameEncoder, frames: Sequence[Frame]
) -> int:
    """Write ``header`` and all ``frames``, sealed anew, and sync; the offset behind them.

    The file has no name of a segment yet, so one sync at the end is enough.
    """
    write_header(file, header)
    at = FIRST_FRAME
    buffer: list[bytes] = []
    buffered = 0
    for frame in frames:
        old = frame.header
        data = encoder.encode(old.kind, old.hard_state, old.first_index, old.records, frame.payload)
        buffer.append(data)
        buffered += len(data)
        if buffered >= _BUFFER_BYTES:
            file.pwrite(b"".join(buffer), at)
            at += buffered
            buffer, buffered = [], 0
    file.pwrite(b"".join(buffer), at)
    file.sync()
    return at + buffered


def keep_tail(disk: Disk, segment: Segment, incarnation: int) -> None:
    """Put a dropped tail aside, behind the header that its seal belongs to.

    Only the newest few are kept. They are for people; no program reads them.
    """
    if not segment.tail.bytes:
        return
    source = disk.open(segment.name)
    try:
        tail = source.pread(segment.tail.bytes, segment.tail.offset)
    finally:
        source.close()
    kept = [name for name in disk.names() if name.startswith(DROPPED_PREFIX)]
    for name in kept[: max(0, len(kept) - limits.WAL_DROPPED_KEPT + 1)]:
        disk.unlink(name)
    copy = disk.create(f"{DROPPED_PREFIX}{incarnation:016x}.bin")
    try:
        copy.pwrite(encode_segment_header(segment.header) + tail, 0)
        copy.sync()
    finally:
        copy.close()
