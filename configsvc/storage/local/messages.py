"""Values that the member-local database takes and hands out. Nothing here does I/O."""

from __future__ import annotations

from typing import NamedTuple


class LocalIdentity(NamedTuple):
    """Whose records these are; stamped at creation and compared at every start."""

    cluster_id: int  # uint64
    member_id: int  # uint64
    store_id: bytes  # 16 random bytes made with the data directory


class LocalRecord(NamedTuple):
    """One leaf with what opens its commitments; sealed at rest as a whole."""

    seq: int
    leaf: bytes  # the exact bytes
    salt: bytes
    reason: str
    ticket: str


class LocalActor(NamedTuple):
    """One actor record, met first at leaf ``seq``."""

    seq: int
    hash: bytes
    record: bytes
    salt: bytes


class LocalHead(NamedTuple):
    """Where the stream stands on disk."""

    size: int  # leaves
    roots: tuple[bytes, ...]  # of the tree's complete subtrees, for ``merkle.Frontier.restore``
    time_ns: int  # of the newest record; 0: there is none
