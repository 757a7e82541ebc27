"""Builds the leaf of one entry and appends it to the tree; called by apply, once per command.

``Recorder`` owns the tree's frontier and the known actors, both part of the replicated state: the
same commands give the same leaves and the same root on every member. The member-local stream has
a recorder of its own, fed with envelopes made on the spot.

``puts`` is the hot path (3 us each with commitments, actor and tree), ``put`` is one of them, and
``record`` is everything else and makes the same bytes for a put. All return leaves and the values
of apply's ``CommitRow`` in its order.

Not here: a plain put's leaf (``put_leaves``), which event an operation is (``apply``), storing
(``storage.history``), signing heads (``runtime``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from configsvc.audit.actors import KnownActors
from configsvc.audit.changes import (
    REASON,
    TICKET,
    ChangeRecords,
    KeyChange,
    change_fields,
    key_fields,
)
from configsvc.audit.commitments import commit_entry
from configsvc.audit.events import CODES, EVENTS
from configsvc.audit.leaf import Value, encode_leaf, shortened
from configsvc.audit.merkle import Frontier, leaf_hash
from configsvc.audit.put_leaves import Before, PlainPut, PutLeaves
from configsvc.audit.put_leaves import CommitValues as CommitValues
from configsvc.errors import ensure
from configsvc.limits import LEAF_KEY_BYTES_MAX
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


def _no_roles(_principal: Principal) -> tuple[str, ...]:
    return ()


class Recorder:
    """The audit stream's growing end."""

    __slots__ = ("_put_leaves", "_roles_of", "actors", "frontier", "leaf_hash")

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
        self._put_leaves = PutLeaves(self.actors)

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
        plain = not (lease or envelope.reason or envelope.ticket or envelope.time_suspect)
        if not plain or len(key) > LEAF_KEY_BYTES_MAX:
            change = KeyChange(0, key, value, lease, prev_mod_rev, prev_value)
            return self.record(
                envelope, position, "kv.put", rule=rule, resource=Resource(key), change=change
            )
        raft_index, raft_term, revision, auth_rev, policy_rev = position
        principal = envelope.principal
        made = PlainPut(
            raft_index, raft_term, envelope.request_id, principal, envelope.source, envelope.salt,
            envelope.time_ns, envelope.accepted_by, rule, self._roles_of(principal), key, value,
        )  # fmt: skip
        prev = None if prev_value is None else (key, prev_value, 0, prev_mod_rev, 0, 0)
        leaves, hashes, values = self.puts((made,), (prev,), revision, auth_rev, policy_rev)
        self.leaf_hash = hashes[0]
        return leaves[0], values[0]

    def puts(
        self,
        puts: Sequence[PlainPut],
        prevs: Sequence[Before | None],
        revision: int,
        auth_rev: int,
        policy_rev: int,
    ) -> tuple[list[bytes], list[bytes], list[CommitValues]]:
        """Record a run of plain puts that were done: leaves, their hashes, and ``commits``' values.

        The first made ``revision``, each one the next; see ``PutLeaves.make``. ``leaf_hash`` stays.
        """
        frontier = self.frontier
        made = self._put_leaves.make(
            puts,
            prevs,
            seq=frontier.size,
            revision=revision,
            auth_rev=auth_rev,
            policy_rev=policy_rev,
        )
        frontier.append_hashes(made[1])
        return made

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
