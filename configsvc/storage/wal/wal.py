"""The open log of one member: segments of sealed frames in one directory.

Single-threaded; in the product the writer thread owns it (``writer``). Nothing is retried: after
an ``OSError`` the process must end (W8).

Always true:
  * Frame n+1 is written only after the sync of frame n returned (W3).
  * A segment has its name only with a durable header, and its directory is synced before its
    first frame is written.
  * A (data key, frame number) pair seals one frame: every start writes under a new key (W2, W7).
  * Segments go oldest first, each with a directory sync, so that a crash leaves a contiguous run.

Not here: what a directory proves after a crash (``recovery``), files in the making (``spare``).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, Self

from configsvc import limits
from configsvc.codec.records import last_record_term, split_records
from configsvc.errors import ExitCode, FatalError, ensure
from configsvc.raft.messages import Entry, HardState
from configsvc.storage.disk import Disk
from configsvc.storage.seal.keyfile import KeyFile
from configsvc.storage.wal import copyforward
from configsvc.storage.wal.current import CurrentSegment, Entropy, Place, SegmentMaker
from configsvc.storage.wal.format import (
    BLOCK,
    FIRST_FRAME,
    FRAME_HEAD_BYTES,
    SEAL_BYTES,
    FrameKind,
    Installed,
    decode_installed,
    encode_installed,
    frame_blocks,
)
from configsvc.storage.wal.keys import rewrap
from configsvc.storage.wal.recovery import (
    LogImage,
    SegmentFacts,
    WalIdentity,
    check_expectations,
    read_log,
)
from configsvc.storage.wal.segments import segment_name, segment_numbers
from configsvc.storage.wal.spare import Spare
from configsvc.storage.wal.start import SpaceAtStart, take_lock

SqlApplied = int | Callable[[Installed | None], int]
_QUIET: Final = frozenset({FrameKind.SEAL, FrameKind.CLEAN_STOP})  # hold nothing that could rot


class WalOptions(NamedTuple):
    """Settings of a log; the defaults are the product's."""

    segment_bytes: int = limits.WAL_SEGMENT_BYTES
    entropy: Entropy = os.urandom


class Recovered(NamedTuple):
    """What the log held at start."""

    identity: WalIdentity
    incarnation: int  # of this start; grows with each (G2)
    hard_state: HardState
    first_index: int  # of ``entries``, or of the next entry when there are none
    first_prev_term: int  # term of the entry before it; 0: none
    entries: list[Entry]  # contiguous, superseded suffixes resolved
    installed: Installed | None  # the last one ever; None: the first generation still counts
    clean_stop: bool
    dropped_tail_bytes: int

    @property
    def last_index(self) -> int:
        return self.first_index - 1 + len(self.entries)

    @property
    def generation(self) -> int:
        """Of the history that belongs to the log; 0: nothing was ever installed."""
        return self.installed.generation if self.installed is not None else 0


