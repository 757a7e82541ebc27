"""Builds the leaf of one entry and appends it to the tree; called by apply, once per command.

``Recorder`` owns the tree's frontier and the known actors, both part of the replicated state: the
same commands give the same leaves and the same root on every member. The member-local stream has
a recorder of its own, fed with envelopes made on the spot.

``put`` is the hot path (8 us with commitments, actor and tree); ``record`` is everything else and
makes the same bytes for a put. Both return the leaf and the values of apply's ``CommitRow`` in
its order.

Not here: which event an operation is (``apply``), storing (``storage.history``), signing heads
(``runtime``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from struct import Struct
from typing import Final, NamedTuple, Protocol

from configsvc.audit.actors import KnownActors
from configsvc.audit.changes import (
    PREV_VALUE,
    REASON,
    TICKET,
    VALUE,
    KeyChange,
    change_fields,
    change_record,
    join_records,
    key_fields,
)
from configsvc.audit.commitments import HMAC_INNER, HMAC_OUTER, HMAC_PAD, commit_entry, head_of
from configsvc.audit.events import CODES, EVENTS
from configsvc.audit.leaf import FORMAT, READER, Value, encode_field, encode_leaf
from configsvc.audit.merkle import Frontier, root_of
from configsvc.errors import ensure
from configsvc.limits import LEAF_KEY_BYTES_MAX, LEAF_RULES_CACHED_MAX, LEAF_TEXT_BYTES_MAX
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


def _head(number: int, width: int) -> bytes:
    return bytes((number,)) + width.to_bytes(2, "big")


# Fields 1-13 of a leaf, which every record has: 3 bytes of number and length before each value.
_HEAD: Final = Struct(">3sH" + "3sQ" * 8 + "3s32s" + "3sQ" + "3sH" + "3sB")
_H: Final = tuple(
    _head(number, width)
    for number, width in (
        (1, 2),
        *((n, 8) for n in range(2, 10)),
        (10, 32),
        (11, 8),
        (12, 2),
        (13, 1),
    )
)
_VERSION: Final = FORMAT << 8 | READER
_PREV: Final = Struct(">3sQ")  # prev_mod_rev
_NEW: Final = Struct(">3sQ3s32s")  # length, commit
_F42, _F43 = _head(42, 8), _head(43, 8)
_F44, _F45 = _head(44, 32), _head(45, 32)
_PUT: Final = EVENTS["kv.put"]
_SUB0_VALUE: Final = VALUE.encode() + bytes(4)
_SUB0_PREV: Final = PREV_VALUE.encode() + bytes(4)
_HEAD_VALUE: Final = head_of(VALUE)
_HEAD_PREV: Final = head_of(PREV_VALUE)


def _no_roles(_principal: Principal) -> tuple[str, ...]:
    return ()


class Recorder:
    """The audit stream's growing end."""

    __slots__ = ("_roles_of", "_rules", "actors", "frontier")

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
        self._rules: dict[str, bytes] = {}  # encoded field per rule label, for the hot path

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
        block = salt + HMAC_PAD
        inner, outer = block.translate(HMAC_INNER), block.translate(HMAC_OUTER)
        own = sha256(outer + sha256(inner + _SUB0_VALUE).digest()).digest()
        length = len(value)
        bound = sha256(_HEAD_VALUE + own + length.to_bytes(4, "big") + value).digest()
        if prev_value is None:
            before = after = b""
        else:
            own = sha256(outer + sha256(inner + _SUB0_PREV).digest()).digest()
            data = _HEAD_PREV + own + len(prev_value).to_bytes(4, "big") + prev_value
            before = _PREV.pack(_F42, prev_mod_rev)
            after = _F45 + sha256(data).digest()
        h = _H
        leaf = b"".join(
            (
                _HEAD.pack(
                    h[0], _VERSION, h[1], seq, h[2], time_ns, h[3], raft_term, h[4], raft_index,
                    h[5], revision, h[6], auth_rev, h[7], policy_rev, h[8], envelope.request_id,
                    h[9], actor, h[10], envelope.accepted_by, h[11], _PUT, h[12], 0,
                ),
                self._rules.get(rule) or self._rule_field(rule),
                b"\x14",
                len(key).to_bytes(2, "big"),
                key,
                before,
                _NEW.pack(_F43, length, _F44, bound),
                after,
            )
        )  # fmt: skip
        frontier.append_hash(sha256(b"\0" + leaf).digest())
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
        changes: Sequence[KeyChange] | None = None,
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
            changes: every change, when the event is not about one named key; may be empty.
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
            records = [change_record(each, salt) for each in changes]
            fields["count"] = len(records)
            fields["root"] = root_of(records) if records else None
            beside = join_records(records)
        leaf = encode_leaf(fields)
        self.frontier.append(leaf)
        return leaf, (
            seq, raft_index, raft_term, revision, envelope.time_ns, event, actor, actor_record,
            actor_salt, code, salt, envelope.reason, envelope.ticket, beside,
        )  # fmt: skip

    def _rule_field(self, rule: str) -> bytes:
        if len(self._rules) >= LEAF_RULES_CACHED_MAX:
            self._rules.clear()
        text = shortened(rule)
        field = self._rules[rule] = encode_field(16, text) if text else b""
        return field


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
