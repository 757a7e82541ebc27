"""The interaction language: whole nodes, and one list of messages in flight between them.

The commands of the public scripts, and more of our own for what those leave out: reads, the
outcome of installs, restarts, duplicated and reordered messages, batches, byte bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from scenario_confchange import operations
from scenario_format import entry_text, message_text, progress_line, status_line, type_name
from scenario_node import ScenarioError, ScenarioNode, headed
from scenario_script import Paragraph

from configsvc.raft.config import RaftConfig
from configsvc.raft.errors import RaftError
from configsvc.raft.messages import (
    APPEND_THREAD,
    APPLY_THREAD,
    ConfChange,
    ConfChangeTransition,
    ConfState,
    Message,
    MessageType,
    Snapshot,
)
from configsvc.types import LogIndex, NodeId, Term

_LEVELS = ("DEBUG", "INFO", "WARN", "ERROR", "FATAL", "NONE")
_THREADS = (APPEND_THREAD, APPLY_THREAD)
_TRANSITIONS = {
    "auto": ConfChangeTransition.AUTO,
    "implicit": ConfChangeTransition.JOINT_IMPLICIT,
    "explicit": ConfChangeTransition.JOINT_EXPLICIT,
}
_NUMBERS = {  # options of add-nodes that are numbers of the same meaning
    "inflight": "inflight_messages",
    "max-committed-size-per-ready": "max_committed_bytes_per_ready",
    "max-append-bytes": "max_append_bytes",
    "inflight-bytes": "inflight_bytes",
    "max-uncommitted-bytes": "max_uncommitted_bytes",
    "pending-reads": "pending_reads",
}
_FLAGS = {
    "async-storage-writes": "async_storage_writes",
    "prevote": "pre_vote",
    "checkquorum": "check_quorum",
    "step-down-on-removal": "step_down_on_removal",
    "forward-proposals": "forward_proposals",
}


class ClusterInterpreter:
    """The environment of one file."""

    def __init__(self) -> None:
        self._nodes: dict[int, ScenarioNode] = {}
        self._flight: list[Message] = []
        self._silent = False
        self._output: list[str] = []

    def run(self, paragraph: Paragraph) -> str:
        self._output = []
        name = "_do_" + paragraph.command.strip("_").replace("-", "_")
        command: Callable[[Paragraph], None] | None = getattr(self, name, None)
        if command is None:
            return "unknown command"
        try:
            command(paragraph)
        except (RaftError, ScenarioError, ValueError) as error:
            self._output.append(str(error))  # errors are shown at every level
        return "\n".join(self._output)

    def _say(self, *lines: str) -> None:
        if not self._silent:
            self._output += lines

    def _node(self, paragraph: Paragraph, position: int = 0) -> ScenarioNode:
        return self._nodes[int(paragraph.positional[position])]

    # --- setting up -------------------------------------------------------------------------

    def _do_log_level(self, paragraph: Paragraph) -> None:
        level = paragraph.positional[0].upper()
        if level not in _LEVELS:
            raise ScenarioError(f"log levels must be either of [{' '.join(_LEVELS)}]")
        self._silent = level == "NONE"

    def _do_breakpoint(self, paragraph: Paragraph) -> None:
        """A place to stop at in a debugger."""

    def _do_add_nodes(self, paragraph: Paragraph) -> None:
        mode = paragraph.text("read-only", "safe")
        if mode not in ("safe", "lease-based"):
            raise ScenarioError(f'invalid read-only option "{mode}"')
        start = _start_snapshot(paragraph)
        settings: dict[str, object] = {
            name: paragraph.number(option, 0)
            for option, name in _NUMBERS.items()
            if option in paragraph.options
        }
        settings |= {
            name: paragraph.flag(option)
            for option, name in _FLAGS.items()
            if option in paragraph.options
        }
        settings["read_only"] = mode
        settings["validate_conf_changes"] = not paragraph.flag("disable-conf-change-validation")
        for _ in range(int(paragraph.positional[0])):
            member = len(self._nodes) + 1
            config = RaftConfig(id=NodeId(member), **settings)  # type: ignore[arg-type]
            self._nodes[member] = ScenarioNode(config, start)

    def _do_set_randomized_election_timeout(self, paragraph: Paragraph) -> None:
        self._node(paragraph).core.raft.randomized_timeout = paragraph.number("timeout", 0)

    # --- input to a core --------------------------------------------------------------------

    def _do_campaign(self, paragraph: Paragraph) -> None:
        self._node(paragraph).core.campaign()

    def _do_tick_heartbeat(self, paragraph: Paragraph) -> None:
        node = self._node(paragraph)
        for _ in range(node.config.heartbeat_ticks):
            node.core.tick()

    def _do_tick_election(self, paragraph: Paragraph) -> None:
        node = self._node(paragraph)
        for _ in range(node.config.election_ticks):
            node.core.tick()

    def _do_propose(self, paragraph: Paragraph) -> None:
        self._node(paragraph).core.propose([paragraph.positional[1].encode()])

    def _do_propose_batch(self, paragraph: Paragraph) -> None:
        self._node(paragraph).core.propose([word.encode() for word in paragraph.positional[1:]])

    def _do_propose_conf_change(self, paragraph: Paragraph) -> None:
        unknown = [key for key in paragraph.options if key not in ("v1", "transition")]
        if unknown:
            raise ScenarioError(f"unknown command {unknown[0]}")
        transition = paragraph.text("transition", "auto")
        if transition not in _TRANSITIONS:
            raise ScenarioError(f"unknown transition {transition}")
        changes, v1 = operations(paragraph.input), paragraph.flag("v1")
        if v1 and (len(changes) != 1 or transition != "auto"):
            raise ScenarioError("v1 conf change can only have one operation and no transition")
        change = ConfChange(changes, _TRANSITIONS[transition], v1=v1)
        self._node(paragraph).core.propose_conf_change(change)

    def _do_transfer_leadership(self, paragraph: Paragraph) -> None:
        node = self._nodes[paragraph.number("from", 0)]
        node.core.transfer_leader(NodeId(paragraph.number("to", 0)))

    def _do_forget_leader(self, paragraph: Paragraph) -> None:
        self._node(paragraph).core.forget_leader()

    def _do_step_down(self, paragraph: Paragraph) -> None:
        self._node(paragraph).core.step_down()

    def _do_set_promotable(self, paragraph: Paragraph) -> None:
        self._node(paragraph).core.set_promotable(paragraph.flag("allowed"))

    def _do_set_transferable(self, paragraph: Paragraph) -> None:
        self._node(paragraph).core.set_transferable(paragraph.flag("allowed"))

    def _do_report_unreachable(self, paragraph: Paragraph) -> None:
        ids = paragraph.ids()
        if len(ids) != 2:
            raise ScenarioError(
                "must specify exactly two node indexes: node on which to report, and reported node"
            )
        self._nodes[ids[0]].core.report_unreachable(NodeId(ids[1]))

    def _do_report_snapshot(self, paragraph: Paragraph) -> None:
        member = NodeId(int(paragraph.positional[1]))
        self._node(paragraph).core.report_snapshot(member, paragraph.flag("ok"))

    def _do_read_index(self, paragraph: Paragraph) -> None:
        self._node(paragraph).core.read_index(paragraph.positional[1].encode())

    def _do_restart(self, paragraph: Paragraph) -> None:
        """The node loses its memory and its unfinished work; storage stays as it is."""
        for member in paragraph.ids():
            self._nodes[member].restart()

    # --- looking ----------------------------------------------------------------------------

    def _do_raft_log(self, paragraph: Paragraph) -> None:
        storage = self._node(paragraph).storage
        first, last = storage.first_index(), storage.last_index()
        if first > last:
            self._say(f"log is empty: first index={first}, last index={last}")
        else:
            self._say(*map(entry_text, storage.entries(first, last + 1, 2**63)))

    def _do_raft_state(self, paragraph: Paragraph) -> None:
        self._say(*(status_line(node.core.status()) for node in self._nodes.values()))

    def _do_status(self, paragraph: Paragraph) -> None:
        progress = self._node(paragraph).core.status().progress
        self._say(*(progress_line(member, peer) for member, peer in progress.items()))

    def _do_compact(self, paragraph: Paragraph) -> None:
        self._node(paragraph).storage.compact(int(paragraph.positional[1]))
        self._do_raft_log(paragraph)

    # --- storage and network ----------------------------------------------------------------

    def _do_send_snapshot(self, paragraph: Paragraph) -> None:
        source, target = paragraph.ids()
        node = self._nodes[source]
        message = Message(
            MessageType.SNAP,
            to=NodeId(target),
            from_=NodeId(source),
            term=node.core.term,
            snapshot=node.history[-1],
        )
        self._flight.append(message)
        self._say(message_text(message))

    def _do_process_ready(self, paragraph: Paragraph) -> None:
        self._each(paragraph.ids(), "handling Ready", ScenarioNode.process_ready)

    def _do_process_append_thread(self, paragraph: Paragraph) -> None:
        self._each(paragraph.ids(), "processing append thread", ScenarioNode.process_append)

    def _do_process_apply_thread(self, paragraph: Paragraph) -> None:
        self._each(paragraph.ids(), "processing apply thread", ScenarioNode.process_apply)

    def _each(
        self, ids: list[int], what: str, work: Callable[[ScenarioNode, list[Message]], str]
    ) -> None:
        for member in ids:
            text = work(self._nodes[member], self._flight)
            self._say(*(headed(member, what, text) if len(ids) > 1 else text).split("\n"))

    def _do_deliver_msgs(self, paragraph: Paragraph) -> None:
        kind = paragraph.text("type")
        delivered = [self._deliver(member, kind=kind) for member in paragraph.ids()]
        dropped = [self._drop(member, kind=kind) for member in paragraph.ids("drop")]
        if not any(delivered + dropped):
            self._say("no messages")

    def _do_duplicate_msgs(self, paragraph: Paragraph) -> None:
        """Messages in flight to the given ids arrive once more, behind all others."""
        for member in paragraph.ids():
            self._flight += [m for m in self._flight if m.to == member and not _is_local(m)]

    def _do_reverse_msgs(self, paragraph: Paragraph) -> None:
        """Messages in flight to the given ids arrive in the opposite order."""
        for member in paragraph.ids():
            taken = self._take(member, lambda m: not _is_local(m))
            self._flight += reversed(taken)

    def _take(self, member: int, wanted: Callable[[Message], bool]) -> list[Message]:
        taken = [m for m in self._flight if m.to == member and wanted(m)]
        self._flight = [m for m in self._flight if not (m.to == member and wanted(m))]
        return taken

    def _drop(self, member: int, *, kind: str = "") -> int:
        messages = self._take(member, lambda m: _is_kind(m, kind) and not _is_local(m))
        for message in messages:
            self._say(*("dropped: " + message_text(message)).split("\n"))
        return len(messages)

    def _deliver(self, member: int, *, kind: str = "") -> int:
        messages = self._take(member, lambda m: _is_kind(m, kind))
        for message in messages:
            self._say(*message_text(message).split("\n"))
            try:
                self._nodes[member].core.step(message)
            except RaftError as error:
                self._output.append(str(error))
        return len(messages)

    # --- until nothing happens --------------------------------------------------------------

    def _do_stabilize(self, paragraph: Paragraph) -> None:
        before = self._silent
        if "log-level" in paragraph.options:
            self._silent = paragraph.text("log-level").upper() == "NONE"
        ids = paragraph.ids() or list(self._nodes)
        while self._round(ids):
            pass
        self._silent = before

    def _round(self, ids: Iterable[int]) -> bool:
        """Four phases over all nodes; whether anything happened."""
        busy = False
        for member in ids:
            if self._nodes[member].core.has_ready():
                busy = True
                text = self._nodes[member].process_ready(self._flight)
                self._say(*headed(member, "handling Ready", text).split("\n"))
        for member in ids:
            busy |= self._receive(member)
        for member in ids:
            node = self._nodes[member]
            if node.append_work:
                busy = True
                self._say(f"> {member} processing append thread")
                while node.append_work:
                    self._say_nested(node.process_append(self._flight))
        for member in ids:
            node = self._nodes[member]
            if node.apply_work:
                busy = True
                self._say(f"> {member} processing apply thread")
                while node.apply_work:
                    self._say_nested(node.process_apply(self._flight))
        return busy

    def _receive(self, member: int) -> bool:
        if not any(message.to == member for message in self._flight):
            return False
        self._say(f"> {member} receiving messages")
        start = len(self._output)
        self._deliver(member)
        self._output[start:] = ["  " + line for line in self._output[start:]]
        return True

    def _say_nested(self, text: str) -> None:
        self._say(*("  " + line for line in text.split("\n")))


def _start_snapshot(paragraph: Paragraph) -> Snapshot:
    if not {"voters", "learners", "index"} & paragraph.options.keys():
        return Snapshot()
    index = paragraph.number("index", 0)
    if index <= 1:
        raise ScenarioError("index must be specified as > 1 due to bootstrap")
    conf = ConfState(
        voters=tuple(NodeId(i) for i in sorted(paragraph.ids("voters"))),
        learners=tuple(NodeId(i) for i in sorted(paragraph.ids("learners"))),
    )
    return Snapshot(LogIndex(index), Term(1), conf, paragraph.text("content").encode())


def _is_kind(message: Message, kind: str) -> bool:
    return not kind or type_name(message.type) == kind


def _is_local(message: Message) -> bool:
    return message.from_ == message.to or message.from_ in _THREADS or message.to in _THREADS