class Wal:
    """Create with ``create`` (first start) or ``open`` (every other)."""

    def __init__(
        self,
        disk: Disk,
        key_file: KeyFile,
        identity: WalIdentity,
        incarnation: int,
        options: WalOptions,
    ) -> None:
        ensure(
            limits.WAL_SEGMENT_BYTES_MIN <= options.segment_bytes <= limits.WAL_SEGMENT_BYTES_MAX
            and options.segment_bytes % BLOCK == 0,
            "segments have 16 KiB to 64 MiB, in whole blocks",
        )
        self.identity = identity
        self.incarnation = incarnation
        self._disk = disk
        self._options = options
        self._spare = Spare(disk, options.segment_bytes)
        self._maker = SegmentMaker(
            disk, self._spare, key_file, identity, incarnation, options.entropy
        )
        self._older: deque[SegmentFacts] = deque()
        self._current: CurrentSegment | None = None
        self._hard = HardState()
        self._next_index = 1
        self._generation = 0
        self._last_term = 0  # of the entry before ``_next_index``, unless records are given:
        self._last_records: tuple[int, bytes] | None = None  # count and bytes that end there
        self._quiet = True  # a sealing frame is the last one

    # --- opening ---------------------------------------------------------------------------------

    @staticmethod
    def exists(disk: Disk) -> bool:
        """Whether a log was ever begun here; else this is a first start."""
        return bool(segment_numbers(disk))

    @classmethod
    def create(
        cls,
        disk: Disk,
        identity: WalIdentity,
        key_file: KeyFile,
        *,
        options: WalOptions = WalOptions(),  # noqa: B008  # frozen
    ) -> Self:
        """Begin an empty log and take the directory's lock. Incarnation 1.

        Raises:
            FatalError: 81 no space, 84 the directory is in use or holds a log.
            OSError: the disk failed.
        """
        take_lock(disk)
        if cls.exists(disk):
            raise FatalError(
                ExitCode.STORES_DISAGREE,
                "stores disagree: the directory of a new log holds one already",
                "name an empty directory",
            )
        wal = cls(disk, key_file, identity, 1, options)
        with SpaceAtStart(disk, options.segment_bytes):
            wal._spare.adopt()
            wal._current = wal._maker.begin(1, wal._place(), options.segment_bytes)
            wal.write_frame(FrameKind.START, HardState(), 0, 0, b"")
            wal.sync()
        return wal

    @classmethod
    def open(
        cls,
        disk: Disk,
        key_file: KeyFile,
        *,
        expect: WalIdentity | None = None,
        sql_applied: SqlApplied = 0,
        older_keys: Sequence[KeyFile] = (),
        options: WalOptions = WalOptions(),  # noqa: B008  # frozen
    ) -> tuple[Self, Recovered]:
        """Lock, recover, check against other stores, then write the tail anew (W7).

        Args:
            disk: The log's directory.
            key_file: Wraps new data keys and unwraps those it wrapped.
            expect: Ids from SQL, certificate and settings.
            sql_applied: Index that SQL holds durably; or a function that is given what was
                installed last and finds out, before anything is written.
            older_keys: More key files, while a change of keys is under way.
            options: Settings.

        Raises:
            ConfigError: 78, no key file opens a data key; nothing was touched.
            FatalError: 81 to 86, each with the way out; nothing was touched, except by 81.
            OSError: the disk failed.
        """
        take_lock(disk)
        keys = (key_file, *older_keys)
        image = read_log(disk, keys)
        applied = sql_applied if isinstance(sql_applied, int) else sql_applied(image.installed)
        check_expectations(image, expect, applied)
        wal = cls(disk, key_file, image.identity, image.incarnation + 1, options)
        with SpaceAtStart(disk, options.segment_bytes):
            wal._take_over(image)
            wal.write_frame(FrameKind.START, wal._hard, 0, 0, b"")
            wal.sync()
        return wal, Recovered(
            image.identity,
            wal.incarnation,
            image.hard_state,
            image.first_index,
            image.first_prev_term,
            image.entries,
            image.installed,
            image.clean_stop,
            image.newest.tail.bytes,
        )

    def _take_over(self, image: LogImage) -> None:
        """Put a fresh copy of the newest segment in its place, atomically by its name (W7).

        Its pages may be readable and yet not on the disk; what this start will promise rests on
        the copy, which is synced first. So is the directory: after a kill its names may be on no
        disk, and what is the spare by now may be a segment again when the power goes (W4).
        """
        self._disk.sync_dir()
        self._spare.adopt()
        copyforward.keep_tail(self._disk, image.newest, self.incarnation)
        self._current = self._maker.replace(image.newest, image.hard_state)
        self._older = deque(image.older)
        self._hard = image.hard_state
        self._next_index = image.last_index + 1
        self._generation = image.generation
        self._last_term = image.entries[-1].term if image.entries else image.first_prev_term

    # --- frames ----------------------------------------------------------------------------------

    def append(self, hard_state: HardState, first_index: int, count: int, records: bytes) -> None:
        """Make entries and hard state durable: frames are written and synced when this returns.

        Args:
            hard_state: The newest; every frame carries it whole.
            first_index: Index of the first record; at most one above the last one written. Lower:
                what stands from there on is superseded. 0 without records.
            count: Records; 0: only the hard state is new.
            records: As ``encode_entries`` made them.
        """
        if len(records) <= limits.WAL_FRAME_BYTES_MAX and self._fits_segment(len(records)):
            self.write_frame(FrameKind.ENTRIES, hard_state, first_index, count, records)
            self.sync()
            return
        room = self._options.segment_bytes - FIRST_FRAME - BLOCK - FRAME_HEAD_BYTES - SEAL_BYTES
        for part_count, part in split_records(records, min(limits.WAL_FRAME_BYTES_MAX, room)):
            self.write_frame(FrameKind.ENTRIES, hard_state, first_index, part_count, part)
            self.sync()
            first_index += part_count

    def install(self, hard_state: HardState, installed: Installed) -> None:
        """Make it durable that a snapshot took the log's place; the next entry follows it.

        The log before is void from here on: ``compact(installed.index)`` removes its segments.
        """
        self.write_frame(FrameKind.INSTALLED, hard_state, 0, 0, encode_installed(installed))
        self.sync()

    def write_frame(
        self, kind: int, hard_state: HardState, first_index: int, count: int, payload: bytes
    ) -> None:
        """Write one frame behind the last one; durable after ``sync``.

        A frame that changes term or vote is followed, in the same write, by a twin on a page of
        its own (W6).
        """
        self._check_order(hard_state, first_index, count)
        twin = (hard_state.term, hard_state.vote) != (self._hard.term, self._hard.vote)
        blocks = frame_blocks(len(payload) + SEAL_BYTES) + (1 if twin else 0)
        current = self._segment()
        ensure(current.synced, "a frame is written only after the one before was synced")
        if not current.has_room(blocks):
            current = self._rotate(current, blocks)
        current.write(kind, hard_state, first_index, count, payload, twin)
        self._hard = hard_state
        self._quiet = kind in _QUIET
        if count:
            self._next_index = first_index + count
            self._last_records = (count, payload)
            current.max_index = max(current.max_index, self._next_index - 1)
        elif kind == FrameKind.INSTALLED:
            installed = decode_installed(payload)
            self._next_index = installed.index + 1
            self._generation = installed.generation
            self._last_term, self._last_records = installed.term, None
            current.max_index = max(current.max_index, installed.index)

    def sync(self) -> None:
        """Make the written frame durable."""
        self._segment().sync()

    def seal_idle(self) -> bool:
        """Write and sync an empty frame behind the last data, so that rot there is never taken
        for a torn tail (W6). False: that is the last frame already.
        """
        if self._quiet:
            return False
        self.write_frame(FrameKind.SEAL, self._hard, 0, 0, b"")
        self.sync()
        return True

    def close_clean(self) -> None:
        """Note an orderly stop, and close."""
        self.write_frame(FrameKind.CLEAN_STOP, self._hard, 0, 0, b"")
        self.sync()
        self.close()

    def close(self) -> None:
        """Close files and give the lock back; writes nothing."""
        self._spare.close()
        if self._current is not None:
            self._current.close()
            self._current = None
        self._disk.close()

    def _check_order(self, hard_state: HardState, first_index: int, count: int) -> None:
        ensure(hard_state.term >= self._hard.term, "the term never goes back")
        ensure(
            hard_state.term > self._hard.term or self._hard.vote in (0, hard_state.vote),
            "one vote per term",
        )
        ensure(first_index <= self._next_index, "the log has no gaps")
        ensure(bool(first_index) == bool(count), "an index comes with records")

    def _fits_segment(self, payload_bytes: int) -> bool:
        blocks = frame_blocks(payload_bytes + SEAL_BYTES) + 1
        return FIRST_FRAME + blocks * BLOCK <= self._options.segment_bytes

    # --- segments --------------------------------------------------------------------------------

    def _segment(self) -> CurrentSegment:
        if self._current is None:
            raise ValueError("the log is closed")
        return self._current

    def _rotate(self, full: CurrentSegment, blocks: int) -> CurrentSegment:
        """Go on in a new segment with room for ``blocks``."""
        size = max(self._options.segment_bytes, FIRST_FRAME + blocks * BLOCK)
        self._current = self._maker.begin(full.number + 1, self._place(), size)
        self._older.append(full.facts())
        full.close()
        return self._current

    def _place(self) -> Place:
        if self._last_records is not None:
            count, records = self._last_records
            self._last_term, self._last_records = last_record_term(records, count), None
        encoder = self._current.encoder if self._current is not None else None
        return Place(
            last_frame=encoder.last_number if encoder else 0,
            last_crc=encoder.last_crc if encoder else 0,
            hard_state=self._hard,
            first_index=self._next_index,
            term_before=self._last_term,
            generation=self._generation,
        )

    def prepare_step(self) -> bool:
        """Make a piece of the next segment in advance; True while there is more to do.

        Raises:
            OSError: among others, no space: nothing is lost yet, the trigger of O7.
        """
        return self._spare.step()

    @property
    def spare_ready(self) -> bool:
        """Whether the next segment exists; with it the log cannot run out of space."""
        return self._spare.ready

    @property
    def half_full(self) -> bool:
        """Whether it is time to make the next segment, busy or not."""
        current = self._segment()
        return current.at * 2 > current.size

    # --- removal ---------------------------------------------------------------------------------

    def compact(self, up_to: int) -> int:
        """Give up the segments that hold nothing above index ``up_to``; how many went.

        ``up_to`` must be applied and durable in SQL. The current segment always stays.
        """
        gone = 0
        while self._older and self._older[0].max_index <= up_to:
            facts = self._older.popleft()
            self._spare.recycle(segment_name(facts.number), facts.size)
            gone += 1
        return gone

    @property
    def retained_first_index(self) -> int:
        """Lowest index that a recovery could still find."""
        return self._older[0].first_index if self._older else self._segment().first_index

    @property
    def bytes_on_disk(self) -> int:
        """Of all segments and a ready spare."""
        spare = self._options.segment_bytes if self._spare.ready else 0
        return sum(facts.size for facts in self._older) + self._segment().size + spare

    @property
    def last_frame(self) -> int:
        """Number of the newest frame, worth noting elsewhere at a clean stop (W5)."""
        return self._segment().encoder.last_number

    @property
    def position(self) -> str:
        """File and offset of the next write, for messages."""
        current = self._segment()
        return f"{segment_name(current.number)}, offset {current.at}"

    @property
    def segment_count(self) -> int:
        """Segments in use."""
        return len(self._older) + 1

    def rewrap(self, key_file: KeyFile, older_keys: Sequence[KeyFile] = ()) -> None:
        """Wrap every data key under ``key_file``, now and from now on (ENC-5).

        When this returns, no segment needs an older key.
        """
        for _ in self.rewrapping(key_file, older_keys):
            pass

    def rewrapping(self, key_file: KeyFile, older_keys: Sequence[KeyFile] = ()) -> Iterator[None]:
        """``rewrap`` in steps of one segment; frames may be written in between.

        ``older_keys``: also open what an earlier change, which was not ended, has left.
        """
        keys = (self._maker.key_file, *older_keys)
        self._maker.key_file = key_file  # segments begun meanwhile need no other
        for number in self._numbers():
            if number in self._numbers():  # compaction may have taken it
                rewrap(self._disk, [number], key_file, keys)
            yield

    def _numbers(self) -> list[int]:
        return [*(facts.number for facts in self._older), self._segment().number]
