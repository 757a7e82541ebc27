"""A member's own stream (L), read through the API, and whether its anchors in stream M hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from configsvc.audit.actors import actor_hash
from configsvc.audit.leaf import decode_leaf
from configsvc.audit.merkle import Frontier
from configsvc.audit.verify import Anchor, Verdict
from configsvc.cli.audit_judge import Finding
from configsvc.errors import ConfigServiceError, DecodeError

if TYPE_CHECKING:
    from configsvc.client import Client, Endpoint


class LocalLeaf(NamedTuple):
    """One record as the member sent it."""

    seq: int
    leaf: bytes
    reason: str
    ticket: str


class LocalLog:
    """One member's stream; origin, head and ``actors`` fill up while ``leaves`` is read."""

    def __init__(self, client: Client, endpoint: Endpoint) -> None:
        self._client = client
        self.endpoint = endpoint
        self.origin = ""
        self.size = 0
        self.root = b""
        self.actors: dict[bytes, bytes] = {}  # hash -> record

    def leaves(self, first: int = 0, limit: int = 0) -> Iterator[LocalLeaf]:
        """Records from ``first`` on, at most ``limit`` of them; 0: all.

        Raises:
            DecodeError: an actor record that is not what its hash says.
        """
        from configsvc.proto import v1_pb2

        for chunk in self._client.stream(
            "/configsvc.v1.Audit/LocalExport",
            v1_pb2.ExportRequest(from_seq=first, limit=limit),
            v1_pb2.ExportChunk,
            endpoint=self.endpoint,
        ):
            if chunk.origin:
                self.origin, self.size, self.root = chunk.origin, chunk.size, chunk.root
            for actor in chunk.actors:
                if actor_hash(actor.salt, actor.record) != actor.hash:
                    raise DecodeError("an actor record is not what its hash says")
                self.actors[actor.hash] = actor.record
            for each in chunk.leaves:
                yield LocalLeaf(each.seq, each.leaf, each.reason, each.ticket)


def judge_local(log: LocalLog, anchors: Iterable[Anchor]) -> Finding:
    """Whether a stream is whole, and holds every head that stream M has an anchor of.

    Args:
        log: Not read yet.
        anchors: Of all members, from a log that was verified.
    """
    where = f"{log.endpoint} local"
    count = 0
    try:
        problem, count = _problem(log, tuple(anchors))
    except DecodeError as error:
        problem = str(error)
    except ConfigServiceError as error:
        why = " ".join(str(error).split()) or type(error).__name__
        return Finding(where, Verdict.INCOMPLETE, why, -1, count, 0, False)
    verdict = Verdict.TAMPERED if problem else Verdict.INTACT
    return Finding(where, verdict, problem, -1, count, 0, False)


def _problem(log: LocalLog, anchors: tuple[Anchor, ...]) -> tuple[str, int]:
    frontier = Frontier()
    roots: dict[int, bytes] = {}
    wanted = {anchor.size for anchor in anchors}
    last_ns = 0
    for each in log.leaves():
        fields = decode_leaf(each.leaf)
        at = frontier.size
        if each.seq != at or fields.get("seq") != at:
            return f"record {at} is missing or out of place", at
        if fields.get("actor") not in log.actors:
            return f"record {at} names an actor that is not there", at
        if int(fields.get("time_ns", 0)) < last_ns:
            return f"record {at} is older than the one before it", at
        last_ns = int(fields.get("time_ns", 0))
        frontier.append(each.leaf)
        if frontier.size in wanted:
            roots[frontier.size] = frontier.root()
    for anchor in anchors:
        if anchor.origin == log.origin and roots.get(anchor.size) != anchor.root:
            held = "is shorter" if anchor.size > frontier.size else "has another root"
            text = f"the stream {held} than its anchor of {anchor.size} records (seq {anchor.seq})"
            return text, frontier.size
    return "", frontier.size
