"""One read transaction, and the key index as it stands in it.

``versions`` lists the places of a key's rows up to the last fold (``folding``). The few rows since
then lie in revision order only; a connection that is asked by key lists them in a table of its own
memory, ``temp.recent``, and goes on from there when it is asked again. All of ``recent`` is newer
than all of ``versions``: answers in order of revision are one after the other, not merged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from configsvc.storage.history.values import Vault

VERSIONS: Final = "versions"
RECENT: Final = "temp.recent"

_CREATE: Final = """
CREATE TEMP TABLE recent (
  key BLOB NOT NULL, revision INTEGER NOT NULL, sub INTEGER NOT NULL, tombstone INTEGER NOT NULL,
  PRIMARY KEY (key, revision, sub)
) STRICT, WITHOUT ROWID
"""
_CLEAR: Final = "DELETE FROM temp.recent"
_FOLLOW: Final = """
INSERT INTO temp.recent (key, revision, sub, tombstone)
SELECT key, revision, sub, tombstone FROM revisions WHERE revision > ? AND revision <= ?
"""


class Recent:
    """What ``temp.recent`` of one connection holds: rows in ``(folded, through]``."""

    def __init__(self) -> None:
        self._made = False
        self._folded = 0
        self._through = 0

    def follow(self, cursor: Any, folded: int, visible: int) -> None:
        """Bring the table to the caller's snapshot; snapshots of one connection only move on."""
        if not self._made:
            cursor.execute(_CREATE)
            self._made = True
        if folded != self._folded:
            cursor.execute(_CLEAR)
            self._folded = self._through = folded
        if self._through < visible:
            cursor.execute(_FOLLOW, (self._through, visible))
            self._through = visible


class Session:
    """One read transaction."""

    __slots__ = ("_recent", "cursor", "folded", "vault", "visible")

    def __init__(
        self, cursor: Any, vault: Vault, recent: Recent, *, visible: int, folded: int
    ) -> None:
        self.cursor = cursor
        self.vault = vault
        self.visible = visible  # newest revision in it
        self.folded = folded  # newest revision in ``versions``
        self._recent = recent

    def places(self, low: int, high: int) -> Sequence[str]:
        """Tables that list the rows of revisions ``low`` to ``high`` by key, older ones first."""
        if high <= self.folded:
            return (VERSIONS,)
        self._recent.follow(self.cursor, self.folded, self.visible)
        return (RECENT,) if low > self.folded else (VERSIONS, RECENT)
