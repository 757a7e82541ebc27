"""The closed list of actions that policy rules and the table of RPC rights may name.

An action is either judged on a span of keys (``KEY_ACTIONS``) or is a capability that is held or
not. Adding one is a format change of the policy language: a bundle that names an action this
program does not know is refused whole (POL-4).

Not here: which RPC needs which action (``api``).
"""

from __future__ import annotations

from typing import Final

from configsvc.auth.messages import READ, WRITE

KV_RANGE: Final = "kv.range"  # also watches and history reads
KV_PUT: Final = "kv.put"
KV_DELETE: Final = "kv.delete"
LEASE_GRANT: Final = "lease.grant"

KEY_ACTIONS: Final[dict[str, int]] = {KV_RANGE: READ, KV_PUT: WRITE, KV_DELETE: WRITE}

CAPABILITIES: Final = frozenset(
    {
        "kv.compact",
        LEASE_GRANT,
        "auth.admin",
        "cluster.read",
        "cluster.admin",
        "maintenance.alarm",
        "maintenance.defragment",
        "maintenance.hash",
        "maintenance.move_leader",
        "maintenance.downgrade",
        "snapshot.export",
        "audit.read",
        "audit.verify",
        "audit.prune",
        "audit.erase",
        "policy.read",
        "policy.load",
        "policy.explain_others",
        "pki.issue",
        "pki.enroll",
        "pki.revoke",
        "pki.rotate",
        "keys.rotate",
        "fleet.report",
        "fleet.read",
        "fleet.label",
        "fleet.approve",
        "fleet.rollout",
        "fleet.emergency",
        "fleet.freeze",
    }
)

ACTIONS: Final = CAPABILITIES | frozenset(KEY_ACTIONS)


def revoking(what: str) -> str:
    """The capability that the deny-list's entries of a kind need: certificates' or tokens'."""
    return "pki.revoke" if what in ("serial", "identity") else "auth.admin"
