"""The closed list of events and of gRPC code names that a record may carry.

Numbers are part of the leaf format and never change or get reused.
"""

from __future__ import annotations

from typing import Final

EVENTS: Final[dict[str, int]] = {
    # stream M: what passes the log
    "kv.put": 1,
    "kv.delete": 2,
    "kv.txn": 3,
    "kv.compact": 4,
    "lease.grant": 10,
    "lease.revoke": 11,
    "lease.expire": 12,
    "auth.enable": 20,
    "auth.disable": 21,
    "user.add": 22,
    "user.delete": 23,
    "user.password": 24,
    "role.grant": 25,  # a role to a user
    "role.revoke": 26,
    "role.add": 27,
    "role.delete": 28,
    "permission.grant": 29,  # a span to a role
    "permission.revoke": 30,
    "policy.load": 40,
    "alarm.set": 41,
    "alarm.clear": 42,
    "member.add": 50,
    "member.promote": 51,
    "member.remove": 52,
    "member.update": 53,
    "member.publish": 54,
    "cluster.version": 55,
    "key.publish": 56,
    "cert.issue": 60,
    "cert.revoke": 61,
    "token.revoke": 62,
    "cert.enroll": 63,
    "cert.unrevoke": 64,
    "token.unrevoke": 65,
    "audit.anchor": 70,
    "audit.prune": 71,
    "audit.erase": 72,
    "bootstrap": 80,
    "restore": 81,
    # stream L: what one member saw
    "start": 100,
    "stop": 101,
    "reload": 102,
    "config.change": 103,
    "settings": 104,
    "auth.login": 110,
    "auth.denied": 111,
    "authz.denied": 112,
    "tls.refused": 113,
    "limit.hit": 114,
    "unknown.method": 115,
    "internal": 116,
    "request.malformed": 117,
    "kv.range": 120,
    "kv.watch": 121,
    "history.read": 122,
    "snapshot.export": 123,
    "audit.read": 124,
    "cluster.read": 125,
    "time.step": 126,
    "checkpoint.sign": 127,
}

EVENT_NAMES: Final = {number: name for name, number in EVENTS.items()}

CODES: Final = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
