"""Builds the leaf of one entry and appends it to the tree; called by apply, once per command.

``Recorder`` owns the tree's frontier and the known actors, both part of the replicated state: the
same commands give the same leaves and the same root on every member. The member-local stream has
a recorder of its own, fed with envelopes made on the spot.

``put`` is the hot path (3 us with commitments, actor and tree); ``record`` is everything else and
makes the same bytes for a put. Both return the leaf and the values of apply's ``CommitRow`` in
its order.

Not here: which event an operation is (``apply``), storing (``storage.history``), signing heads
(``runtime``).
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from struct import Struct
from typing import Final, NamedTuple, Protocol

from configsvc.audit.actors import KnownActors
from configsvc.audit.changes import (
    PREV_VALUE,
    REASON,
    TICKET,
    VALUE,
    ChangeRecords,
    KeyChange,
    change_fields,
    key_fields,
)
from configsvc.audit.commitments import HMAC_INNER, HMAC_OUTER, HMAC_PAD, commit_entry, head_of
from configsvc.audit.events import CODES, EVENTS
from configsvc.audit.leaf import FORMAT, READER, Value, encode_field, encode_leaf
from configsvc.audit.merkle import Frontier, leaf_hash
from configsvc.errors import ensure
from configsvc.limits import LEAF_AUTHORS_CACHED_MAX, LEAF_KEY_BYTES_MAX, LEAF_TEXT_BYTES_MAX
from configsvc.types import Principal, Source


class EnvelopeLike(Protocol):
    """What a record takes from a command's envelope (``apply.commands.Envelope``)."""

    @property
    def request_id(self) -> int: ...
    @property
    def principal(self) -> Principal: ...
    @property
    def source(self) -> Source: ...
    @property
    def reason(self) -> str: ...
    @property
    def ticket(self) -> str: ...
    @property
    def salt(self) -> bytes: ...
    @property
    def time_ns(self) -> int: ...
    @property
    def time_suspect(self) -> bool: ...
    @property
    def accepted_by(self) -> int: ...


class Position(NamedTuple):
    """Where the entry stands, and the versions it was judged by. Stream L has index and term 0."""

    raft_index: int
    raft_term: int
    revision: int  # produced by this entry, or the current one if it changed nothing
    auth_rev: int
    policy_rev: int


class Resource(NamedTuple):
    """What the event is about; None is not applicable. Field meanings are ``leaf.FIELDS``'."""

    key: bytes | None = None
    range_end: bytes | None = None
    lease: int | None = None
    user: str | None = None
    role: str | None = None
    target_member: int | None = None
    object: str | None = None
    version: int | None = None
    perm_type: int | None = None
    size: int | None = None
    digest: bytes | None = None
    until_ns: int | None = None
    method: str | None = None
    repeated: int | None = None
    listener: str | None = None
    manifest: bytes | None = None


NOTHING: Final = Resource()

# seq, raft_index, raft_term, revision, time_ns, event, actor, actor_record, actor_salt, outcome,
# salt, reason, ticket, changes
CommitValues = tuple[
    int, int, int, int, int, str, bytes, bytes, bytes, str, bytes, str, str, bytes
]  # fmt: skip


# raft_term, auth_rev, policy_rev, actor, accepting member, rule
_Author = tuple[int, int, int, bytes, int, str]


def _head(number: int, width: int) -> bytes:
    return bytes((number,)) + width.to_bytes(2, "big")


# A put's leaf, in the parts that change together; 3 bytes of number and length before each value.
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


def _no_roles(_principal: Principal) -> tuple[str, ...]:
    return ()


