"""The write-ahead log of one member: segments of sealed frames in one directory.

Single-threaded; in the product its thread is the writer's (``writer``). Any ``OSError`` is the
caller's to end the process with (W8): nothing here is retried.

Always true:
  * Frame n+1 is written only after the sync of frame n returned (W3).
  * Every start writes the last segment anew, under a new key, and syncs it before anything else
    is promised (W7); the old one is void from the moment the new one has its name.
  * Segments are removed oldest first, so a crash leaves a contiguous run (W4).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, NamedTuple

from configsvc.errors import ExitCode, FatalError, ensure
from configsvc.raft.messages import Entry, HardState
from configsvc.storage.disk import Disk, File
from configsvc.storage.seal.frames import FrameSealer
from configsvc.storage.seal.keyfile import KeyFile
from configsvc.storage.wal import format as fmt
from configsvc.storage.wal.recovery import (
    NEXT_NAME,
    REPLACE,
    Installed,
    Segment,
    add_up,
    encode_installed,
    key_aad,
    read_segments,
    segment_name,
)

SEGMENT_BYTES: Final = 16 << 20
SEGMENT_BYTES_MIN: Final = 16 << 10
_KEY_BYTES: Final = 32
Entropy = Callable[[int], bytes]


class WalIdentity(NamedTuple):
    """Whose log this is; in every segment header."""

    cluster_id: int
    member_id: int
    store_id: bytes
    insecure: bool = False


class Recovered(NamedTuple):
    """What the log held at start."""

    identity: WalIdentity
    incarnation: int  # of this start
    hard_state: HardState
    base_index: int  # entries follow this index
    base_term: int
    entries: list[Entry]
    installed: Installed | None
    clean_stop: bool
    dropped_tail_bytes: int

    @property
    def last_index(self) -> int:
        return self.base_index + len(self.entries)


class Wal:
    """An open log."""

    def __init__(
        self,
        disk: Disk,
        key_file: KeyFile,
        identity: WalIdentity,
        incarnation: int,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        entropy: Entropy = os.urandom,
    ) -> None:
        self._disk = disk
        self._key_file = key_file
        self.identity = identity
        self.incarnation = incarnation
        self._segment_bytes = segment_bytes
        self._entropy = entropy
        self._segments: list[fmt.SegmentHeader] = []  # oldest first, the current one last
        self._file: File | None = None
        self._sealer = FrameSealer(bytes(_KEY_BYTES))
        self._at = 0
        self._number = 0
        self._crc = 0
        self._hard = HardState()
        self._last_index = 0
        self._last_term = 0
        self._sealed = True  # nothing that rot could pass off as a torn tail

    # --- opening ---------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        disk: Disk,
        key_file: KeyFile,
        identity: WalIdentity,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        entropy: Entropy = os.urandom,
    ) -> Wal:
        """Start an empty log."""
        wal = cls(disk, key_file, identity, 1, segment_bytes=segment_bytes, entropy=entropy)
        wal._begin_segment(1, flags=0, last_frame=0, last_crc=0)
        wal.write_frame(fmt.KIND_START, HardState(), 0, 0, 0, b"")
        wal.sync()
        return wal

    @classmethod
    def open(
        cls,
        disk: Disk,
        key_file: KeyFile,
        *,
        expect: WalIdentity | None = None,
        sql_applied: int = 0,
        segment_bytes: int = SEGMENT_BYTES,
        entropy: Entropy = os.urandom,
    ) -> tuple[Wal, Recovered]:
        """Recover, check, and write the tail anew.

        Args:
            disk: The log's directory.
            key_file: Unwraps the segment keys.
            expect: Ids from elsewhere (SQL, certificate); None: take the log's.
            sql_applied: Applied index that SQL holds durably.
            segment_bytes: Size of new segments.
            entropy: Source of keys and salts.

        Raises:
            ConfigError: exit 78, wrong key file; nothing was touched.
            FatalError: exits 82 to 86; nothing was touched.
        """
        segments, void, dropped = read_segments(disk, key_file)
        if not segments:
            raise FatalError(ExitCode.HARD_STATE_LOST, "the log is empty", REPLACE)
        newest = segments[-1].header
        identity = WalIdentity(
            newest.cluster_id,
            newest.member_id,
            newest.store_id,
            bool(newest.flags & fmt.FLAG_INSECURE),
        )
        if expect is not None and expect != identity:
            raise FatalError(
                ExitCode.WRONG_IDENTITY,
                f"the log is of member {identity.member_id:016x} in cluster "
                f"{identity.cluster_id:016x}, expected {expect.member_id:016x} in "
                f"{expect.cluster_id:016x}",
                "name the right data directory",
            )
        content = add_up(segments)
        last = content.base_index + len(content.entries)
        if sql_applied > last:
            raise FatalError(
                ExitCode.STORES_DISAGREE,
                f"SQL has applied entry {sql_applied}, the log ends at {last}",
                "replace this member, or restore a backup if it is the only one",
            )
        incarnation = newest.incarnation + 1
        wal = cls(
            disk, key_file, identity, incarnation, segment_bytes=segment_bytes, entropy=entropy
        )
        wal._take_over(segments, void)
        recovered = Recovered(
            identity,
            incarnation,
            content.hard_state,
            content.base_index,
            content.base_term,
            content.entries,
            content.installed,
            content.clean_stop,
            dropped,
        )
        wal._last_index = last
        wal._last_term = content.entries[-1].term if content.entries else content.base_term
        return wal, recovered

    def _take_over(self, segments: list[Segment], void: list[str]) -> None:
        """Copy-forward (W7): repeat the last segment in a fresh one, then drop the old."""
        for name in void:
            self._disk.unlink(name)
        if void:
            self._disk.sync_dir()
        last = segments[-1]
        self._segments = [s.header for s in segments[:-1]]
        self._hard = last.header.hard_state
        self._last_index = last.header.first_index - 1
        self._last_term = last.header.term_before
        self._begin_segment(
            last.header.segment + 1,
            flags=fmt.FLAG_REPLACES,
            last_frame=last.header.last_frame,
            last_crc=last.header.last_crc,
            room=last.end + fmt.BLOCK,
        )
        for frame, payload, _ in last.frames:
            if frame.kind in (fmt.KIND_ENTRIES, fmt.KIND_INSTALLED):
                self._put(frame.kind, frame.hard_state, frame.first_index, frame.records, payload)
            else:
                self._hard = frame.hard_state
        self._put(fmt.KIND_START, self._hard, 0, 0, b"")
        self.sync()
        self._disk.unlink(last.name)
        self._disk.sync_dir()

    # --- segments --------------------------------------------------------------------------------

    def _begin_segment(
        self, number: int, *, flags: int, last_frame: int, last_crc: int, room: int = 0
    ) -> None:
        """A new segment under a new salt and key: zeroed, synced, renamed, directory synced."""
        name = segment_name(number)
        size = max(self._segment_bytes, -(-room // fmt.BLOCK) * fmt.BLOCK)
        if NEXT_NAME in self._disk.names() and size == self._segment_bytes:
            file = self._disk.open(NEXT_NAME)
            if file.size() != size:
                file.close()
                file = self._disk.create_zeroed(NEXT_NAME, size)
        else:
            file = self._disk.create_zeroed(NEXT_NAME, size)
        key = self._entropy(_KEY_BYTES)
        insecure = fmt.FLAG_INSECURE if self.identity.insecure else 0
        header = fmt.SegmentHeader(
            flags | insecure,
            self.identity.cluster_id,
            self.identity.member_id,
            self.identity.store_id,
            self.incarnation,
            number,
            self._entropy(fmt.SALT_BYTES),
            last_frame,
            last_crc,
            self._hard,
            self._last_index + 1,
            self._last_term,
            self._key_file.key_id.encode(),
            b"",
        )
        header = header._replace(wrapped_key=self._key_file.wrap(key, key_aad(header)))
        file.pwrite(fmt.encode_segment_header(header), 0)
        file.sync()
        self._disk.rename(NEXT_NAME, name)
        self._disk.sync_dir()
        if self._file is not None:
            self._file.close()
        self._file = file
        self._segments.append(header)
        self._sealer = FrameSealer(key)
        self._at = fmt.BLOCK
        self._number, self._crc = last_frame, last_crc

    def prepare_next(self) -> bool:
        """Make the next segment in advance, while nothing waits; False: it is there already."""
        if NEXT_NAME in self._disk.names():
            return False
        self._disk.create_zeroed(NEXT_NAME, self._segment_bytes).close()
        return True

    # --- frames ----------------------------------------------------------------------------------

    def write_frame(
        self,
        kind: int,
        hard: HardState,
        first_index: int,
        count: int,
        last_term: int,
        records: bytes,
    ) -> None:
        """Append one frame; durable after ``sync``. Conflicting entries are superseded (W1)."""
        self._put(kind, hard, first_index, count, records)
        if count:
            self._last_index = first_index + count - 1
            self._last_term = last_term

    def write_installed(self, hard: HardState, installed: Installed) -> None:
        """The log begins anew behind an install."""
        self._put(fmt.KIND_INSTALLED, hard, 0, 0, encode_installed(installed))
        self._last_index, self._last_term = installed.index, installed.term

    def _put(self, kind: int, hard: HardState, first: int, count: int, payload: bytes) -> None:
        blocks = fmt.frame_blocks(len(payload) + 16)
        if self._at + blocks * fmt.BLOCK > self._size():
            self.sync()
            self._begin_segment(
                self._segments[-1].segment + 1,
                flags=0,
                last_frame=self._number,
                last_crc=self._crc,
                room=(blocks + 2) * fmt.BLOCK,
            )
        number = self._number + 1
        aad = fmt.frame_aad(kind, number, count, first, hard)
        sealed = self._sealer.seal(number, aad, payload)
        salt = self._segments[-1].salt
        data, crc = fmt.encode_frame(kind, number, count, first, hard, sealed, self._crc, salt)
        ensure(self._file is not None, "an open log has a segment")
        self._file.pwrite(data, self._at)  # type: ignore[union-attr]
        self._at += len(data)
        self._number, self._crc, self._hard = number, crc, hard
        self._sealed = kind in (fmt.KIND_SEAL, fmt.KIND_CLEAN_STOP)

    def _size(self) -> int:
        ensure(self._file is not None, "an open log has a segment")
        return self._file.size() if self._file is not None else 0

    def sync(self) -> None:
        """Make everything written durable."""
        if self._file is not None:
            self._file.sync()

    def seal_idle(self) -> bool:
        """An empty frame behind the last data, so that rot there is not taken for a torn tail (W6).

        False: nothing was written since the last one.
        """
        if self._sealed:
            return False
        self._put(fmt.KIND_SEAL, self._hard, 0, 0, b"")
        self.sync()
        return True

    # --- removal ---------------------------------------------------------------------------------

    def compact(self, up_to: int) -> int:
        """Remove segments whose entries are all at or below ``up_to``; how many went."""
        gone = 0
        while len(self._segments) > 1 and self._segments[1].first_index - 1 <= up_to:
            name = segment_name(self._segments[0].segment)
            if NEXT_NAME in self._disk.names():
                self._disk.unlink(name)
            else:
                # A new life under a new salt and key: old frames there mean nothing any more.
                self._disk.rename(name, NEXT_NAME)
            self._disk.sync_dir()
            del self._segments[0]
            gone += 1
        return gone

    @property
    def bytes_on_disk(self) -> int:
        return len(self._segments) * self._segment_bytes

    @property
    def last_index(self) -> int:
        return self._last_index

    def close_clean(self) -> None:
        """Note an orderly stop and close."""
        self._put(fmt.KIND_CLEAN_STOP, self._hard, 0, 0, b"")
        self.sync()
        self.close()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
