"""What one member's store was asked to do since the process started; for the metrics only.

No state machine reads it: members that applied the same entries may show different figures.

A plain put costs nothing here. Every commit moves the revision by one, so the puts are the commits
that did not come staged, and the puts that did.
"""

from __future__ import annotations


class Tally:
    """Operations, each operation of a transaction being one."""

    __slots__ = ("_since", "_staged_commits", "_staged_puts", "deletes", "ranges", "txns")

    def __init__(self, revision: int) -> None:
        self._since = revision
        self._staged_commits = 0
        self._staged_puts = 0
        self.ranges = 0
        self.deletes = 0  # of a key or a span, whether or not there was anything to delete
        self.txns = 0  # of more than one operation

    def puts(self, revision: int) -> int:
        """All puts, when the store is at ``revision``."""
        return revision - self._since - self._staged_commits + self._staged_puts

    def staged(self, puts: int) -> None:
        """A commit that came staged, with that many puts in it."""
        self._staged_commits += 1
        self._staged_puts += puts

    def deleted(self, keys: int) -> None:
        """A lease ended: each of its keys is a deletion, all of them one transaction."""
        self.deletes += keys
        self.txns += keys > 1

    def adopted(self, before: int, after: int) -> None:
        """The store went from one revision to another, and nothing was put."""
        self._since += after - before