class Recorder:
    """The audit stream's growing end."""

    __slots__ = ("_authors", "_roles_of", "actors", "frontier", "leaf_hash")

    def __init__(
        self,
        frontier: Frontier | None = None,
        actors: KnownActors | None = None,
        roles_of: Callable[[Principal], tuple[str, ...]] = _no_roles,
    ) -> None:
        """``roles_of``: roles a principal holds in the state that decides, for its actor record."""
        self.frontier = Frontier() if frontier is None else frontier
        self.actors = KnownActors() if actors is None else actors
        self._roles_of = roles_of
        self.leaf_hash = b""  # of the leaf recorded last
        # The parts of a put's leaf that many entries share, by what they say.
        self._authors: dict[_Author, tuple[bytes, bytes, bytes]] = {}

    def put(
        self,
        envelope: EnvelopeLike,
        position: Position | tuple[int, int, int, int, int],
        rule: str,
        key: bytes,
        value: bytes,
        lease: int,
        prev_mod_rev: int,
        prev_value: bytes | None,
    ) -> tuple[bytes, CommitValues]:
        """Record a plain put that was done; its row has ``sub`` 0.

        ``prev_value`` None: the key did not exist.
        """
        reason, ticket = envelope.reason, envelope.ticket
        if lease or reason or ticket or envelope.time_suspect or len(key) > LEAF_KEY_BYTES_MAX:
            change = KeyChange(0, key, value, lease, prev_mod_rev, prev_value)
            return self.record(
                envelope, position, "kv.put", rule=rule, resource=Resource(key), change=change
            )
        raft_index, raft_term, revision, auth_rev, policy_rev = position
        salt = envelope.salt
        time_ns = envelope.time_ns
        principal = envelope.principal
        actor, record, actor_salt = self.actors.resolve(
            principal, envelope.source, salt, self._roles_of(principal)
        )
        frontier = self.frontier
        seq = frontier.size
        inner, outer = salt.translate(HMAC_INNER), salt.translate(HMAC_OUTER) + _OUTER_REST
        own = sha256(outer + sha256(inner + _INNER_VALUE).digest()).digest()
        length = len(value)
        bound = sha256(_HEAD_VALUE + own + length.to_bytes(4, "big") + value).digest()
        if prev_value is None:
            rest = _NEW.pack(_F43, length, _F44, bound)
        else:
            own = sha256(outer + sha256(inner + _INNER_PREV).digest()).digest()
            data = _HEAD_PREV + own + len(prev_value).to_bytes(4, "big") + prev_value
            after = sha256(data).digest()
            rest = _CHANGED.pack(_F42, prev_mod_rev, _F43, length, _F44, bound, _F45, after)
        author = (raft_term, auth_rev, policy_rev, actor, envelope.accepted_by, rule)
        middle, versions, tail = self._authors.get(author) or self._author(author)
        head = _POSITION.pack(
            _SEQ, seq, _TIME, time_ns, middle, raft_index, _REVISION, revision,
            versions, envelope.request_id,
        )  # fmt: skip
        leaf = b"".join((head, tail, len(key).to_bytes(2, "big"), key, rest))
        self.leaf_hash = hashed = sha256(b"\0" + leaf).digest()
        frontier.append_hash(hashed)
        return leaf, (
            seq, raft_index, raft_term, revision, time_ns, "kv.put", actor, record, actor_salt,
            "OK", salt, "", "", b"",
        )  # fmt: skip

    def record(
        self,
        envelope: EnvelopeLike,
        position: Position | tuple[int, int, int, int, int],
        event: str,
        *,
        code: str = "OK",
        rule: str = "",
        detail: str = "",
        resource: Resource = NOTHING,
        change: KeyChange | None = None,
        changes: ChangeRecords | None = None,
    ) -> tuple[bytes, CommitValues]:
        """Record any entry, done or refused.

        Args:
            envelope: the command's.
            position: see ``Position``.
            event: one of ``events.EVENTS``.
            code: gRPC code name of the answer.
            rule: who decided (``auth.Decision.rule``); empty when nothing was judged.
            detail: the refusal's fixed text; empty when done.
            resource: what it is about.
            change: the one change of the one key that ``resource`` names.
            changes: records of every change, when the event is not about one named key.
        """
        ensure(change is None or changes is None, "changes stand in the leaf or beside it")
        salt = envelope.salt
        actor, actor_record, actor_salt = self.actors.resolve(
            envelope.principal, envelope.source, salt, self._roles_of(envelope.principal)
        )
        raft_index, raft_term, revision, auth_rev, policy_rev = position
        seq = self.frontier.size
        fields: dict[str, Value | None] = {
            "seq": seq,
            "time_ns": envelope.time_ns,
            "raft_term": raft_term,
            "raft_index": raft_index,
            "revision": revision,
            "auth_rev": auth_rev,
            "policy_rev": policy_rev,
            "request_id": envelope.request_id,
            "actor": actor,
            "member": envelope.accepted_by,
            "event": EVENTS[event],
            "code": CODES.index(code),
            "time_suspect": 1 if envelope.time_suspect else None,
            "rule": shortened(rule) or None,
            "detail": shortened(detail) or None,
        }
        if envelope.reason:
            fields["reason_commit"] = commit_entry(salt, REASON, 0, envelope.reason.encode())
        if envelope.ticket:
            fields["ticket_commit"] = commit_entry(salt, TICKET, 0, envelope.ticket.encode())
        fields.update(_resource_fields(resource))
        beside = b""
        if change is not None:
            fields.update(change_fields(change, salt))
        elif changes is not None:
            fields["count"] = len(changes)
            fields["root"] = changes.root()
            beside = changes.joined()
        leaf = encode_leaf(fields)
        self.leaf_hash = leaf_hash(leaf)
        self.frontier.append_hash(self.leaf_hash)
        return leaf, (
            seq, raft_index, raft_term, revision, envelope.time_ns, event, actor, actor_record,
            actor_salt, code, salt, envelope.reason, envelope.ticket, beside,
        )  # fmt: skip

    def _author(self, author: _Author) -> tuple[bytes, bytes, bytes]:
        """Fields 4 to 20 around what differs from entry to entry, with the next field's head."""
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


def shortened(text: str) -> str:
    """``text``, cut at a character so that it stays within a record's bound."""
    data = text.encode()
    if len(data) <= LEAF_TEXT_BYTES_MAX:
        return text
    return data[:LEAF_TEXT_BYTES_MAX].decode(errors="ignore")


def _resource_fields(resource: Resource) -> dict[str, Value | None]:
    if resource is NOTHING:
        return {}
    fields: dict[str, Value | None] = {}
    for name, value in zip(Resource._fields, resource, strict=True):
        if value is None:
            continue
        if isinstance(value, bytes) and name in ("key", "range_end"):
            fields.update(key_fields(value, name))
        else:
            fields[name] = shortened(value) if isinstance(value, str) else value
    return fields
