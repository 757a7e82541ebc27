"""The replicated list of members and the rules of changing it (wire/behaviour.md M1–M8).

A change is validated here, at apply, on every member alike: the consensus core is told only about
changes that passed (reliability.md 5.5 e).

Always true:
  * An id that was removed never comes back.
  * A peer URL belongs to one member.
  * A change never leaves fewer started voters than the new quorum (M6), apart from growing a
    started single member to two.

Not here: the core's own configuration (``raft``), who is connected (``runtime``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final, NamedTuple

from configsvc.apply.commands import MemberAttributesOp, MemberChangeOp, TableChange
from configsvc.errors import (
    ConflictError,
    InvalidArgumentError,
    MemberBadURLsError,
    MemberExistError,
    MemberNotEnoughStartedError,
    MemberNotFoundError,
    MemberNotLearnerError,
    PeerURLExistError,
    TooManyLearnersError,
)
from configsvc.limits import LEARNERS_MAX, URL_CHARS_MAX, URLS_PER_MEMBER_MAX

ADD: Final = "add"
PROMOTE: Final = "promote"
REMOVE: Final = "remove"
UPDATE: Final = "update"
ACTIONS: Final = (ADD, PROMOTE, REMOVE, UPDATE)

_SCHEMES: Final = ("http", "https", "unix", "unixs")


class Member(NamedTuple):
    """One member as all members know it."""

    id: int
    name: str  # empty until it published itself: it has not started yet (M1)
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    is_learner: bool
    store_id: bytes
    version: str


class Members:
    """Members by id, and the tombstones of removed ones."""

    __slots__ = ("by_id", "removed")

    def __init__(self) -> None:
        self.by_id: dict[int, Member] = {}
        self.removed: set[int] = set()

    def sorted(self) -> list[Member]:
        """By id (M1)."""
        return [member for _, member in sorted(self.by_id.items())]

    # --- changes ---------------------------------------------------------------------------------

    def change(self, op: MemberChangeOp) -> tuple[TableChange, ...]:
        """Validate and make one change. Raises the errors of ``wire/errors.md``, "Cluster"."""
        if op.action == ADD:
            return self._add(op)
        if op.action not in ACTIONS:
            raise InvalidArgumentError("configsvc: unknown membership change")
        member = self.by_id.get(op.member)
        if member is None:
            raise MemberNotFoundError
        if op.action == REMOVE:
            return self._remove(member)
        if op.action == PROMOTE:
            if not member.is_learner:
                raise MemberNotLearnerError
            self._require_started(self._started() + 1, self._voters() + 1)
            return self._put(member._replace(is_learner=False))
        self._check_urls(op.peer_urls, but=member.id)
        return self._put(member._replace(peer_urls=op.peer_urls))

    def genesis(self, ops: Iterable[MemberChangeOp]) -> tuple[TableChange, ...]:
        """The first members; nobody has started yet, so the quorum rule does not apply."""
        made = Members()
        changes: list[TableChange] = []
        for op in ops:
            made._check_new(op)
            changes += made._put(_fresh(op))
        self.by_id = made.by_id
        return tuple(changes)

    def publish(self, op: MemberAttributesOp) -> tuple[TableChange, ...]:
        """A member tells its name and addresses; repeating it changes nothing.

        Raises:
            MemberNotFoundError: unknown or removed.
            ConflictError: the member is known with another store id: it lost its data (G1).
            MemberBadURLsError: a client URL that is none.
        """
        member = self.by_id.get(op.member)
        if member is None:
            raise MemberNotFoundError
        if member.store_id and member.store_id != op.store_id:
            raise ConflictError("configsvc: member is known with another store id")
        for url in op.client_urls:
            check_url(url)
        if not op.name or len(op.client_urls) > URLS_PER_MEMBER_MAX:
            raise InvalidArgumentError("configsvc: member publishes no name or too many URLs")
        after = member._replace(
            name=op.name, client_urls=op.client_urls, store_id=op.store_id, version=op.version
        )
        return () if after == member else self._put(after)

    def _add(self, op: MemberChangeOp) -> tuple[TableChange, ...]:
        self._check_new(op)
        if op.is_learner:
            if sum(member.is_learner for member in self.by_id.values()) >= LEARNERS_MAX:
                raise TooManyLearnersError
        else:
            started, voters = self._started(), self._voters()
            if (started, voters) != (1, 1):
                self._require_started(started, voters + 1)
        return self._put(_fresh(op))

    def _check_new(self, op: MemberChangeOp) -> None:
        if op.member in self.removed:
            raise MemberNotFoundError
        if op.member in self.by_id:
            raise MemberExistError
        self._check_urls(op.peer_urls, but=0)

    def _remove(self, member: Member) -> tuple[TableChange, ...]:
        if not member.is_learner:
            voters = self._voters() - 1
            if not voters:
                raise MemberNotEnoughStartedError
            self._require_started(self._started() - bool(member.name), voters)
        del self.by_id[member.id]
        self.removed.add(member.id)
        return (
            TableChange("members", (member.id,), None),
            TableChange("removed_members", (member.id,), ()),
        )

    def _put(self, member: Member) -> tuple[TableChange, ...]:
        self.by_id[member.id] = member
        return (TableChange("members", (member.id,), _row(member)),)

    # --- conditions ------------------------------------------------------------------------------

    def _voters(self) -> int:
        return sum(not member.is_learner for member in self.by_id.values())

    def _started(self) -> int:
        return sum(bool(m.name) and not m.is_learner for m in self.by_id.values())

    def _require_started(self, started: int, voters: int) -> None:
        if started < voters // 2 + 1:
            raise MemberNotEnoughStartedError

    def _check_urls(self, urls: tuple[str, ...], *, but: int) -> None:
        if not urls or len(urls) > URLS_PER_MEMBER_MAX:
            raise MemberBadURLsError
        for url in urls:
            check_url(url)
        taken = {u for member in self.by_id.values() if member.id != but for u in member.peer_urls}
        if not taken.isdisjoint(urls):
            raise PeerURLExistError

    # --- start and restore -----------------------------------------------------------------------

    def load(
        self,
        members: Iterable[tuple[int, str, str, str, bool, bytes, str]],
        removed: Iterable[tuple[int]],
    ) -> None:
        """Become what the rows of the two tables say."""
        self.by_id = {
            row[0]: Member(
                row[0],
                row[1],
                tuple(json.loads(row[2])),
                tuple(json.loads(row[3])),
                bool(row[4]),
                row[5],
                row[6],
            )
            for row in members
        }
        self.removed = {member_id for (member_id,) in removed}

    def rows(self) -> list[tuple[object, ...]]:
        """Rows of the table ``members``, by id."""
        return [(member.id, *_row(member)) for member in self.sorted()]


def check_url(url: str) -> None:
    """Raise ``MemberBadURLsError`` unless ``url`` is scheme, host and port without a path."""
    scheme, mark, rest = url.partition("://")
    host, colon, port = rest.rpartition(":")
    good = (
        mark
        and scheme in _SCHEMES
        and len(url) <= URL_CHARS_MAX
        and url.isprintable()
        and host
        and colon
        and not any(c in rest for c in "/?#@ \\")
    )
    if not good or not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise MemberBadURLsError


def _fresh(op: MemberChangeOp) -> Member:
    return Member(op.member, "", op.peer_urls, (), op.is_learner, b"", "")


def _row(member: Member) -> tuple[object, ...]:
    return (
        member.name,
        json.dumps(member.peer_urls, separators=(",", ":")),
        json.dumps(member.client_urls, separators=(",", ":")),
        member.is_learner,
        member.store_id,
        member.version,
    )
