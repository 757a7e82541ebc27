"""Leaves of plain puts, a run of them at a time: most of a log is this.

What is made here is byte for byte what ``record.Recorder.record`` makes of the same put, for a
third of its price: the fields that runs of entries share are packed once, and a run's leaves are
made in one loop.

Not here: which puts are plain (``apply.applier``), everything else (``record``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from struct import Struct
from typing import Final, NamedTuple

from configsvc.audit.actors import KnownActors
from configsvc.audit.changes import PREV_VALUE, VALUE
from configsvc.audit.commitments import HMAC_INNER, HMAC_OUTER, HMAC_PAD, head_of
from configsvc.audit.events import EVENTS
from configsvc.audit.leaf import FORMAT, READER, encode_field, shortened
from configsvc.limits import LEAF_AUTHORS_CACHED_MAX
from configsvc.types import Principal, Source


class PlainPut(NamedTuple):
    """A put that was done, and nothing to be said but who put what.

    Its row has ``sub`` 0 and no lease; no reason, no ticket, no doubt about the time; a salt of
    ``SALT_BYTES`` and a key of ``LEAF_KEY_BYTES_MAX`` at most.
    """

    raft_index: int
    raft_term: int
    request_id: int
    principal: Principal
    source: Source
    salt: bytes
    time_ns: int
    accepted_by: int
    rule: str  # who decided
    roles: tuple[str, ...]  # that the author held then
    key: bytes
    value: bytes


# seq, raft_index, raft_term, revision, time_ns, event, actor, actor_record, actor_salt, outcome,
# salt, reason, ticket, changes
CommitValues = tuple[
    int, int, int, int, int, str, bytes, bytes, bytes, str, bytes, str, str, bytes
]  # fmt: skip

# raft_term, auth_rev, policy_rev, actor, accepting member, rule
_Author = tuple[int, int, int, bytes, int, str]
_Parts = tuple[bytes, bytes, bytes]

# What a key had before, as the key space keeps it: key, value, create and mod revision, version,
# lease.
Before = tuple[bytes, bytes, int, int, int, int]


def _head(number: int, width: int) -> bytes:
    return bytes((number,)) + width.to_bytes(2, "big")


# A leaf, in the parts that change together; 3 bytes of number and length before each value.
_SEQ: Final = _head(1, 2) + (FORMAT << 8 | READER).to_bytes(2, "big") + _head(2, 8)
_TIME, _REVISION = _head(3, 8), _head(6, 8)
_POSITION: Final = Struct(">8sQ3sQ14sQ3sQ25sQ")  # fields 1-9
_MIDDLE: Final = Struct(">3sQ3s")  # 4: raft_term
_VERSIONS: Final = Struct(">3sQ3sQ3s")  # 7 and 8: auth_rev, policy_rev
_AUTHOR: Final = Struct(">3s32s3sQ3sH3sB")  # 10-13: actor, member, event, code
_NEW: Final = Struct(">3sQ3s32s")  # 43 and 44: length, commit
_CHANGED: Final = Struct(">3sQ3sQ3s32s3s32s")  # 42-45: with prev_mod_rev and prev_commit
_F42, _F43 = _head(42, 8), _head(43, 8)
_F44, _F45 = _head(44, 32), _head(45, 32)
_PUT: Final = EVENTS["kv.put"]
# What follows the salt in the blocks of an HMAC: the padding, then the field and its place, 0.
_INNER_VALUE: Final = HMAC_PAD.translate(HMAC_INNER) + VALUE.encode() + bytes(4)
_INNER_PREV: Final = HMAC_PAD.translate(HMAC_INNER) + PREV_VALUE.encode() + bytes(4)
_OUTER_REST: Final = HMAC_PAD.translate(HMAC_OUTER)
_HEAD_VALUE: Final = head_of(VALUE)
_HEAD_PREV: Final = head_of(PREV_VALUE)


class PutLeaves:
    """Makes them; keeps the parts that many entries share, by what they say."""

    __slots__ = ("_actors", "_authors")

    def __init__(self, actors: KnownActors) -> None:
        self._actors = actors
        self._authors: dict[_Author, _Parts] = {}

    def make(
        self,
        puts: Sequence[PlainPut],
        prevs: Iterable[Before | None],
        *,
        seq: int,
        revision: int,
        auth_rev: int,
        policy_rev: int,
    ) -> tuple[list[bytes], list[bytes], list[CommitValues]]:
        """Leaves, their hashes in the tree, and what goes into ``commits`` beside them.

        Args:
            puts: One revision each, without a gap.
            prevs: For each, its key before it; None: there was none.
            seq: Place of the first leaf in the tree.
            revision: Of the first put.
            auth_rev: State of the rights they were judged by.
            policy_rev: Likewise, of the policy.
        """
        leaves: list[bytes] = []
        hashes: list[bytes] = []
        commits: list[CommitValues] = []
        by: tuple[Principal, Source] | None = None
        term = member = 0
        rule: str = ""
        roles: tuple[str, ...] = ()
        for put, prev in zip(puts, prevs, strict=True):
            index, now_term, request_id, principal, source, salt, time_ns, at, who, held, _, _ = put
            if (
                by is None
                or principal is not by[0]
                or source is not by[1]
                or held is not roles
                or who is not rule
                or at != member
                or now_term != term
            ):
                term, member, rule, roles = now_term, at, who, held
                actor, record, actor_salt = self._actors.resolve(principal, source, salt, roles)
                middle, versions, tail = self._parts((term, auth_rev, policy_rev, actor, at, rule))
                # Only the entry that names an actor first carries its record.
                by = None if record else (principal, source)
            head = _POSITION.pack(
                _SEQ, seq, _TIME, time_ns, middle, index, _REVISION, revision, versions, request_id
            )
            key = put[10]
            parts = (head, tail, len(key).to_bytes(2, "big"), key, _changed(salt, put[11], prev))
            leaf = b"".join(parts)
            leaves.append(leaf)
            hashes.append(sha256(b"\0" + leaf).digest())
            commits.append(
                (
                    seq, index, term, revision, time_ns, "kv.put", actor, record, actor_salt,
                    "OK", salt, "", "", b"",
                )
            )  # fmt: skip
            seq += 1
            revision += 1
        return leaves, hashes, commits

    def _parts(self, author: _Author) -> _Parts:
        """Fields 4 to 20 around what differs from entry to entry, with the next field's head."""
        known = self._authors.get(author)
        if known is not None:
            return known
        term, auth_rev, policy_rev, actor, member, rule = author
        if len(self._authors) >= LEAF_AUTHORS_CACHED_MAX:
            self._authors.clear()
        who = _AUTHOR.pack(
            _head(10, 32), actor, _head(11, 8), member, _head(12, 2), _PUT, _head(13, 1), 0
        )
        text = shortened(rule)
        made = self._authors[author] = (
            _MIDDLE.pack(_head(4, 8), term, _head(5, 8)),
            _VERSIONS.pack(_head(7, 8), auth_rev, _head(8, 8), policy_rev, _head(9, 8)),
            who + (encode_field(16, text) if text else b"") + b"\x14",
        )
        return made


def _changed(salt: bytes, value: bytes, prev: Before | None) -> bytes:
    """Fields 42 to 45: what became of the key, as commitments under the entry's salt."""
    inner, outer = salt.translate(HMAC_INNER), salt.translate(HMAC_OUTER) + _OUTER_REST
    own = sha256(outer + sha256(inner + _INNER_VALUE).digest()).digest()
    length = len(value)
    bound = sha256(_HEAD_VALUE + own + length.to_bytes(4, "big") + value).digest()
    if prev is None:
        return _NEW.pack(_F43, length, _F44, bound)
    _, prev_value, _, before, _, _ = prev
    own = sha256(outer + sha256(inner + _INNER_PREV).digest()).digest()
    data = _HEAD_PREV + own + len(prev_value).to_bytes(4, "big") + prev_value
    return _CHANGED.pack(_F42, before, _F43, length, _F44, bound, _F45, sha256(data).digest())
