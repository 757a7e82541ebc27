"""The copy as of one revision of the source: first looked through as a whole, then written.

Always true: nothing is written before every key was found to be acceptable; what is done is
known up to a key, which the state file keeps. When the source compacts the revision away, the
copy begins again at a newer one: keys that are right already cost a read.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from configsvc import limits
from configsvc.cli.exits import CliError, Exit
from configsvc.cli.migrate_ends import Ends, Span
from configsvc.cli.migrate_leases import LeaseBook
from configsvc.cli.migrate_pages import Pair, merge, read, rest_of
from configsvc.cli.migrate_progress import Progress, counted
from configsvc.cli.migrate_state import State
from configsvc.cli.migrate_write import Change, Writer, conflict
from configsvc.cli.output import escape
from configsvc.client import operations, txn
from configsvc.errors import CompactedError

_ENVELOPE_BYTES: Final = 1 * limits.KIB  # what a request holds beside key and value


class Verdict(Enum):
    """What a key needs."""

    SAME = "same"
    NEW = "new"
    LEASE = "lease"  # the value is right, its lease is not
    OTHER = "other"  # another value is there
    EXTRA = "extra"  # the source has no such key
    TOO_LARGE = "too large"


def judge(pair: Pair) -> Verdict:
    """Compare the two sides."""
    if pair.source is None:
        return Verdict.EXTRA
    kv = pair.source
    if pair.target is None or pair.target.value != kv.value:
        too_long = len(kv.key) > limits.KEY_BYTES_MAX
        if too_long or kv.ByteSize() + len(kv.key) + _ENVELOPE_BYTES > limits.REQUEST_BYTES_MAX:
            return Verdict.TOO_LARGE
        return Verdict.NEW if pair.target is None else Verdict.OTHER
    return Verdict.SAME if pair.target.lease == kv.lease else Verdict.LEASE


@dataclass(slots=True)
class Plan:
    """What a look through found."""

    counts: dict[Verdict, int] = field(default_factory=lambda: dict.fromkeys(Verdict, 0))
    named: dict[Verdict, list[bytes]] = field(default_factory=lambda: {one: [] for one in Verdict})

    def add(self, verdict: Verdict, key: bytes) -> None:
        """Count a key; the first few are kept by name."""
        self.counts[verdict] += 1
        if len(self.named[verdict]) < limits.MIGRATE_SHOWN_MAX:
            self.named[verdict].append(key)

    @property
    def seen(self) -> int:
        """Keys of the source."""
        return sum(self.counts.values()) - self.counts[Verdict.EXTRA]

    def check(self, *, overwrite: bool) -> None:
        """Raise when a key is in the way.

        Raises:
            CliError: conflict; a value would be overwritten, or is too large for the target.
        """
        large = self.named[Verdict.TOO_LARGE]
        if large:
            named = ", ".join(escape(key[:100]) for key in large)
            raise CliError(
                Exit.CONFLICT,
                f"{self.counts[Verdict.TOO_LARGE]} keys are too large to be taken over (key "
                f"{limits.KEY_BYTES_MAX} B, key and value {limits.REQUEST_BYTES_MAX} B): {named}",
            )
        others = self.named[Verdict.OTHER]
        if others and not overwrite:
            raise conflict(others, self.counts[Verdict.OTHER] - len(others))


class Copy:
    """One copy; ``look`` and ``write`` may each be called again after ``CompactedError``."""

    def __init__(
        self, ends: Ends, spans: list[Span], state: State, save: Callable[[State], None]
    ) -> None:
        self._ends = ends
        self._spans = spans
        self._state = state
        self._save = save

    def begin(self) -> None:
        """Choose the revision, unless an earlier run did and the source still has it."""
        client = self._ends.source.client
        if self._state.revision:
            try:
                client.do(operations.range_(b"\0", revision=self._state.revision))
            except CompactedError:
                pass
            else:
                return
        self._state.revision = client.do(operations.range_(b"\0")).header.revision
        self._state.last_key = b""
        self._state.copied = False

    def _pairs(self) -> Generator[Pair, None, None]:
        revision = self._state.revision
        for span in rest_of(self._spans, self._state.last_key):
            yield from merge(
                read(self._ends.source.client, span, revision=revision),
                read(self._ends.target.client, span),
            )

    def total(self) -> int:
        """Keys of the source that are still to be looked at."""
        client = self._ends.source.client
        return sum(
            client.do(
                operations.range_(key, end, revision=self._state.revision, count_only=True)
            ).count
            for key, end in rest_of(self._spans, self._state.last_key)
        )

    def look(self, progress: Progress) -> Plan:
        """Go through both sides without writing."""
        plan, total = Plan(), self.total()
        with closing(self._pairs()) as pairs:
            for pair in pairs:
                plan.add(judge(pair), pair.key)
                progress.step(lambda s: counted(plan.seen, total, "keys looked at", s))
        progress.end()
        return plan

    def write(
        self, writer: Writer, leases: LeaseBook, progress: Progress, *, total: int, prune: bool
    ) -> Plan:
        """Write what ``look`` found; returns what it was."""
        plan = Plan()
        last = self._state.last_key
        try:
            with closing(self._pairs()) as pairs:
                for pair in pairs:
                    change = self._change(
                        pair, plan, leases, prune=prune, overwrite=writer.overwrite
                    )
                    if change is not None and writer.add(change):
                        self._state.last_key = last
                        self._save(self._state)
                    last = pair.key
                    progress.step(lambda s: counted(plan.seen, total, "keys copied", s))
            writer.flush()
        finally:
            self._save(self._state)
            progress.end()
        self._state.last_key, self._state.copied = b"", True
        self._save(self._state)
        return plan

    @staticmethod
    def _change(
        pair: Pair, plan: Plan, leases: LeaseBook, *, prune: bool, overwrite: bool
    ) -> Change | None:
        verdict = judge(pair)
        plan.add(verdict, pair.key)
        there = pair.target
        guard = txn.modified(pair.key) == (there.mod_revision if there is not None else 0)
        if pair.source is None:
            if not prune or there is None:
                return None
            return Change(pair.key, None, 0, guard, there.value)
        if verdict is Verdict.SAME:
            return None
        lease = pair.source.lease
        if lease and not leases.carry(lease):
            return None  # the key is about to go in the source, too
        # Another value is the writer's to judge, by what is there then.
        safe = None if verdict is Verdict.OTHER and not overwrite else guard
        return Change(pair.key, pair.source.value, lease, safe, None)
