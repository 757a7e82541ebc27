"""What appends, heartbeats, snapshots and their answers do, on both sides.

Not here: sending (``raft.sending``), the log's own rules (``raft.log``).
"""

from __future__ import annotations

from configsvc.errors import DecodeError, ExitCode, FatalError
from configsvc.raft import reads
from configsvc.raft.membership import confchange
from configsvc.raft.membership.switching import restore_conf_state
from configsvc.raft.messages import Message, MessageType, Snapshot, append_answer
from configsvc.raft.progress import Progress, ProgressState
from configsvc.raft.sending import broadcast_append, maybe_commit, send_append, send_timeout_now
from configsvc.raft.state import Raft
from configsvc.types import LogIndex, Term

# --- as follower ------------------------------------------------------------------------


def take_append(raft: Raft, message: Message) -> None:
    """Extend the log behind ``message.index``, or say where it may match."""
    _check_consecutive(message)
    log = raft.log
    if message.index < log.committed:
        _acknowledge(raft, message, log.committed)
        return
    last_new = log.try_append(message.index, message.log_term, message.entries, message.commit)
    if last_new is not None:
        _acknowledge(raft, message, last_new)
        return
    hint, hint_term = log.conflict_by_term(min(message.index, log.last_index), message.log_term)
    raft.send(
        Message(
            MessageType.APP_RESP,
            to=message.from_,
            index=message.index,
            reject=True,
            reject_hint=LogIndex(hint),
            log_term=Term(hint_term),
        )
    )


def take_heartbeat(raft: Raft, message: Message) -> None:
    """Follow the commit index and acknowledge the read round.

    Raises:
        FatalError: the leader knows of acknowledged entries that this log does not hold (#48).
    """
    if message.commit > raft.log.last_index:
        raise FatalError(
            ExitCode.WENT_BACK,
            f"the leader knows that this member acknowledged the log up to {message.commit}, "
            f"but it ends at {raft.log.last_index}",
            "replace this member; never restore the data directory of one member",
        )
    # The leader counts on what we acknowledged before a restart. In a directory of yesterday the
    # same index may hold an entry that was replaced since: only appends tell (#48).
    raft.log.commit_to(min(message.commit, raft.verified))
    raft.send(
        Message(
            MessageType.HEARTBEAT_RESP,
            to=message.from_,
            context=message.context,
            read_round=message.read_round,
        )
    )


def take_snapshot(raft: Raft, message: Message) -> None:
    """Replace log and configuration, unless the snapshot brings nothing or is not for us."""
    snapshot = message.snapshot
    if snapshot is None:
        raise DecodeError("a snapshot message without a snapshot")
    restored = _restore(raft, snapshot)
    _acknowledge(raft, message, raft.log.last_index if restored else raft.log.committed)


def _restore(raft: Raft, snapshot: Snapshot) -> bool:
    log = raft.log
    if snapshot.index <= log.committed:
        return False
    if log.applying > log.applied:
        # Entries are being applied: their configuration changes must not meet the snapshot's
        # configuration (#22). The leader offers the snapshot again.
        return False
    conf = snapshot.conf_state
    if raft.id not in confchange.voters_of_both(conf) + conf.learners:
        return False
    if log.matches(snapshot.index, snapshot.term):
        log.commit_to(snapshot.index)  # everything is here: only the commit index was behind
        return False
    restore_conf_state(raft, snapshot)
    return True


def _acknowledge(raft: Raft, message: Message, index: int) -> None:
    if index > raft.verified:
        raft.verified = index
    raft.outbox_after_append.append(append_answer(message.from_, raft.id, raft.term, index))


def _check_consecutive(message: Message) -> None:
    entries = message.entries
    if entries and not (
        entries[0].index == message.index + 1
        and entries[-1].index == message.index + len(entries)
        and entries[-1].term <= message.term
    ):
        raise DecodeError("entries of an append do not follow the entry before them")


# --- as leader --------------------------------------------------------------------------


def on_append_response(raft: Raft, message: Message) -> None:
    """A peer, or the leader's own disk, tells up to where it matches, or refuses."""
    peer = message.from_
    progress = raft.progress.get(peer)
    if progress is None:
        return
    progress.recent_active = True
    if message.reject:
        _on_rejection(raft, message, progress)
        return
    index = message.index
    if index > raft.log.last_index:
        raise DecodeError("a peer acknowledges entries that were never sent")
    confirms_probe = progress.state is ProgressState.PROBE and progress.match == index
    if not progress.acknowledge(index) and not confirms_probe:
        return
    _advance_state(raft, progress, index)
    own = peer == raft.id
    if maybe_commit(raft):
        reads.on_commit(raft)
        if raft.config.tell_commits:
            broadcast_append(raft)
        else:
            raft.commit_untold = len(raft.progress) > 1
    elif not own and progress.can_bump_commit(raft.log.committed):
        if raft.config.tell_commits:
            send_append(raft, peer, progress)
        else:
            raft.commit_untold = len(raft.progress) > 1
    if own:
        return
    # One message may have freed room for several.
    while send_append(raft, peer, progress, if_empty=False):
        pass
    if peer == raft.transferee and progress.match == raft.log.last_index:
        send_timeout_now(raft, peer)


def _on_rejection(raft: Raft, message: Message, progress: Progress) -> None:
    hint: int = message.reject_hint
    if message.log_term > 0:
        # Skip everything of ours that is of a later term than the peer's entry at the hint.
        hint, _ = raft.log.conflict_by_term(hint, message.log_term)
    if progress.reject(message.index, hint):
        if progress.state is ProgressState.REPLICATE:
            progress.become_probe()
        send_append(raft, message.from_, progress)


def _advance_state(raft: Raft, progress: Progress, index: int) -> None:
    """An acknowledgement that counts moves a peer to, or along in, replication."""
    if progress.state is ProgressState.REPLICATE:
        progress.inflights.free_to(index)
    elif progress.state is ProgressState.PROBE:
        progress.become_replicate()
    elif progress.match + 1 >= raft.log.first_index():
        # Any acknowledgement that reaches the retained log ends the wait for a snapshot.
        progress.become_replicate()


def on_heartbeat_response(raft: Raft, message: Message) -> None:
    progress = raft.progress[message.from_]
    progress.recent_active = True
    progress.flow_paused = False
    if progress.match < raft.log.last_index or progress.state is ProgressState.PROBE:
        send_append(raft, message.from_, progress)
    reads.on_acknowledgement(raft, message.from_, message.read_round)


def on_snapshot_status(raft: Raft, message: Message) -> None:
    """The transfer of a snapshot ended, well or not (``reject``): probe, after a pause."""
    progress = raft.progress.get(message.from_)
    if progress is None or progress.state is not ProgressState.SNAPSHOT:
        return
    if message.reject:
        progress.pending_snapshot = 0  # nothing was installed: probe from the match
    progress.become_probe()
    # Success: wait for the peer's own acknowledgement. Failure: do not try again at once.
    progress.flow_paused = True


def on_unreachable(raft: Raft, message: Message) -> None:
    """Messages under way were lost: stop streaming and find out how far the peer got."""
    progress = raft.progress.get(message.from_)
    if progress is not None and progress.state is ProgressState.REPLICATE:
        progress.become_probe()
