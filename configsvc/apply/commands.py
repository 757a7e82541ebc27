"""Commands: what the log carries, decoded. And what applying one gives back.

``codec.command`` turns entry bytes into these. Apply reads nothing but the command and the state:
no clock, no randomness, no environment (architecture.md 5).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from configsvc.errors import RequestError
from configsvc.mvcc.messages import DeleteOp, OpResult, PutOp, Row, TxnOp
from configsvc.types import Principal, Source

__all__ = ["DeleteOp", "PutOp", "TxnOp"]


class Envelope(NamedTuple):
    """Who, when, from where and why; filled by the accepting member, stamped by the leader."""

    request_id: int  # uint64: accepting member's counter, unique per incarnation
    principal: Principal
    source: Source
    reason: str
    ticket: str
    salt: bytes  # 32 random bytes drawn by the proposer: commitments and a new actor's salt
    facts: tuple[tuple[str, str], ...]  # evaluated facts for policy, e.g. ("value.format", "json")
    new_uid: str  # hex, for a user or identity that this command creates
    time_ns: int  # leader's stamp, strictly growing over the log
    time_suspect: bool  # the stamp was ahead of the leader's wall clock by more than 5 s
    accepted_by: int  # member id as its peer certificate proves it
    generated_id: int  # leader-made id (lease grant with id 0), else 0


# --- operations beside the key space -------------------------------------------------------------


class CompactOp(NamedTuple):
    revision: int
    physical: bool = False


class LeaseGrantOp(NamedTuple):
    ttl: int
    id: int  # never 0 here: the leader's generated_id has been filled in


class LeaseRevokeOp(NamedTuple):
    """``decided_term`` 0: a client asked. Else an expiry, void in any other term (X1)."""

    ids: tuple[int, ...]
    decided_term: int = 0


class LeaseCheckpointOp(NamedTuple):
    remaining: tuple[tuple[int, int], ...]  # (lease id, remaining seconds)


class AuthEnableOp(NamedTuple):
    pass


class AuthDisableOp(NamedTuple):
    pass


class UserAddOp(NamedTuple):
    name: str
    password_hash: str  # PHC string, made before propose; empty with no_password
    no_password: bool


class UserDeleteOp(NamedTuple):
    name: str


class UserChangePasswordOp(NamedTuple):
    name: str
    password_hash: str


class UserGrantRoleOp(NamedTuple):
    user: str
    role: str


class UserRevokeRoleOp(NamedTuple):
    user: str
    role: str


class RoleAddOp(NamedTuple):
    name: str


class RoleDeleteOp(NamedTuple):
    name: str


class RoleGrantPermissionOp(NamedTuple):
    role: str
    perm_type: int  # 0 READ, 1 WRITE, 2 READWRITE
    key: bytes
    range_end: bytes


class RoleRevokePermissionOp(NamedTuple):
    role: str
    key: bytes
    range_end: bytes


class BootstrapOp(NamedTuple):
    """First entry of a new cluster: user and role root, auth on, the shipped bundle (BOOT-1)."""

    trust_domain: str
    policy_source: str
    insecure: bool = False  # store born under --insecure-dev: auth stays off
    policy_compiled: bytes = b""  # canonical rules; apply never parses TOML
    policy_name: str = ""
    policy_version: int = 0
    members: tuple[MemberChangeOp, ...] = ()  # genesis members, from --initial-cluster


class PolicyLoadOp(NamedTuple):
    source: str  # the TOML text, kept for showing; apply never parses it
    compiled: bytes  # canonical rules, made by the proposer
    version: int
    name: str


class AlarmOp(NamedTuple):
    activate: bool
    member: int
    alarm: int  # 1 NOSPACE, 2 CORRUPT


class MemberAttributesOp(NamedTuple):
    """A member publishes itself; repeated at each start."""

    member: int
    name: str
    client_urls: tuple[str, ...]
    store_id: bytes
    version: str


class MemberChangeOp(NamedTuple):
    """Context of a configuration change. ``action``: add, promote, remove, update."""

    action: str
    member: int
    peer_urls: tuple[str, ...]
    is_learner: bool


class ClusterVersionOp(NamedTuple):
    version: str


class SigningKeyOp(NamedTuple):
    """A member's public token key or log key. ``use``: "token" or "log"."""

    kid: str
    use: str
    member: int
    public: bytes  # raw Ed25519
    state: str  # "pending", "active", "retired", "removed"


class RevokeOp(NamedTuple):
    """Deny-list entry. ``what``: "serial", "identity", "jti", "user", "kid", "all"."""

    what: str
    value: str
    until_ns: int  # 0: for ever


class UnrevokeOp(NamedTuple):
    """Takes an entry off the deny-list. ``what``: "serial", "identity", "jti", "kid"."""

    what: str
    value: str


class AuditAnchorOp(NamedTuple):
    """Size and root of a member's local audit stream, anchored into stream M."""

    member: int
    origin: str
    size: int
    root: bytes


class CheckpointSignatureOp(NamedTuple):
    """Bookkeeping, no leaf: a member's signature over (size, root) of stream M."""

    member: int
    size: int
    root: bytes
    signature: bytes


Operation = Any  # one of the operation types of this module or of mvcc.messages


class Command(NamedTuple):
    envelope: Envelope
    op: Operation
    op_bytes: int  # encoded size of the operation alone


class Refused(NamedTuple):
    """Apply said no; the entry still has its leaf."""

    error: RequestError


class Granted(NamedTuple):
    """Result of a lease grant."""

    id: int
    ttl: int


class Done(NamedTuple):
    """Result of an operation whose answer carries nothing but a header."""

    value: Any = None  # e.g. AlarmOp: tuple of (member, alarm) that changed


Result = OpResult | Granted | Done | Refused


class TableChange(NamedTuple):
    """Upsert (``row`` given, without the key columns) or delete of one row of a small table."""

    table: str
    key: tuple[Any, ...]
    row: tuple[Any, ...] | None


class Effects(NamedTuple):
    """Everything one entry did. ``storage.history`` writes it, ``runtime`` answers with it."""

    index: int  # type: ignore[assignment]
    term: int
    request_id: int  # 0: nobody waits (empty entry, system)
    result: Result | None  # None: empty entry of a new leader
    revision: int  # store revision after this entry
    rows: tuple[Row, ...]
    prevs: tuple[Any, ...]  # per row: KeyValue before it, or None
    tables: tuple[TableChange, ...]
    leaf: bytes  # canonical audit leaf; empty for bookkeeping entries
    commit: CommitRow | None  # None exactly when leaf is empty
    digest: bytes  # 16 bytes, rolling (reliability.md A3)
    leaf_hash: bytes  # the leaf's hash in the tree; empty when leaf is


class CommitRow(NamedTuple):
    """One row of ``commits``, plus what the openings and actors tables need."""

    seq: int  # leaf index in stream M
    raft_index: int
    raft_term: int
    revision: int  # revision this entry produced, or the current one if it changed nothing
    time_ns: int
    event: str  # closed list of security.md 3.8
    actor: bytes  # hash of the actor record
    actor_record: bytes  # canonical bytes when this entry is the first to name the actor, else b""
    actor_salt: bytes  # likewise
    outcome: str  # gRPC code name, "OK" when done
    salt: bytes  # entry salt: sealed with the openings, never in the leaf
    reason: str
    ticket: str
    changes: bytes  # concatenated per-change records when there are several (AUD-4)
