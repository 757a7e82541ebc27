"""How scenario scripts print what a core hands out."""

from __future__ import annotations

from configsvc.raft.confchange_codec import decode_conf_change
from configsvc.raft.messages import (
    APPEND_THREAD,
    APPLY_THREAD,
    ConfChangeType,
    Entry,
    EntryKind,
    HardState,
    Message,
    MessageType,
    Ready,
    Role,
    Snapshot,
)
from configsvc.raft.node import PeerStatus, Status
from configsvc.types import NodeId

ROLES = {
    Role.FOLLOWER: "StateFollower",
    Role.CANDIDATE: "StateCandidate",
    Role.LEADER: "StateLeader",
    Role.PRE_CANDIDATE: "StatePreCandidate",
}
_LETTERS = {
    ConfChangeType.ADD_NODE: "v",
    ConfChangeType.ADD_LEARNER: "l",
    ConfChangeType.REMOVE_NODE: "r",
    ConfChangeType.UPDATE_NODE: "u",
}
_ESCAPES = {ord("\\"): "\\\\", ord('"'): '\\"', ord("\n"): "\\n", ord("\t"): "\\t"}


def type_name(kind: MessageType) -> str:
    """``APP_RESP`` is ``MsgAppResp``."""
    return "Msg" + "".join(part.capitalize() for part in kind.name.split("_"))


def ready_text(ready: Ready) -> str:
    parts = []
    if ready.soft_state is not None:
        parts.append(f"Lead:{ready.soft_state.lead} State:{ROLES[ready.soft_state.role]}")
    if ready.hard_state is not None:
        parts.append("HardState " + hard_state_text(ready.hard_state))
    if ready.read_states:
        shown = [f"{read.index}:{read.context.decode()}" for read in ready.read_states]
        parts.append(f"ReadStates [{' '.join(shown)}]")
    if ready.entries:
        parts += ["Entries:", *map(entry_text, ready.entries)]
    if ready.snapshot is not None:
        parts.append("Snapshot " + snapshot_text(ready.snapshot))
    if ready.committed_entries:
        parts += ["CommittedEntries:", *map(entry_text, ready.committed_entries)]
    if ready.messages:
        parts += ["Messages:", *map(message_text, ready.messages)]
    if not parts:
        return "<empty Ready>"
    return "\n".join([f"Ready MustSync={str(ready.must_sync).lower()}:", *parts])


def hard_state_text(hard: HardState) -> str:
    vote = f" Vote:{hard.vote}" if hard.vote else ""
    return f"Term:{hard.term}{vote} Commit:{hard.commit}"


def entry_text(entry: Entry) -> str:
    place = f"{entry.term}/{entry.index} "
    if entry.kind == EntryKind.NORMAL:
        return place + "EntryNormal " + quoted(entry.data)
    name = "EntryConfChange" if entry.kind == EntryKind.CONF_CHANGE else "EntryConfChangeV2"
    changes = decode_conf_change(entry.data).changes
    return " ".join([place + name, *(f"{_LETTERS[c.type]}{c.node_id}" for c in changes)])


def quoted(data: bytes) -> str:
    def escaped(byte: int) -> str:
        return _ESCAPES.get(byte) or (chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}")

    return '"' + "".join(map(escaped, data)) + '"'


def snapshot_text(snapshot: Snapshot) -> str:
    def shown(ids: tuple[NodeId, ...]) -> str:
        return "[" + " ".join(map(str, ids)) + "]"

    conf = snapshot.conf_state
    return (
        f"Index:{snapshot.index} Term:{snapshot.term} ConfState:Voters:{shown(conf.voters)}"
        f" VotersOutgoing:{shown(conf.voters_outgoing)} Learners:{shown(conf.learners)}"
        f" LearnersNext:{shown(conf.learners_next)} AutoLeave:{str(conf.auto_leave).lower()}"
    )


def message_text(message: Message) -> str:
    """One message; lines after the first are indented relative to it."""
    text = (
        f"{_target(message.from_)}->{_target(message.to)} {type_name(message.type)}"
        f" Term:{message.term} Log:{message.log_term}/{message.index}"
    )
    if message.reject:
        text += f" Rejected (Hint: {message.reject_hint})"
    if message.commit:
        text += f" Commit:{message.commit}"
    if message.vote:
        text += f" Vote:{message.vote}"
    if len(message.entries) == 1:
        text += f" Entries:[{entry_text(message.entries[0])}]"
    elif message.entries:
        text += " Entries:[" + "".join(f"\n  {entry_text(e)}" for e in message.entries) + "\n]"
    if message.snapshot is not None and message.snapshot.index:
        text += "\n  Snapshot: " + snapshot_text(message.snapshot)
    if message.responses:
        inner = "\n".join(map(message_text, message.responses))
        text += " Responses:[\n" + indented(inner) + "\n]"
    return text


def indented(text: str) -> str:
    return "\n".join("  " + line for line in text.split("\n"))


def _target(member: NodeId) -> str:
    names = {0: "None", APPEND_THREAD: "AppendThread", APPLY_THREAD: "ApplyThread"}
    return names.get(member) or f"{member:x}"


def status_line(status: Status) -> str:
    conf = status.conf_state
    voter = status.id in conf.voters + conf.voters_outgoing
    return (
        f"{status.id}: {ROLES[status.role]} ({'Voter' if voter else 'Non-Voter'})"
        f" Term:{status.term} Lead:{status.lead}"
    )


def progress_line(member: int, peer: PeerStatus) -> str:
    line = f"{member}: {peer.state.value} match={peer.match} next={peer.next}"
    if peer.is_learner:
        line += " learner"
    if peer.paused:
        line += " paused"
    if peer.pending_snapshot:
        line += f" pendingSnap={peer.pending_snapshot}"
    if not peer.recent_active:
        line += " inactive"
    if peer.inflight:
        line += f" inflight={peer.inflight}{'[full]' if peer.inflight_full else ''}"
    return line
