"""What goes to peers: appends, snapshots, heartbeats; and how the leader's own log grows.

Not here: what comes back (``raft.replication``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat

from configsvc.errors import ensure
from configsvc.raft.errors import Compacted, SnapshotTemporarilyUnavailable, Unavailable
from configsvc.raft.messages import (
    Entry,
    EntryKind,
    Message,
    MessageType,
    Role,
    append_answer,
    append_message,
)
from configsvc.raft.progress import Progress, ProgressState
from configsvc.raft.sizes import payload_bytes
from configsvc.raft.state import NOBODY, Raft
from configsvc.types import LogIndex, NodeId


def append_payloads(raft: Raft, payloads: Sequence[bytes]) -> bool:
    """Append normal entries to the leader's own log; False if the uncommitted bound refuses."""
    size = sum(map(len, payloads))
    if not _within_uncommitted(raft, size):
        return False
    first = raft.log.last_index + 1
    numbers = range(first, first + len(payloads))
    columns = zip(repeat(raft.term), numbers, repeat(int(EntryKind.NORMAL)), payloads, strict=False)
    _append(raft, tuple(map(Entry._make, columns)), size)
    return True


def append_entries(raft: Raft, entries: Sequence[Entry]) -> bool:
    """As ``append_payloads`` for any kind of entry; terms and indexes are filled in here."""
    size = payload_bytes(entries)
    if not _within_uncommitted(raft, size):
        return False
    first = raft.log.last_index + 1
    numbered = [
        Entry(raft.term, LogIndex(index), entry.kind, entry.data)
        for index, entry in enumerate(entries, first)
    ]
    _append(raft, tuple(numbered), size)
    return True


def _within_uncommitted(raft: Raft, size: int) -> bool:
    """Whether ``size`` more payload bytes may wait for commitment.

    Entries without payload always pass: a leader's first one and the end of a joint configuration
    must not depend on the load. So does anything when nothing waits.
    """
    waiting = raft.uncommitted_bytes
    return not (size and waiting and waiting + size > raft.config.max_uncommitted_bytes)


def _append(raft: Raft, entries: tuple[Entry, ...], size: int) -> None:
    raft.uncommitted_bytes += size
    raft.log.append(entries)
    # The leader counts itself only when its own write is durable (C3).
    own = raft.id
    raft.outbox_after_append.append(append_answer(own, own, raft.term, raft.log.last_index))


def reduce_uncommitted(raft: Raft, applied: tuple[Entry, ...]) -> None:
    """Entries of this leadership are charged until they are applied; older ones never were."""
    if not raft.uncommitted_bytes:
        return
    first = applied[0].index
    if first <= raft.leadership_start:
        applied = applied[raft.leadership_start + 1 - first :]
    raft.uncommitted_bytes -= payload_bytes(applied)
    ensure(raft.uncommitted_bytes >= 0, "more uncommitted bytes freed than charged")


def maybe_commit(raft: Raft) -> bool:
    """Move the commit index to what a quorum holds; whether it moved.

    Only an entry of the own term is committed by counting (Raft paper, 5.4.2).
    """
    index = raft.quorum_index()
    log = raft.log
    if index <= log.committed or log.known_term(index) != raft.term:
        return False
    log.commit_to(index)
    return True


def peers(raft: Raft) -> Iterable[tuple[NodeId, Progress]]:
    """Everybody but the member itself, in ascending order of id."""
    return [(peer, progress) for peer, progress in raft.progress.items() if peer != raft.id]


def broadcast_append(raft: Raft) -> None:
    """One append to everybody who is not paused, empty if need be."""
    for peer, progress in peers(raft):
        send_append(raft, peer, progress)


def tell_commit(raft: Raft, up_to: int, to: NodeId) -> bool:
    """Tell followers that were not told yet that everything up to ``up_to`` is committed.

    ``to`` 0 means all; then only a later commit leaves something untold again. Returns whether
    somebody had to be told.
    """
    if raft.role is not Role.LEADER:
        return False
    told = False
    if to == NOBODY:
        raft.commit_untold = up_to < raft.log.committed
    for peer, progress in peers(raft):
        if progress.sent_commit < up_to and to in (NOBODY, peer):
            told = send_append(raft, peer, progress) or told
    return told


def send_append(raft: Raft, to: NodeId, progress: Progress, *, if_empty: bool = True) -> bool:
    """Send what ``to`` lacks, as one message; whether something was sent.

    An append without entries tells the commit index; it is sent only with ``if_empty``. Where
    the log is gone a snapshot is sent instead.
    """
    if progress.flow_paused or progress.state is ProgressState.SNAPSHOT:
        return False
    log = raft.log
    previous = progress.next - 1
    entries: tuple[Entry, ...] = ()
    try:
        previous_term = log.term(previous)
        # A full window admits only empty appends: their answers recover lost ones (F1).
        if progress.state is ProgressState.PROBE or not progress.inflights.full:
            end = log.last_index + 1
            entries = log.entries(progress.next, end, raft.config.max_append_bytes)
    except (Compacted, Unavailable):
        return _send_snapshot(raft, to, progress)
    if not entries and not if_empty:
        return False
    raft.outbox.append(
        append_message(to, raft.id, raft.term, previous_term, previous, entries, log.committed)
    )
    if entries:
        progress.sent_entries(len(entries), payload_bytes(entries))
    else:
        progress.sent_entries(0, 0)
    progress.sent_commit = log.committed
    return True


def _send_snapshot(raft: Raft, to: NodeId, progress: Progress) -> bool:
    if not progress.recent_active:
        return False  # a peer that does not answer would keep a snapshot alive for nothing
    snapshot = raft.log.unstable.snapshot
    if snapshot is None:
        try:
            snapshot = raft.log.storage.snapshot()
        except SnapshotTemporarilyUnavailable:
            return False
    ensure(snapshot.index > 0, "a snapshot to send must not be empty")
    progress.become_snapshot(snapshot.index)
    raft.send(Message(MessageType.SNAP, to=to, snapshot=snapshot))
    return True


def broadcast_heartbeat(raft: Raft) -> None:
    """Heartbeats to all peers, learners too. They carry the last read round that has begun."""
    for peer, progress in peers(raft):
        # Never more than the peer has acknowledged: its log may end there.
        commit = min(progress.match, raft.log.committed)
        raft.send(
            Message(
                MessageType.HEARTBEAT,
                to=peer,
                commit=LogIndex(commit),
                read_round=raft.reads.begun,
            )
        )
        progress.sent_commit = commit


def send_timeout_now(raft: Raft, to: NodeId) -> None:
    """Make ``to`` campaign at once."""
    raft.send(Message(MessageType.TIMEOUT_NOW, to=to))
