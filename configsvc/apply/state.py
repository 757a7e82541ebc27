"""Everything that a command can read or change: the replicated state of one member.

Only ``Applier`` writes it. Other rooms read it between two entries: ranges, leases, rights,
members and alarms all belong to the same applied index then.

Always true:
  * The small tables in SQL, the live rows, the tree's frontier and the known actors are enough to
    rebuild it (``load``); what is not in them, leases' deadlines and caches, decides nothing.

Not here: changing it (``applier``), storing it (``storage.history``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from configsvc.apply.commands import TableChange
from configsvc.apply.digest import GENESIS
from configsvc.apply.members import Members
from configsvc.apply.rights import Rights
from configsvc.audit.actors import KnownActors
from configsvc.audit.merkle import Frontier
from configsvc.audit.record import Recorder
from configsvc.auth.decide import Decider
from configsvc.auth.state import AuthState
from configsvc.lease.lessor import Lessor
from configsvc.limits import LEASE_TTL_MIN_S, QUOTA_BYTES_DEFAULT
from configsvc.mvcc.loading import LiveRows
from configsvc.mvcc.messages import Row, TxnOp, TxnResult
from configsvc.mvcc.store import NEVER_COMPACTED, Store
from configsvc.mvcc.txn import read_txn
from configsvc.types import Principal, Source

NO_SPACE: Final = 1  # alarm types (N3, N4)
CORRUPT: Final = 2

META_COMPACT: Final = "compact_revision"  # decimal
META_CLUSTER_VERSION: Final = "cluster_version"
META_TRUST_DOMAIN: Final = "trust_domain"
META_POLICY_VERSION: Final = "policy_version"  # decimal

Tables = Mapping[str, Iterable[tuple[Any, ...]]]


class SigningKey(NamedTuple):
    """A public key of a member, for tokens or for the audit log (JWT-8, TE-3)."""

    kid: str
    use: str
    member: int
    public: bytes
    state: str
    since_index: int  # entry that brought it into this state


class ApplyState:
    """Attributes are read freely between entries and written by apply only.

    Args:
        quota_bytes: Bound of the KV window, of this member; negative: none. It is asked before a
            write is proposed and decides nothing in apply: the replicated NOSPACE alarm does.
    """

    def __init__(self, *, quota_bytes: int = QUOTA_BYTES_DEFAULT) -> None:
        self.quota_bytes = quota_bytes
        self.store = Store()
        self.lessor = Lessor(LEASE_TTL_MIN_S)
        self.auth = AuthState()
        self.decider = Decider(self.auth)
        self.rights = Rights(self.auth, self.decider, self.lessor)
        self.recorder = Recorder(roles_of=self._roles_of)
        self.members = Members()
        self.alarms: set[tuple[int, int]] = set()  # (member, alarm)
        self.signing_keys: dict[str, SigningKey] = {}
        self.anchors: dict[int, tuple[str, int, bytes]] = {}  # member -> origin, size, root
        self.signatures: dict[tuple[int, int], tuple[bytes, bytes]] = {}  # (member, size)
        self.cluster_version = ""
        self.trust_domain = ""
        self.digest = GENESIS
        self.applied = 0
        self.term = 0
        self.last_time_ns = 0  # leader's stamp of the newest command

    # --- questions of other rooms ----------------------------------------------------------------

    @property
    def bootstrapped(self) -> bool:
        """Whether the cluster's first entry has been applied (FC-5)."""
        return bool(self.trust_domain) or self.auth.insecure

    def has_alarm(self, alarm: int) -> bool:
        """Whether any member has it raised."""
        return any(kind == alarm for _, kind in self.alarms)

    def over_quota(self, cost: int) -> bool:
        """Whether a write of ``cost`` bytes would reach the quota (N2); no cost always passes."""
        return cost > 0 and 0 <= self.quota_bytes <= self.store.db_bytes + cost

    def judge_lease(
        self, principal: Principal, source: Source, lease_id: int, time_ns: int
    ) -> None:
        """Raise unless the caller may renew or revoke the lease; see ``Rights.judge_lease``."""
        self.rights.judge_lease(principal, source, lease_id, time_ns)

    def _roles_of(self, _: Principal) -> tuple[str, ...]:
        """Roles the author of the entry in hand held when it was decided."""
        return self.rights.roles

    def read_txn(self, op: TxnOp) -> TxnResult:
        """Answer a transaction that only reads; see ``mvcc.txn.read_txn``."""
        return read_txn(self.store, op)

    # --- start and restore -----------------------------------------------------------------------

    def load(
        self,
        tables: Tables,
        *,
        live: Iterable[Row] | LiveRows,
        revision: int,
        applied: int,
        term: int,
        digest: bytes,
        time_ns: int,
        tree: tuple[int, Iterable[bytes]],
        actors: Iterable[tuple[bytes, bytes]],
        superseded_bytes: int = 0,
    ) -> None:
        """Become the state that SQL holds.

        Args:
            tables: Rows of the small tables, key columns first, in any order.
            live: Newest row of each live key; ``LiveRows`` when they were gathered in slices.
            revision: Visible revision.
            applied: Raft index of the newest entry that is in.
            term: Its term.
            digest: The rolling digest after it.
            time_ns: Leader time of the newest commit; 0 if there is none.
            tree: Size and roots of the audit tree (``Frontier.state``).
            actors: (record, hash) in order of making; at least the newest known ones.
            superseded_bytes: See ``Store.load``.

        Raises:
            DecodeError: the policy or the tree's state cannot be read.
        """
        meta: dict[str, bytes] = dict(tables.get("meta", ()))
        compact_revision = int(meta.get(META_COMPACT, b"%d" % NEVER_COMPACTED))
        loaded = live if isinstance(live, LiveRows) else LiveRows(live)
        self.store.adopt(loaded, revision, compact_revision, superseded_bytes)
        self.auth.load(
            users=tables.get("users", ()),
            roles=tables.get("roles", ()),
            permissions=tables.get("permissions", ()),
            meta=meta,
            policies=tables.get("policy_bundles", ()),
            revocations=tables.get("revocations", ()),
        )
        self.lessor.limited = not self.auth.insecure
        self.lessor.load(
            tables.get("leases", ()),
            ((kv.key, kv.lease) for kv in self.store.live.values() if kv.lease),
        )
        self.members.load(
            tables.get("members", ()),
            tables.get("removed_members", ()),
        )
        self.alarms = {(member, alarm) for member, alarm in tables.get("alarms", ())}
        self.signing_keys = {row[0]: SigningKey(*row) for row in tables.get("signing_keys", ())}
        self.anchors = {row[0]: (row[1], row[2], row[3]) for row in tables.get("anchors", ())}
        self.signatures = {
            (row[0], row[1]): (row[2], row[3]) for row in sorted(tables.get("signatures", ()))
        }
        self.cluster_version = meta.get(META_CLUSTER_VERSION, b"").decode()
        self.trust_domain = meta.get(META_TRUST_DOMAIN, b"").decode()
        known = KnownActors()
        known.load(actors)
        self.recorder = Recorder(Frontier.restore(*tree), known, self._roles_of)
        self.digest, self.applied, self.term, self.last_time_ns = digest, applied, term, time_ns

    def snapshot_tables(self) -> dict[str, list[tuple[Any, ...]]]:
        """Rows of all small tables as apply has made them, sorted; what ``load`` takes.

        Only the active policy bundle is among them: apply keeps no other.
        """
        auth = self.auth
        policy = auth.policy
        meta = {
            "auth_enabled": b"%d" % auth.enabled,
            "auth_revision": b"%d" % auth.revision,
            "auth_tokens_min": b"%d" % auth.tokens_min,
            "insecure": b"%d" % auth.insecure,
            META_COMPACT: b"%d" % self.store.compact_revision,
            META_CLUSTER_VERSION: self.cluster_version.encode(),
            META_TRUST_DOMAIN: self.trust_domain.encode(),
            META_POLICY_VERSION: b"%d" % policy.version,
        }
        bundles = []
        if policy.version:
            compiled = auth.policy_compiled
            bundles.append((policy.version, policy.name, auth.policy_source, compiled, True))
        return {
            "leases": list(self.lessor.rows()),
            "users": [
                (u.name, u.uid, u.password_hash, u.no_password, _json(u.roles), u.min_arev)
                for _, u in sorted(auth.users.items())
            ],
            "roles": [(name,) for name in auth.role_names()],
            "permissions": sorted(
                (role, key, end, kind)
                for role, grants in auth.roles.items()
                for (key, end), kind in grants.items()
            ),
            "members": self.members.rows(),
            "removed_members": sorted((member,) for member in self.members.removed),
            "alarms": sorted(self.alarms),
            "signing_keys": sorted(self.signing_keys.values()),
            "revocations": sorted((*entry, until) for entry, until in auth.denied.items()),
            "policy_bundles": bundles,
            "anchors": sorted((member, *row) for member, row in self.anchors.items()),
            "signatures": sorted((*key, *row) for key, row in self.signatures.items()),
            "meta": sorted(meta.items()),
        }


def _json(names: tuple[str, ...]) -> str:
    return json.dumps(names, separators=(",", ":"))


def meta_change(name: str, value: bytes) -> TableChange:
    """One row of the table ``meta``."""
    return TableChange("meta", (name,), (value,))
