"""What clients and watchers saw, as data: the input of the checkers, of every layer of tests."""

from __future__ import annotations

from dataclasses import dataclass, field

from configsvc.types import KeySpan

FOR_EVER = 2**63

# (revision, key, value or None for a deletion, value before or None)
SeenEvent = tuple[int, bytes, bytes | None, bytes | None]


@dataclass
class Operation:
    """One call of a client. Times are any clock that all clients share."""

    kind: str  # put, delete, swap (put if mod revision is ``expected``), read
    key: bytes
    value: bytes = b""  # unique over the whole history
    expected: int = 0
    lease: int = 0
    called: int = 0
    returned: int = FOR_EVER
    acknowledged: bool = False  # else its outcome is unknown
    impossible: bool = False  # known not to have happened
    refused: bool = False  # the cluster said no: it changed nothing
    succeeded: bool = True  # of a swap; of a deletion: whether there was a key
    revision: int = 0  # of the answer's header
    seen: bytes | None = None  # what a read, or a swap that did not happen, found
    serializable: bool = False  # a read that may be stale


@dataclass(frozen=True)
class Change:
    """One key's change in the committed history; ``value`` None: deleted."""

    revision: int
    key: bytes
    value: bytes | None


class BrokenHistory(AssertionError):
    """A promise to clients was broken."""


@dataclass
class WatchHistory:
    """What one watcher got, over all its connections."""

    span: KeySpan
    start: int  # first revision it wants
    events: list[SeenEvent] = field(default_factory=list)
    gaps: list[tuple[int, int]] = field(default_factory=list)  # overtaken by compaction
    next_revision: int = 0
    connections: int = 0

    def __post_init__(self) -> None:
        self.next_revision = self.start

    def connected(self) -> None:
        self.connections += 1

    def batch(self, header: int, events: list[SeenEvent]) -> None:
        """One message with events: whole revisions, nothing that was promised to be over."""
        for event in events:
            if event[0] < self.next_revision:
                raise BrokenHistory(f"I17 event of {event[0]} again, {self.next_revision} is due")
        revisions = [event[0] for event in events]
        if revisions != sorted(revisions):
            raise BrokenHistory("I17 events out of order")
        if revisions[-1] > header:
            raise BrokenHistory("I17 events above the revision of their header")
        self.events += events
        self.next_revision = revisions[-1] + 1

    def progress(self, revision: int) -> None:
        """A promise that everything up to ``revision`` was sent."""
        self.next_revision = max(self.next_revision, revision + 1)

    def compacted(self, floor: int) -> None:
        """The watch was cancelled because its next revision is gone."""
        if self.next_revision < floor:
            self.gaps.append((self.next_revision, floor))
            self.next_revision = floor
