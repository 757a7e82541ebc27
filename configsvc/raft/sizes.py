"""How large entries count, for every byte bound of the core.

The constant stands for what an entry costs besides its payload on the wire and in the log frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Final

from configsvc.raft.messages import Entry

ENTRY_OVERHEAD: Final = 24  # term, index, kind and lengths, as the log frame stores them
_DATA = itemgetter(Entry._fields.index("data"))


def payload_bytes(entries: Sequence[Entry]) -> int:
    """Bytes of all payloads; what proposers and windows are charged."""
    return sum(map(len, map(_DATA, entries)))


def retained_bytes(entries: Sequence[Entry]) -> int:
    """Bytes of payloads and overhead."""
    return payload_bytes(entries) + ENTRY_OVERHEAD * len(entries)


def limit_bytes(entries: tuple[Entry, ...], max_bytes: int) -> tuple[Entry, ...]:
    """The longest prefix within ``max_bytes``, but at least one entry if there is one."""
    if len(entries) <= 1 or retained_bytes(entries) <= max_bytes:
        return entries
    total = 0
    for count, entry in enumerate(entries):
        total += len(entry.data) + ENTRY_OVERHEAD
        if total > max_bytes:
            return entries[: max(count, 1)]
    return entries
