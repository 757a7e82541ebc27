"""What stands in the log's directory, and whether it can be trusted. Reads only.

Frames are read in order; at the first bad one the rest is scanned for a frame with the right salt
and a higher number. None: a torn tail, dropped. Some: corruption, refused with segment and offset
(W5). Nothing here guesses.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple, NoReturn

from configsvc.codec.records import decode_entries
from configsvc.errors import ConfigError, DecodeError, ExitCode, FatalError
from configsvc.raft.messages import Entry, HardState
from configsvc.storage.disk import Disk, File
from configsvc.storage.seal.errors import SealBroken
from configsvc.storage.seal.frames import FrameSealer
from configsvc.storage.seal.keyfile import KeyFile
from configsvc.storage.wal import format as fmt

PREFIX: Final = "segment-"
SUFFIX: Final = ".wal"
NEXT_NAME: Final = "next.tmp"
REPLACE: Final = "replace this member; keep the directory for inspection"
_INSTALLED = struct.Struct("<QQQ")  # index, term, generation


class Installed(NamedTuple):
    """A full install that this log begins with (reliability.md S2)."""

    index: int  # type: ignore[assignment]
    term: int
    generation: int
    conf_state: bytes


class Frame(NamedTuple):
    """One recovered frame, opened."""

    header: fmt.FrameHeader
    payload: bytes
    crc: int


class Segment(NamedTuple):
    """One segment as found."""

    name: str
    header: fmt.SegmentHeader
    frames: list[Frame]
    end: int  # offset behind the last good frame


class Content(NamedTuple):
    """What the frames add up to."""

    hard_state: HardState
    base_index: int
    base_term: int
    entries: list[Entry]
    installed: Installed | None
    clean_stop: bool


def segment_name(number: int) -> str:
    return f"{PREFIX}{number:016x}{SUFFIX}"


def encode_installed(i: Installed) -> bytes:
    """Payload of an INSTALLED frame."""
    return _INSTALLED.pack(i.index, i.term, i.generation) + i.conf_state


def decode_installed(payload: bytes) -> Installed:
    if len(payload) < _INSTALLED.size:
        raise DecodeError("install frame is cut short")
    index, term, generation = _INSTALLED.unpack_from(payload)
    return Installed(index, term, generation, payload[_INSTALLED.size :])


def read_segments(disk: Disk, key_file: KeyFile) -> tuple[list[Segment], list[str], int]:
    """(good segments in order, names that are void, bytes of a dropped torn tail).

    Raises:
        ConfigError: the key file does not open the segment keys; exit 78.
        FatalError: exit 82 damaged, 83 hard state lost, 86 too new.
    """
    names = [n for n in disk.names() if n.startswith(PREFIX) and n.endswith(SUFFIX)]
    if not names:
        return [], [], 0
    headers = [(name, _read_header(disk, name, last=name == names[-1])) for name in names]
    void = _void(headers)
    alive = [(name, header) for name, header in headers if name not in void]
    segments: list[Segment] = []
    dropped = 0
    for at, (name, header) in enumerate(alive):
        following = alive[at + 1][1] if at + 1 < len(alive) else None
        segment, torn = _read_segment(disk, name, header, key_file, following)
        segments.append(segment)
        dropped += torn
    return segments, sorted(void), dropped


def _read_header(disk: Disk, name: str, *, last: bool) -> fmt.SegmentHeader:
    file = disk.open(name)
    try:
        block = file.pread(fmt.BLOCK, 0)
    finally:
        file.close()
    try:
        header = fmt.decode_segment_header(block)
    except fmt.TooNewError as error:
        raise FatalError(ExitCode.TOO_NEW, f"{name}: {error}", "start the newer release") from None
    except DecodeError as error:
        if last:
            raise FatalError(
                ExitCode.HARD_STATE_LOST,
                f"{name}, offset 0: {error}; term and vote are lost",
                "this id may never vote again: replace the member",
            ) from None
        raise FatalError(ExitCode.LOG_DAMAGED, f"{name}, offset 0: {error}", REPLACE) from None
    if segment_name(header.segment) != name:
        raise FatalError(
            ExitCode.LOG_DAMAGED, f"{name} says it is segment {header.segment}", REPLACE
        )
    return header


def _void(headers: Sequence[tuple[str, fmt.SegmentHeader]]) -> set[str]:
    """Segments that a later one repeats; and the check that none is missing between."""
    void: set[str] = set()
    for at in range(len(headers) - 1, 0, -1):
        number = headers[at][1].segment
        before = headers[at - 1][1].segment
        replaces = headers[at][1].flags & fmt.FLAG_REPLACES
        if before == number - 1:
            if replaces:
                void.add(headers[at - 1][0])
        elif not (replaces and before == number - 2):
            raise FatalError(
                ExitCode.LOG_DAMAGED,
                f"{segment_name(number - 1)} is missing",
                REPLACE,
            )
    return void


def _read_segment(
    disk: Disk,
    name: str,
    header: fmt.SegmentHeader,
    key_file: KeyFile,
    following: fmt.SegmentHeader | None,
) -> tuple[Segment, int]:
    sealer = FrameSealer(unwrap_key(header, key_file, name))
    file = disk.open(name)
    try:
        size = file.size()
        frames, at, reason = _read_frames(file, name, header, sealer, size)
        last = frames[-1].header.number if frames else header.last_frame
        if following is not None:
            if last != following.last_frame:
                _damaged(name, at, reason or "frames are missing")
            return Segment(name, header, frames, at), 0
        torn = 0
        if _later_frame(file, header, at, size, last):
            _damaged(name, at, reason or "a bad frame with valid ones behind it")
        if reason:
            torn = min(size - at, fmt.BLOCK)
        return Segment(name, header, frames, at), torn
    finally:
        file.close()


def unwrap_key(header: fmt.SegmentHeader, key_file: KeyFile, name: str) -> bytes:
    """The segment's data key; a wrong key file is 78, never damage (W2)."""
    key_id = header.key_id.decode("ascii", "replace")
    try:
        if key_id != key_file.key_id:
            raise SealBroken("another key")
        return key_file.unwrap(header.wrapped_key, key_aad(header))
    except SealBroken:
        raise ConfigError(
            f"{name} was sealed under key {key_id}, {key_file.path} holds {key_file.key_id}",
            "name the right file with --encryption-key-file; nothing was touched",
        ) from None


