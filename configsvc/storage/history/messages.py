"""Values that the history hands out. Named tuples; nothing here does I/O."""

from __future__ import annotations

from typing import NamedTuple

from configsvc.mvcc.messages import Event, KeyValue, Row


class StoreIdentity(NamedTuple):
    """Whose store this is; stamped at creation and compared at every start (Q1, exit 85)."""

    cluster_id: int  # uint64
    member_id: int  # uint64
    store_id: bytes  # 16 random bytes made with the data directory
    insecure: bool = False  # born under --insecure-dev, marked for ever
    epoch: int = 0  # grows with every restore; part of the sealed rows' associated data


class Meta(NamedTuple):
    """Where the history stands. ``applied`` 0: nothing was written yet."""

    applied: int
    term: int
    visible_revision: int  # an empty store is at 1
    conf_state: bytes  # as the runtime encodes it; empty until the first one was given
    digest: bytes  # rolling digest at ``applied``, 16 bytes
    tree_size: int  # leaves of stream M
    owner_epoch: int
    generation: int
    identity: StoreIdentity


class CommitInfo(NamedTuple):
    """One row of ``commits``: who did what when, and the exact leaf."""

    seq: int
    raft_index: int
    raft_term: int
    revision: int
    time_ns: int
    event: str
    actor: bytes  # hash of the actor record
    outcome: str
    leaf: bytes


class Opening(NamedTuple):
    """What opens a leaf's commitments; sealed at rest, erasable on its own (TE-10)."""

    salt: bytes
    reason: str
    ticket: str
    changes: bytes


class Actor(NamedTuple):
    """One actor record, met first at leaf ``seq``."""

    hash: bytes
    record: bytes
    salt: bytes
    seq: int


class LogRow(NamedTuple):
    """One change of one key with its author. ``actor`` and ``opening`` are None once erased."""

    row: Row
    commit: CommitInfo
    actor: Actor | None
    opening: Opening | None


class LogPage(NamedTuple):
    """Log rows of whole revisions; ``more``: the limit or a bound ended the page."""

    rows: list[LogRow]
    more: bool


class Difference(NamedTuple):
    """One key at two revisions; None: it does not exist there."""

    key: bytes
    before: KeyValue | None
    after: KeyValue | None


class EventPage(NamedTuple):
    """Events of whole revisions, ascending; every revision up to ``through`` has been looked at."""

    groups: list[tuple[int, list[Event]]]
    through: int


class Lag(NamedTuple):
    """What was submitted and is not written yet."""

    entries: int
    bytes: int
