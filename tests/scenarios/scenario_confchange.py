"""The confchange language: which membership changes are legal, and what progress they leave."""

from __future__ import annotations

from scenario_format import progress_line
from scenario_script import Paragraph

from configsvc.raft.errors import ConfChangeInvalid
from configsvc.raft.membership import confchange
from configsvc.raft.messages import ConfChangeSingle, ConfChangeType, ConfState
from configsvc.raft.node import peer_status
from configsvc.raft.progress import Inflights, Progress
from configsvc.types import NodeId

_LETTERS = {
    "v": ConfChangeType.ADD_NODE,
    "l": ConfChangeType.ADD_LEARNER,
    "r": ConfChangeType.REMOVE_NODE,
    "u": ConfChangeType.UPDATE_NODE,
}


def operations(text: str) -> tuple[ConfChangeSingle, ...]:
    """``v1 l2 r3 u4`` as operations. Raises ValueError with the text that scripts expect."""
    found = []
    for token in text.split():
        if len(token) < 2:
            raise ValueError(f"unknown token {token}")
        if token[0] not in _LETTERS:
            raise ValueError(f"unknown input: {token[0]}")
        found.append(ConfChangeSingle(_LETTERS[token[0]], NodeId(int(token[1:]))))
    return tuple(found)


class ConfChangeInterpreter:
    """One configuration and its progress, both empty at first."""

    def __init__(self) -> None:
        self._conf = ConfState()
        self._progress: dict[NodeId, Progress] = {}
        self._counter = 0  # stands for the leader's last log index

    def run(self, paragraph: Paragraph) -> str:
        try:
            changed = self._change(paragraph)
        except ConfChangeInvalid as refusal:
            return str(refusal)
        finally:
            self._counter += 1
        next_index = max(self._counter - 1, 1)
        self._progress = confchange.renew_progress(
            changed, self._progress, lambda learner: _newcomer(next_index, is_learner=learner)
        )
        self._conf = changed.conf
        lines = [_conf_line(self._conf)]
        lines += [progress_line(i, peer_status(p)) for i, p in self._progress.items()]
        return "\n".join(lines)

    def _change(self, paragraph: Paragraph) -> confchange.Changed:
        changes = operations(paragraph.input)
        if paragraph.command == "simple":
            return confchange.simple(self._conf, changes)
        if paragraph.command == "enter-joint":
            auto_leave = paragraph.flag("autoleave")
            return confchange.enter_joint(self._conf, changes, auto_leave=auto_leave)
        assert paragraph.command == "leave-joint", "unknown command"
        if changes:
            raise ConfChangeInvalid("this command takes no input")
        return confchange.leave_joint(self._conf)


def _newcomer(next_index: int, *, is_learner: bool) -> Progress:
    progress = Progress(next_index, Inflights(10, 2**63), is_learner=is_learner)
    progress.recent_active = True
    return progress


def _conf_line(conf: ConfState) -> str:
    def shown(ids: tuple[NodeId, ...]) -> str:
        return "(" + " ".join(f"{member:x}" for member in ids) + ")"

    line = "voters=" + shown(conf.voters)
    if conf.voters_outgoing:
        line += "&&" + shown(conf.voters_outgoing)
    if conf.learners:
        line += " learners=" + shown(conf.learners)
    if conf.learners_next:
        line += " learners_next=" + shown(conf.learners_next)
    return line + (" autoleave" if conf.auto_leave else "")
