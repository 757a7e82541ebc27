"""Looking at a log without opening it: frames for people, and the scrub that needs no key.

Both only read. A member may be running: what it writes meanwhile may or may not be seen.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from configsvc.codec.records import decode_entries
from configsvc.errors import FatalError
from configsvc.raft.messages import Entry, HardState
from configsvc.storage.disk import Disk
from configsvc.storage.seal.keyfile import KeyFile
from configsvc.storage.wal.format import (
    BLOCK,
    FIRST_FRAME,
    FrameDecoder,
    FrameKind,
    Installed,
    TooNewError,
    decode_installed,
    decode_segment_header,
)
from configsvc.storage.wal.keys import unwrap_key
from configsvc.storage.wal.segments import (
    damaged,
    read_header,
    read_segment,
    read_whole,
    segment_name,
    segment_numbers,
    too_new,
)


class FrameView(NamedTuple):
    """One frame, for people."""

    segment: int
    offset: int
    number: int
    kind: FrameKind
    hard_state: HardState
    entries: tuple[Entry, ...]
    installed: Installed | None


def iterate_frames(disk: Disk, keys: Sequence[KeyFile]) -> Iterator[FrameView]:
    """All frames, oldest first, superseded entries included.

    Raises:
        ConfigError: 78, no key file of ``keys`` opens a segment.
        DecodeError: a frame whose records make no sense.
        FatalError: 82, 83 or 86 where the log stops to be readable, after what came before.
    """
    numbers = segment_numbers(disk)
    for number in numbers:
        header = read_header(disk, number, newest=number == numbers[-1])
        for frame in read_segment(disk, header, unwrap_key(header, keys)).frames:
            h = frame.header
            entries: tuple[Entry, ...] = ()
            installed = None
            if h.kind == FrameKind.INSTALLED:
                installed = decode_installed(frame.payload)
            elif h.records:
                entries = decode_entries(h.first_index, frame.payload, h.records)
            kind = FrameKind(h.kind)
            yield FrameView(number, frame.offset, h.number, kind, h.hard_state, entries, installed)


class Scrubbed(NamedTuple):
    """One segment, checked; ``problem`` is empty when all is well."""

    segment: int
    bytes: int
    frames: int
    problem: str


def scrub(disk: Disk) -> Iterator[Scrubbed]:
    """Check every segment but the newest, one per step, without a key (W10).

    Both header copies, every frame's CRCs, the chain, and that no frame is missing at the end.
    The caller sets the pace: it reads ``bytes`` per step.
    """
    numbers = segment_numbers(disk)
    for number, following in pairwise(numbers):
        try:
            size, frames = _scrub_segment(disk, number, following)
        except FatalError as error:
            yield Scrubbed(number, 0, 0, str(error))
        except FileNotFoundError:
            continue  # given up by compaction meanwhile
        except OSError as error:
            if error.errno != errno.EIO:
                raise  # says nothing about what is stored
            yield Scrubbed(number, 0, 0, f"{segment_name(number)}: the disk cannot read it")
        else:
            yield Scrubbed(number, size, frames, "")


def _scrub_segment(disk: Disk, number: int, following: int) -> tuple[int, int]:
    name = segment_name(number)
    header = read_header(disk, number, newest=False)
    data = read_whole(disk, name)
    for offset in (0, BLOCK):
        if decode_segment_header(data[offset : offset + BLOCK]) is None:
            damaged(name, offset, "a copy of the header is bad")
    end = read_header(disk, following, newest=False)
    decoder = FrameDecoder(None, header.salt)
    at, last, crc = FIRST_FRAME, header.last_frame, header.last_crc
    while last < end.last_frame:
        try:
            frame = decoder.header(data, at)
        except TooNewError as error:
            too_new(name, at, error)
        if frame is None or frame.number != last + 1 or frame.previous_crc != crc:
            damaged(name, at, f"frame {last + 1} is bad or out of place")
        if decoder.sealed_payload(frame, data, at) is None:
            damaged(name, at, f"the payload of frame {last + 1} is bad")
        at += frame.blocks * BLOCK
        last, crc = frame.number, frame.crc
    if crc != end.last_crc:
        damaged(name, at, f"the next segment follows another frame {last}")
    return len(data), last - header.last_frame
