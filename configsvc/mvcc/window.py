"""How many bytes the key space takes, as clients see it: dbSize and the quota's measure.

Counts live versions and the superseded ones above the compaction floor. What lies below the floor
stays in SQL for auditors and is not counted, so compaction brings the size down (N2, D6).

How much garbage lies below a revision is remembered at sampled revisions and interpolated between
them: the figure is exact at the newest revision and approximate for older floors. It decides no
outcome of an entry; the replicated NOSPACE alarm does.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

ROW_BYTES: Final = 64  # numbers and index entry of one version
SAMPLES_MAX: Final = 4_096  # halved when reached; the step between samples doubles
_STEP: Final = 64


class Window:
    """Byte counts since the compaction floor."""

    __slots__ = ("_floor_garbage", "_garbage", "_next", "_samples", "_step", "live_bytes")

    def __init__(
        self, live_bytes: int, superseded_bytes: int, floor_revision: int, revision: int
    ) -> None:
        self.live_bytes = live_bytes
        self._garbage = superseded_bytes  # cumulative
        self._floor_garbage = 0  # part of it at or below the floor
        self._samples: list[tuple[int, int]] = [(floor_revision, 0)]
        if revision > floor_revision:
            self._samples.append((revision, superseded_bytes))
        self._step = _STEP
        self._next = revision + _STEP

    @property
    def total(self) -> int:
        """Live and superseded versions above the floor."""
        return self.live_bytes + self._garbage - self._floor_garbage

    def change(self, revision: int, added: int, superseded: int) -> None:
        """One row: ``added`` live bytes came, ``superseded`` live bytes became garbage."""
        self.live_bytes += added - superseded
        self._garbage += superseded
        if revision >= self._next:
            self._sample(revision)

    def tombstone(self, revision: int, key_bytes: int, superseded: int) -> None:
        """One deletion: the version and its tombstone are garbage."""
        self.live_bytes -= superseded
        self._garbage += superseded + ROW_BYTES + key_bytes
        if revision >= self._next:
            self._sample(revision)

    def tombstones(self, revision: int, count: int, key_bytes: int, superseded: int) -> None:
        """``count`` times ``tombstone``, with the sums of its figures."""
        self.live_bytes -= superseded
        self._garbage += superseded + count * ROW_BYTES + key_bytes
        if revision >= self._next:
            self._sample(revision)

    def _sample(self, revision: int) -> None:
        samples = self._samples
        samples.append((revision, self._garbage))
        if len(samples) >= SAMPLES_MAX:
            del samples[1::2]
            self._step *= 2
        self._next = revision + self._step

    def compact(self, floor_revision: int, revision: int) -> None:
        """The floor moved up to ``floor_revision``; ``revision`` is the store's."""
        samples = self._samples
        if samples[-1][0] != revision:
            samples.append((revision, self._garbage))
        at = bisect_left(samples, (floor_revision, 0))
        if at >= len(samples):
            at = len(samples) - 1
        upper_rev, upper = samples[at]
        if at and upper_rev > floor_revision:
            lower_rev, lower = samples[at - 1]
            share = (upper - lower) * (floor_revision - lower_rev) // (upper_rev - lower_rev)
            self._floor_garbage = max(self._floor_garbage, lower + share)
        else:
            self._floor_garbage = max(self._floor_garbage, upper)
        self._samples = [(floor_revision, self._floor_garbage), *samples[at:]]
        self._step = _STEP
        self._next = revision + _STEP
