"""What a log directory proves about the past, and when it must not be believed. Reads only.

The table (W5; codes of reliability.md 2.2):

    found                                                        outcome
    -----------------------------------------------------------  --------------------------------
    bad frame, nothing behind it, in the newest segment          torn tail: dropped
    the same, but SQL or the noted frame number covers it        82
    bad frame, a later frame or segment behind it                82
    good CRCs, but chain, number or seal are wrong               82
    segment missing in the middle                                82
    both header copies bad, newest segment / an older one        83 / 82
    no segment at all                                            83
    SQL ahead of a whole log; log begins above what SQL holds    84
    another cluster, member or store                             85
    format or frame kind of a newer program                      86
    data key does not unwrap under a good header                 78, nothing touched

Term and vote are the newest found anywhere: in headers, frames and twins they only ever move
forward. The commit index is a hint and is cut to what is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from configsvc.codec.records import decode_entries
from configsvc.errors import DecodeError, ExitCode, FatalError
from configsvc.raft.messages import Entry, HardState
from configsvc.storage.disk import Disk
from configsvc.storage.seal.keyfile import KeyFile
from configsvc.storage.wal.format import (
    FLAG_INSECURE,
    FrameKind,
    Installed,
    SegmentHeader,
    decode_installed,
)
from configsvc.storage.wal.keys import unwrap_key
from configsvc.storage.wal.segments import (
    REPLACE,
    Frame,
    Segment,
    damaged,
    read_header,
    read_segment,
    segment_name,
    segment_numbers,
)
from configsvc.types import LogIndex


class WalIdentity(NamedTuple):
    """Whose log it is; stands in every segment header.

    As an expectation, an empty ``store_id`` stands for any.
    """

    cluster_id: int
    member_id: int
    store_id: bytes  # 16 random bytes, made with the data directory (G1)
    insecure: bool = False  # born under --insecure-dev


class SegmentFacts(NamedTuple):
    """What is remembered of a segment that is no longer written."""

    number: int
    size: int
    first_index: int  # as its header has it
    max_index: int  # highest index that occurs in it; 0: none


class LogImage(NamedTuple):
    """A log directory, understood. Nothing was written yet."""

    identity: WalIdentity
    incarnation: int  # of the last start
    hard_state: HardState
    first_index: int  # of ``entries``, or of the next entry when there are none
    first_prev_term: int
    entries: list[Entry]
    installed: Installed | None  # the last one ever; only its generation, once its frame is gone
    clean_stop: bool
    older: list[SegmentFacts]
    newest: Segment

    @property
    def last_index(self) -> int:
        return self.first_index - 1 + len(self.entries)

    @property
    def generation(self) -> int:
        """Of the history that belongs to the log; 0: nothing was ever installed."""
        return self.installed.generation if self.installed is not None else 0


def read_log(disk: Disk, keys: Sequence[KeyFile]) -> LogImage:
    """Read and judge the whole directory.

    Raises:
        ConfigError: 78, a data key does not unwrap.
        FatalError: 82, 83 or 86, naming segment and offset.
    """
    headers = _headers(disk)
    # All keys first: a wrong one must not look like damage (W2).
    data_keys = [unwrap_key(header, keys) for header in headers]
    replay = Replay(headers[0])
    facts: list[SegmentFacts] = []
    for position, header in enumerate(headers):
        segment = read_segment(disk, header, data_keys[position])
        if position + 1 < len(headers):
            _check_end(segment, headers[position + 1])
        replay.segment(segment)
        facts.append(
            SegmentFacts(header.segment, segment.size, header.first_index, max_index(segment))
        )
    return LogImage(
        identity=_identity(headers),
        incarnation=headers[-1].incarnation,
        hard_state=replay.final_hard_state(),
        first_index=replay.first_index,
        first_prev_term=replay.prev_term,
        entries=replay.entries,
        installed=replay.installed,
        clean_stop=replay.last_kind == FrameKind.CLEAN_STOP and not segment.tail.bytes,
        older=facts[:-1],
        newest=segment,
    )


def max_index(segment: Segment) -> int:
    """Highest index that any frame of the segment is about."""
    highest = 0
    for frame in segment.frames:
        index = frame.header.last_index
        if frame.header.kind == FrameKind.INSTALLED:
            index = decode_installed(frame.payload).index
        highest = max(highest, index)
    return highest


def check_expectations(image: LogImage, expect: WalIdentity | None, sql_applied: int) -> None:
    """Compare the log with what other stores remember.

    Args:
        image: The log.
        expect: Ids from SQL, certificate and settings; None: not compared.
        sql_applied: Index that SQL holds durably.

    Raises:
        FatalError: 82, 84 or 85.
    """
    if expect is not None:
        _check_identity(image.identity, expect)
    name, tail = image.newest.name, image.newest.tail
    if sql_applied > image.last_index:
        if tail.bytes:
            what = f"{tail.reason}, and SQL holds index {sql_applied}: no torn tail"
            damaged(name, tail.offset, what)
        raise FatalError(
            ExitCode.STORES_DISAGREE,
            f"stores disagree: SQL has applied {sql_applied}, the log in {name} ends at "
            f"{image.last_index}, offset {tail.offset}",
            "replace this member, or restore a backup if it is the only one",
        )
    if sql_applied < image.first_index - 1:
        raise FatalError(
            ExitCode.STORES_DISAGREE,
            f"stores disagree: SQL has applied {sql_applied}, the log begins at "
            f"{image.first_index}",
            "replace this member, or restore a backup if it is the only one",
        )


class Replay:
    """Adds up frames to a log: hard state, base, entries."""

    def __init__(self, oldest: SegmentHeader) -> None:
        self.first_index = oldest.first_index
        self.prev_term = oldest.term_before
        self.entries: list[Entry] = []
        self.installed = Installed(0, 0, b"", oldest.generation) if oldest.generation else None
        self.last_kind = 0
        self._hard = oldest.hard_state

    def segment(self, segment: Segment) -> None:
        """Take the frames of the next segment.

        Raises:
            FatalError: 82, the frames contradict one another.
        """
        self._hard = newer(self._hard, segment.header.hard_state)
        for frame in segment.frames:
            try:
                self._frame(frame)
            except DecodeError as error:
                damaged(segment.name, frame.offset, f"frame {frame.header.number}: {error}")
        if segment.tail.twin is not None:
            self._hard = newer(self._hard, segment.tail.twin)

    def _frame(self, frame: Frame) -> None:
        header = frame.header
        self._hard = newer(self._hard, header.hard_state)
        self.last_kind = header.kind
        if header.kind == FrameKind.INSTALLED:
            self.installed = decode_installed(frame.payload)
            self.first_index = self.installed.index + 1
            self.prev_term = self.installed.term
            self.entries = []
        elif header.records:
            fresh = decode_entries(header.first_index, frame.payload, header.records)
            self._extend(header.first_index, fresh)

    def _extend(self, first: int, fresh: tuple[Entry, ...]) -> None:
        """Append; a lower first index than the next one supersedes what stands from there on.

        Below the base nothing is needed any more: the log was compacted there, so entries that
        supersede it say no more than the term before the first one that is kept.
        """
        keep = first - self.first_index
        if keep > len(self.entries):
            raise DecodeError(f"index {self.first_index + len(self.entries)} is missing")
        if keep >= 0:
            del self.entries[keep:]
            self.entries.extend(fresh)
            return
        below = min(-keep, len(fresh))
        self.first_index = first + below
        self.prev_term = fresh[below - 1].term
        self.entries = list(fresh[below:])

    def final_hard_state(self) -> HardState:
        """The newest term and vote; the commit hint within the log."""
        hard = self._hard
        last = self.first_index - 1 + len(self.entries)
        commit = min(max(hard.commit, self.first_index - 1), last)
        return hard._replace(commit=LogIndex(commit))


def newer(one: HardState, other: HardState) -> HardState:
    """The later of two hard states of one member; the higher of the commit hints.

    Terms only grow, and within a term a vote is cast once and never taken back.
    """
    later = max(one, other, key=lambda hard: (hard.term, hard.vote != 0))
    return later._replace(commit=max(one.commit, other.commit))


# --- checks over several segments ----------------------------------------------------------------


def _headers(disk: Disk) -> list[SegmentHeader]:
    numbers = segment_numbers(disk)
    if not numbers:
        raise FatalError(
            ExitCode.HARD_STATE_LOST,
            "hard state lost: the log directory holds no segment",
            "this member id may never vote again: replace the member",
        )
    for before, number in pairwise(numbers):
        if number != before + 1:
            damaged(segment_name(before + 1), 0, "the segment is missing")
    return [read_header(disk, number, newest=number == numbers[-1]) for number in numbers]


def _check_end(segment: Segment, following: SegmentHeader) -> None:
    """The next segment's header says which frame was the last one here."""
    if (segment.last_frame, segment.last_crc) != (following.last_frame, following.last_crc):
        what = f"{segment.tail.reason}; the next segment follows frame {following.last_frame}"
        damaged(segment.name, segment.tail.offset, what)


