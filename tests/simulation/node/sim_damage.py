"""What a bad disk does to the log of a member that is down: where it may, and what must follow.

A *map* of the log says which block is a header, a frame of which kind, or nothing. Damage is drawn
on it, so that it is known without asking the recovery what must come of it: the log is refused, or
what is recovered is equal to what it was. One piece is left out, which no recovery can tell from a
torn write: the newest frame, with its twin, as long as no seal stands behind it (W6). A truncated
file is the other one: what is cut off behind the last whole frame is gone without a trace, and the
member has gone back in time, as with an old copy of its directory (G2).

Not here: when it happens and to whom (``sim_losses``).
"""

from __future__ import annotations

from random import Random
from typing import Final, NamedTuple

from configsvc.raft.messages import Entry, HardState
from configsvc.storage.seal.keyfile import KeyFile
from configsvc.storage.wal.format import BLOCK, FIRST_FRAME, FrameKind
from configsvc.storage.wal.keys import unwrap_key
from configsvc.storage.wal.recovery import Replay, newer, read_log
from configsvc.storage.wal.segments import Segment, read_header, read_segment, segment_numbers
from tests.support.simdisk import Image, SimDisk

KINDS: Final = ("bit flip", "zeroed page", "truncated file", "lost write", "misdirected write")
_QUIET: Final = (FrameKind.SEAL, FrameKind.CLEAN_STOP)


class Extent(NamedTuple):
    name: str
    offset: int
    size: int


class Found(NamedTuple):
    """What an undamaged start would recover."""

    hard: HardState
    first: int
    entries: tuple[Entry, ...]


class Damaged(NamedTuple):
    image: Image
    expected: Found | None  # if it starts at all; None: it may have lost the end of its log
    last: int  # index that the log is sure to end at, or above


def read(image: Image, key: KeyFile) -> Found:
    log = read_log(SimDisk(image, record=False), (key,))
    return Found(log.hard_state, log.first_index, tuple(log.entries))


class LogMap:
    """Where everything stands in the files of a log."""

    def __init__(self, image: Image, key: KeyFile) -> None:
        disk = SimDisk(image, record=False)
        numbers = segment_numbers(disk)
        self.image = image
        self.segments: list[Segment] = []
        for number in numbers:
            header = read_header(disk, number, newest=number == numbers[-1])
            self.segments.append(read_segment(disk, header, unwrap_key(header, (key,))))
        self.frames = [
            Extent(segment.name, frame.offset, frame.header.blocks * BLOCK)
            for segment in self.segments
            for frame in segment.frames
        ]
        self.spared = self._spared()

    def _spared(self) -> list[Extent]:
        """The end of the newest segment, unless it is sealed."""
        newest = self.segments[-1]
        at = len(newest.frames) - 1
        if at < 0 or newest.frames[at].header.kind in _QUIET:
            return []
        while at > 0 and newest.frames[at].header.kind == FrameKind.TWIN:
            at -= 1
        frames = newest.frames[at:]
        return [Extent(newest.name, f.offset, f.header.blocks * BLOCK) for f in frames]

    def spares(self, extent: Extent) -> bool:
        """Whether damage there is no damage that anybody could tell."""
        return any(
            one.name == extent.name
            and extent.offset < one.offset + one.size
            and one.offset < extent.offset + extent.size
            for one in self.spared
        )

    def place(self, rng: Random) -> Extent | None:
        """A block: of a frame or a header more often than of what is not used."""
        if self.frames and rng.random() < 0.6:
            frame = rng.choice(self.frames)
            block = Extent(
                frame.name, frame.offset + rng.randrange(frame.size // BLOCK) * BLOCK, BLOCK
            )
        else:
            name = rng.choice(sorted(self.image))
            blocks = len(self.image[name]) // BLOCK
            if not blocks:
                return None
            at = rng.randrange(2 if rng.random() < 0.5 and blocks > 2 else blocks)
            block = Extent(name, at * BLOCK, BLOCK)
        return None if self.spares(block) else block


def damage(image: Image, key: KeyFile, kind: str, rng: Random) -> Damaged | None:
    """One piece of damage; None: the dice fell where it could not be told."""
    where = LogMap(image, key)
    found = read(image, key)
    last = found.first - 1 + len(found.entries)
    if kind == "truncated file":
        return _truncate(where, found, rng)
    out = dict(image)
    if kind in ("bit flip", "zeroed page"):
        block = where.place(rng)
        if block is None:
            return None
        data = bytearray(image[block.name])
        if kind == "bit flip":
            data[block.offset + rng.randrange(block.size)] ^= 1 << rng.randrange(8)
        else:
            if block.offset < FIRST_FRAME <= len(data) and rng.random() < 0.5:
                block = Extent(block.name, 0, FIRST_FRAME)  # both copies of a header
            data[block.offset : block.offset + block.size] = bytes(block.size)
        out[block.name] = bytes(data)
        return Damaged(out, found, last)
    frames = [frame for frame in where.frames if not where.spares(frame)]
    if not frames:
        return None
    frame = rng.choice(frames)
    data = bytearray(image[frame.name])
    written = bytes(data[frame.offset : frame.offset + frame.size])
    data[frame.offset : frame.offset + frame.size] = bytes(frame.size)
    out[frame.name] = bytes(data)
    if kind == "misdirected write":
        target = where.place(rng)
        if target is None:
            return None
        data = bytearray(out[target.name])
        room = written[: len(data) - target.offset]
        if where.spares(Extent(target.name, target.offset, len(room))):
            return None
        data[target.offset : target.offset + len(room)] = room
        out[target.name] = bytes(data)
    return Damaged(out, found, last)


def _truncate(where: LogMap, found: Found, rng: Random) -> Damaged | None:
    """A file ends early. Of the newest segment frames at the end are gone, and with them what
    only they tell; a vote must not be among it, for then this member might cast it again.
    """
    newest = where.segments[-1]
    name = rng.choice(sorted(where.image)) if rng.random() < 0.5 else newest.name
    used = newest.tail.offset if name == newest.name else len(where.image[name])
    at = rng.randrange(max(1, min(used + BLOCK, len(where.image[name]))))
    out = {**where.image, name: where.image[name][:at]}
    if name != newest.name:
        return Damaged(out, found, found.first - 1 + len(found.entries))
    if at < FIRST_FRAME:
        return Damaged(out, found, 0)
    kept = [f for f in newest.frames if f.offset + f.header.blocks * BLOCK <= at]
    hard = newest.header.hard_state
    for segment in where.segments[:-1]:
        for frame in segment.frames:
            hard = newer(hard, frame.header.hard_state)
    for frame in kept:
        hard = newer(hard, frame.header.hard_state)
    if (hard.term, hard.vote) != (found.hard.term, found.hard.vote):
        return None
    rest = Replay(where.segments[0].header)
    for segment in (*where.segments[:-1], newest._replace(frames=kept)):
        rest.segment(segment)
    return Damaged(out, None, rest.first_index - 1 + len(rest.entries))