def key_aad(header: fmt.SegmentHeader) -> bytes:
    """What a wrapped segment key is bound to."""
    return struct.pack(
        "<QQ16sQ", header.cluster_id, header.member_id, header.store_id, header.segment
    )


def _read_frames(
    file: File, name: str, header: fmt.SegmentHeader, sealer: FrameSealer, size: int
) -> tuple[list[Frame], int, str]:
    frames: list[Frame] = []
    at = fmt.BLOCK
    expected, previous = header.last_frame + 1, header.last_crc
    while at + fmt.BLOCK <= size:
        head = file.pread(fmt.FRAME_HEAD_BYTES, at)
        try:
            found = fmt.decode_frame_header(head, header.salt)
        except fmt.TooNewError as error:
            raise FatalError(
                ExitCode.TOO_NEW, f"{name}, offset {at}: {error}", "start the newer release"
            ) from None
        if found is None:
            return frames, at, "the frame header is bad" if any(head) else ""
        frame, crc = found
        if frame.number < expected:
            return frames, at, ""  # of the segment's earlier life: cannot be, the salt differs
        if frame.number != expected or frame.previous_crc != previous:
            return frames, at, f"frame {frame.number} stands where {expected} belongs"
        length = fmt.frame_blocks(frame.payload_bytes) * fmt.BLOCK
        if at + length > size:
            return frames, at, "the frame is longer than its segment"
        sealed = file.pread(frame.payload_bytes, at + fmt.FRAME_HEAD_BYTES)
        if fmt.crc(sealed) != frame.payload_crc:
            return frames, at, "the payload's checksum differs"
        aad = fmt.frame_aad(
            frame.kind, frame.number, frame.records, frame.first_index, frame.hard_state
        )
        try:
            payload = sealer.open(frame.number, aad, sealed)
        except SealBroken as error:
            _damaged(name, at, str(error))
        frames.append(Frame(frame, payload, crc))
        expected, previous = frame.number + 1, crc
        at += length
    return frames, at, ""


def _later_frame(file: File, header: fmt.SegmentHeader, at: int, size: int, last: int) -> bool:
    """Whether a frame newer than ``last`` stands somewhere behind ``at``."""
    offset = at
    while offset + fmt.BLOCK <= size:
        chunk = file.pread(min(1 << 20, size - offset), offset)
        for block in range(0, len(chunk), fmt.BLOCK):
            head = chunk[block : block + fmt.FRAME_HEAD_BYTES]
            if head[:4] != b"CGWF":
                continue
            if offset + block == at:
                continue  # the bad one itself
            try:
                found = fmt.decode_frame_header(head, header.salt)
            except fmt.TooNewError:
                return True
            if found is not None and found[0].number > last:
                return True
        offset += len(chunk)
    return False


def _damaged(name: str, offset: int, reason: str) -> NoReturn:
    raise FatalError(ExitCode.LOG_DAMAGED, f"{name}, offset {offset}: {reason}", REPLACE)


def add_up(segments: Sequence[Segment]) -> Content:
    """Hard state and entries; a later frame with a lower first index supersedes (W1).

    Raises:
        FatalError: exit 82, the frames contradict one another.
    """
    first = segments[0].header
    hard = first.hard_state
    base_index, base_term = first.first_index - 1, first.term_before
    entries: list[Entry] = []
    installed: Installed | None = None
    clean = False
    for segment in segments:
        for header, payload, _ in segment.frames:
            hard = header.hard_state
            clean = header.kind == fmt.KIND_CLEAN_STOP
            try:
                if header.kind == fmt.KIND_INSTALLED:
                    installed = decode_installed(payload)
                    base_index, base_term = installed.index, installed.term
                    entries = []
                elif header.records:
                    _extend(entries, base_index, header, payload)
            except DecodeError as error:
                _damaged(segment.name, 0, f"frame {header.number}: {error}")
    return Content(hard, base_index, base_term, entries, installed, clean)


def _extend(entries: list[Entry], base_index: int, header: fmt.FrameHeader, payload: bytes) -> None:
    fresh = decode_entries(header.first_index, payload, header.records)
    keep = header.first_index - base_index - 1
    if keep < 0:
        fresh = fresh[-keep:]
        keep = 0
    if keep > len(entries):
        raise DecodeError("a gap in the log")
    del entries[keep:]
    entries.extend(fresh)
