"""The quorum language: what one or two majorities have committed or voted."""

from __future__ import annotations

from scenario_script import Paragraph

from configsvc.raft import quorum
from configsvc.types import NodeId

_VOTES = {"y": True, "n": False}


class QuorumInterpreter:
    """Stateless."""

    def run(self, paragraph: Paragraph) -> str:
        first = tuple(NodeId(i) for i in paragraph.ids("cfg"))
        second = tuple(NodeId(i) for i in _outgoing(paragraph))
        ids = list(dict.fromkeys(first + second))
        words = paragraph.options.get("idx" if paragraph.command == "committed" else "votes", ())
        words = tuple(word for word in words if word)
        if len(words) != len(ids):
            return f"error: mismatched input (explicit or _) for voters {ids}: {words}"
        values = dict(zip(ids, words, strict=True))
        if paragraph.command == "vote":
            votes = {i: _VOTES[word] for i, word in values.items() if word != "_"}
            return quorum.vote_result(first, second, votes).value
        assert paragraph.command == "committed", "unknown command"
        acked = {i: int(word) for i, word in values.items() if word != "_"}
        index = quorum.committed_index(first, second, lambda voter: acked.get(voter, 0))
        return _table(ids, acked) + ("∞" if index == quorum.INFINITE_INDEX else str(index))


def _outgoing(paragraph: Paragraph) -> list[int]:
    return [] if paragraph.text("cfgj") == "zero" else paragraph.ids("cfgj")


def _table(ids: list[NodeId], acked: dict[NodeId, int]) -> str:
    if not ids:
        return "<empty majority quorum>"
    count = len(ids)
    bars = _bars(ids, acked)
    lines = [" " * (count + 4) + "idx"]
    for member in sorted(ids):
        bar = bars[member]
        known = "x" * bar + ">" + " " * (count - bar) if member in acked else "?" + " " * count
        lines.append(f"{known} {acked.get(member, 0):>5}    (id={member:x})")
    return "\n".join(lines) + "\n"


def _bars(ids: list[NodeId], acked: dict[NodeId, int]) -> dict[NodeId, int]:
    """How many members each one is ahead of; equals share the number of the first."""
    bars: dict[NodeId, int] = {}
    ordered = sorted((acked.get(member, 0), member) for member in ids)
    for position, (index, member) in enumerate(ordered):
        before = ordered[position - 1] if position else None
        same = before is not None and before[0] == index
        bars[member] = bars[before[1]] if before is not None and same else position
    return bars
