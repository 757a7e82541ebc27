"""The segment that is being written, and how one is made.

A segment comes to life under the spare's name: header and, at a start, the copied frames are
written and synced; then it gets its own name and the directory is synced. Each has a salt and a
data key of its own, so no (key, frame number) pair is ever used twice (W2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from configsvc import limits
from configsvc.errors import ensure
from configsvc.raft.messages import HardState
from configsvc.storage.disk import Disk, File
from configsvc.storage.seal.aead import KEY_BYTES
from configsvc.storage.seal.frames import FrameSealer
from configsvc.storage.seal.keyfile import KeyFile
from configsvc.storage.wal import copyforward
from configsvc.storage.wal.format import (
    BLOCK,
    FIRST_FRAME,
    FLAG_INSECURE,
    FLAG_RECYCLED,
    SALT_BYTES,
    FrameEncoder,
    FrameKind,
    SegmentHeader,
)
from configsvc.storage.wal.keys import with_key
from configsvc.storage.wal.recovery import SegmentFacts, WalIdentity, max_index
from configsvc.storage.wal.segments import SPARE_NAME, Segment, segment_name
from configsvc.storage.wal.spare import Spare

Entropy = Callable[[int], bytes]


class Place(NamedTuple):
    """Where a log stands at the beginning of a segment. Fields as in ``SegmentHeader``."""

    last_frame: int
    last_crc: int
    hard_state: HardState
    first_index: int
    term_before: int
    generation: int


class CurrentSegment:
    """Frames are appended and synced one by one (W3)."""

    def __init__(self, file: File, header: SegmentHeader, encoder: FrameEncoder, at: int) -> None:
        self.number = header.segment
        self.first_index = header.first_index
        self.max_index = 0  # highest index in it; 0: none
        self.size = file.size()
        self.at = at  # offset of the next frame
        self.encoder = encoder
        self._file = file
        self.synced = True

    def has_room(self, blocks: int) -> bool:
        return self.at + blocks * BLOCK <= self.size

    def write(
        self, kind: int, hard_state: HardState, first: int, count: int, payload: bytes, twin: bool
    ) -> None:
        """Write a frame, with its twin in the same write (W6); durable after ``sync``."""
        ensure(self.synced, "frames are written and synced in turn")
        self.synced = False
        data = self.encoder.encode(kind, hard_state, first, count, payload)
        if twin:
            data += self.encoder.encode(FrameKind.TWIN, hard_state, 0, 0, b"")
        self._file.pwrite(data, self.at)
        self.at += len(data)

    def sync(self) -> None:
        self._file.sync()
        self.synced = True

    def facts(self) -> SegmentFacts:
        """What to remember once it is no longer written."""
        return SegmentFacts(self.number, self.size, self.first_index, self.max_index)

    def close(self) -> None:
        self._file.close()


class SegmentMaker:
    """Makes the segments of one start."""

    def __init__(
        self,
        disk: Disk,
        spare: Spare,
        key_file: KeyFile,
        identity: WalIdentity,
        incarnation: int,
        entropy: Entropy,
    ) -> None:
        self.key_file = key_file
        self._disk = disk
        self._spare = spare
        self._identity = identity
        self._incarnation = incarnation
        self._entropy = entropy

    def begin(self, number: int, place: Place, size: int) -> CurrentSegment:
        """An empty segment of at least ``size`` bytes."""
        ensure(size <= limits.WAL_SEGMENT_BYTES_MAX, "an entry fits into the largest segment")
        file, recycled = self._spare.take(size)
        header, encoder = self._fresh(number, place, recycled=recycled)
        copyforward.write_header(file, header)
        file.sync()
        self._name(number)
        return CurrentSegment(file, header, encoder, FIRST_FRAME)

    def replace(self, newest: Segment, hard_state: HardState) -> CurrentSegment:
        """A copy of ``newest`` with all its good frames, in its place by its name (W7).

        ``hard_state`` is the newest one recovered, which may come from a twin without its frame.
        """
        old = newest.header
        place = Place(
            old.last_frame,
            old.last_crc,
            hard_state,
            old.first_index,
            old.term_before,
            old.generation,
        )
        file, recycled = self._spare.take(newest.size)
        header, encoder = self._fresh(old.segment, place, recycled=recycled)
        at = copyforward.write_copy(file, header, encoder, newest.frames)
        self._name(old.segment)
        current = CurrentSegment(file, header, encoder, at)
        current.max_index = max_index(newest)
        return current

    def _fresh(
        self, number: int, place: Place, *, recycled: bool
    ) -> tuple[SegmentHeader, FrameEncoder]:
        """A header with a new salt and a new key, and the encoder that goes with it."""
        key = self._entropy(KEY_BYTES)
        header = SegmentHeader(
            (FLAG_INSECURE if self._identity.insecure else 0) | (FLAG_RECYCLED if recycled else 0),
            self._identity.cluster_id,
            self._identity.member_id,
            self._identity.store_id,
            self._incarnation,
            number,
            self._entropy(SALT_BYTES),
            *place,
            key_id=b"",
            wrapped_key=b"",
        )
        encoder = FrameEncoder(FrameSealer(key), header.salt, place.last_frame, place.last_crc)
        return with_key(header, self.key_file, key), encoder

    def _name(self, number: int) -> None:
        self._disk.rename(SPARE_NAME, segment_name(number))
        self._disk.sync_dir()
