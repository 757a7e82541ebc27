"""In which order a ``Ready`` is carried out, as data (reliability.md 5.2).

The executor, in production and in the simulator, does the steps in the order of the fields: it
sends early while the write is under way, applies what was durable before, waits for the write,
sends late, applies the rest and advances. A crash between any two steps is legal.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from configsvc.errors import ensure
from configsvc.raft.messages import Entry, HardState, Message, MessageType, Ready, Snapshot

_new = tuple.__new__  # skips the Python frame of a named tuple's constructor

# These promise nothing about this member's own disk (C4). Vote requests do: a candidate that came
# back with a shorter log would have collected votes for the longer one.
_EARLY: Final = frozenset(
    {
        MessageType.APP,
        MessageType.HEARTBEAT,
        MessageType.HEARTBEAT_RESP,
        MessageType.SNAP,
        MessageType.TIMEOUT_NOW,
        MessageType.TRANSFER_LEADER,
        MessageType.READ_INDEX,
        MessageType.READ_INDEX_RESP,
    }
)


class Write(NamedTuple):
    """One frame, or one install step. The hard state is whole: a frame always carries it."""

    hard_state: HardState
    entries: tuple[Entry, ...]
    snapshot: Snapshot | None


class Plan(NamedTuple):
    send_early: tuple[Message, ...]  # may overlap with the write
    write: Write | None  # None: nothing to wait for
    apply_now: tuple[Entry, ...]  # durable already
    send_late: tuple[Message, ...]  # after the write is durable
    apply_after: tuple[Entry, ...]  # likewise


def plan(ready: Ready, durable_index: int, previous_hard_state: HardState) -> Plan:
    """Sort the work of ``ready``.

    Args:
        ready: Of a core without asynchronous storage writes.
        durable_index: Last entry known to be on this member's disk.
        previous_hard_state: The one handed out or recovered last, on disk or not: only its
            commit hint may be newer than the disk's (C6).
    """
    hard = ready.hard_state or previous_hard_state
    promises = hard.term != previous_hard_state.term or hard.vote != previous_hard_state.vote
    write = None
    if ready.must_sync or ready.snapshot is not None:
        write = _new(Write, (hard, ready.entries, ready.snapshot))
    ensure(write is not None or not promises, "a new term or vote must be written")
    early, late = split_messages(ready.messages, nothing_early=promises)
    committed = ready.committed_entries
    if ready.entries:
        # What this write replaces is still on disk under the same indexes.
        durable_index = min(durable_index, ready.entries[0].index - 1)
    now = _durable_count(committed, durable_index)
    return _new(Plan, (early, write, committed[:now], late, committed[now:]))


def split_messages(
    messages: tuple[Message, ...], *, nothing_early: bool
) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """Messages that may leave before the write of their Ready, and those that may not.

    ``nothing_early``: the Ready changes term or vote. Storage messages are for no network; with
    asynchronous storage writes the late ones wait for the storage append of their Ready.
    """
    if nothing_early:
        return (), messages
    early = [message for message in messages if message.type in _EARLY]
    if len(early) == len(messages):
        return messages, ()
    if not early:
        return (), messages
    return tuple(early), tuple([message for message in messages if message.type not in _EARLY])


def _durable_count(committed: tuple[Entry, ...], durable_index: int) -> int:
    if not committed:
        return 0
    return max(0, min(len(committed), durable_index + 1 - committed[0].index))