def _identity(headers: Sequence[SegmentHeader]) -> WalIdentity:
    found = [
        WalIdentity(h.cluster_id, h.member_id, h.store_id, bool(h.flags & FLAG_INSECURE))
        for h in headers
    ]
    for header, identity in zip(headers, found, strict=True):
        if identity != found[-1]:
            raise FatalError(
                ExitCode.WRONG_IDENTITY,
                f"wrong identity: {segment_name(header.segment)} is of another store than "
                f"{segment_name(headers[-1].segment)}",
                REPLACE,
            )
    return found[-1]


def _check_identity(found: WalIdentity, expect: WalIdentity) -> None:
    pairs = (
        ("cluster id", f"{found.cluster_id:016x}", f"{expect.cluster_id:016x}"),
        ("member id", f"{found.member_id:016x}", f"{expect.member_id:016x}"),
        ("store id", found.store_id.hex(), expect.store_id.hex() or found.store_id.hex()),
        ("--insecure-dev mark", str(found.insecure), str(expect.insecure)),
    )
    for what, ours, theirs in pairs:
        if ours != theirs:
            raise FatalError(
                ExitCode.WRONG_IDENTITY,
                f"wrong identity: {what} is {ours} in the log and {theirs} elsewhere",
                "name the data directory that belongs to this member",
            )
