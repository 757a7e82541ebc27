"""Every field of every request with values that nobody should send, against etcd.

The cases are made from the descriptors: a request that is good but for one field, which is left
out, empty, negative, huge or outside its enum. Both servers get the same requests in the same
order; they must give the same code and text, or ours a stricter one that ``STRICTER`` explains.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from configsvc.proto import rpc_pb2, v3election_pb2, v3lock_pb2
from tests.support.etcd_cases import Step, call, compare, stream, watch

NONE: Any = object()  # the field is left out
BIG = 1_600_000  # above max-request-bytes, below what the gRPC layer takes
INT64 = (-(1 << 63), -1, (1 << 63) - 1)
UINT64 = (1, (1 << 64) - 1)
ENUM = (-1, 99, (1 << 31) - 1)
BYTES = (b"", b"\0", b"\xff\xff", b"k" * BIG)
TEXTS = ("", "\0", "\u00fc " * 3, "n" * 300)

LEASE = 77
GOOD: dict[str, dict[str, Any]] = {
    "KV.Range": {"key": b"a", "range_end": b"d"},
    "KV.Put": {"key": b"p", "value": b"1"},
    "KV.DeleteRange": {"key": b"nothing"},
    "KV.Compact": {"revision": 1},
    "Lease.LeaseGrant": {"TTL": 600},
    "Lease.LeaseRevoke": {"ID": 404},
    "Lease.LeaseTimeToLive": {"ID": LEASE},
    "Lease.LeaseLeases": {},
    "Auth.AuthEnable": {},
    "Auth.AuthDisable": {},
    "Auth.Authenticate": {"name": "u", "password": "u"},
    "Auth.UserAdd": {"name": "u", "password": "u"},
    "Auth.UserGet": {"name": "u"},
    "Auth.UserList": {},
    "Auth.UserDelete": {"name": "nobody"},
    "Auth.UserChangePassword": {"name": "u", "password": "u"},
    "Auth.UserGrantRole": {"user": "u", "role": "r"},
    "Auth.UserRevokeRole": {"name": "u", "role": "r"},
    "Auth.RoleAdd": {"name": "r"},
    "Auth.RoleGet": {"role": "r"},
    "Auth.RoleList": {},
    "Auth.RoleDelete": {"role": "no role"},
    "Auth.RoleGrantPermission": {"name": "r", "perm": {"key": b"a", "range_end": b"d"}},
    "Auth.RoleRevokePermission": {"role": "r", "key": b"a", "range_end": b"d"},
    "Cluster.MemberAdd": {"peerURLs": ["not a URL"]},  # a good one would cost the quorum
    "Cluster.MemberRemove": {"ID": 404},
    "Cluster.MemberUpdate": {"ID": 404, "peerURLs": ["http://127.0.0.1:1"]},
    "Cluster.MemberPromote": {"ID": 404},
    "Maintenance.Alarm": {},
    "Maintenance.Status": {},
    "Maintenance.Defragment": {},
    "Maintenance.Hash": {},
    "Maintenance.HashKV": {},
    "Maintenance.MoveLeader": {"targetID": 404},
    "Lock.Unlock": {"key": b"nothing"},
    "Election.Leader": {"name": b"nobody"},
    "Election.Proclaim": {"leader": {"name": b"e", "key": b"e/1", "rev": 1, "lease": LEASE}},
    "Election.Resign": {"leader": {"name": b"e", "key": b"e/1", "rev": 1, "lease": LEASE}},
}
COMPARE = {"key": b"a", "target": "VERSION", "version": 1}
OPS: dict[str, dict[str, Any]] = {
    "request_range": {"key": b"a"},
    "request_put": {"key": b"t"},
    "request_delete_range": {"key": b"nothing"},
}


def odd(field: Any) -> tuple[Any, ...]:
    """Values of one field that are not what it is meant for."""
    if not field.is_repeated:
        return odd_single(field)
    one = odd_single(field)[-1]
    return (NONE, [one], [one] * 200)


def odd_single(field: Any) -> tuple[Any, ...]:
    kind = field.type
    if kind == field.TYPE_MESSAGE:
        return (NONE, {})
    if kind == field.TYPE_ENUM:
        return (NONE, *ENUM)
    if kind in (field.TYPE_INT64, field.TYPE_INT32):
        return (NONE, *INT64)
    if kind == field.TYPE_UINT64:
        return (NONE, *UINT64)
    if kind == field.TYPE_BYTES:
        return (NONE, *BYTES)
    if kind == field.TYPE_STRING:
        return (NONE, *TEXTS)
    return (NONE, True)


def variants(descriptor: Any, good: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(what is odd, the fields): one field at a time, those of inner messages too."""
    for field in descriptor.fields:
        for value in odd(field):
            rest = {name: kept for name, kept in good.items() if name != field.name}
            yield _label(field.name, value), rest if value is NONE else {**rest, field.name: value}
        inner = good.get(field.name)
        if field.message_type is not None and isinstance(inner, dict):
            for label, fields in variants(field.message_type, inner):
                yield f"{field.name}.{label}", {**good, field.name: fields}


def _label(name: str, value: Any) -> str:
    text = "none" if value is NONE else repr(value)
    return f"{name}={text}" if len(text) < 30 else f"{name}={text[:12]}..{len(text)}"


SERVICES = {
    name: service
    for file in (rpc_pb2.DESCRIPTOR, v3lock_pb2.DESCRIPTOR, v3election_pb2.DESCRIPTOR)
    for name, service in file.services_by_name.items()
}


def request_of(method: str) -> Any:
    service, _, name = method.partition(".")
    return SERVICES[service].methods_by_name[name].input_type


def setup() -> list[Step]:
    return [
        *(call("KV.Put", key=key, value=b"v") for key in (b"a", b"b", b"c")),
        call("Lease.LeaseGrant", ID=LEASE, TTL=6000),
        call("Auth.UserAdd", name="u", password="u"),
        call("Auth.RoleAdd", name="r"),
    ]


def plain() -> list[Step]:
    steps = []
    for method, good in GOOD.items():
        for number, (label, fields) in enumerate(variants(request_of(method), good)):
            if method == "Lease.LeaseGrant" and not label.startswith("ID="):
                fields = {**fields, "ID": 1000 + number}  # one of its own
            if method == "Auth.UserAdd" and not label.startswith("name="):
                fields = {**fields, "name": f"u{number}"}
            steps.append(call(method, label, **fields))
    return steps


def txns() -> list[Step]:
    """Compares, operations of both branches, and operations of an inner transaction."""
    steps = []
    compare_of = rpc_pb2.Compare.DESCRIPTOR
    for label, fields in variants(compare_of, COMPARE):
        steps.append(call("KV.Txn", f"compare {label}", compare=[fields]))
    for kind, good in OPS.items():
        message = rpc_pb2.RequestOp.DESCRIPTOR.fields_by_name[kind].message_type
        for label, fields in variants(message, good):
            op = {kind: fields}
            steps += [
                call("KV.Txn", f"{kind} {label}", success=[op]),
                call("KV.Txn", f"not taken {kind} {label}", failure=[op]),
                call("KV.Txn", f"inner {kind} {label}",
                     success=[{"request_txn": {"success": [op]}}]),
            ]  # fmt: skip
    return [*steps, *txn_sizes()]


def txn_sizes() -> list[Step]:
    """At and above the budget of operations, at each level, and deep."""
    read = {"request_range": {"key": b"a"}}

    def nested(*counts: int) -> dict[str, Any]:
        *outer, last = counts
        made: dict[str, Any] = {"success": [read] * last}
        for count in reversed(outer):
            made = {"success": [read] * (count - 1) + [{"request_txn": made}]}
        return made

    steps = [
        call("KV.Txn", f"sizes {counts}", **nested(*counts))
        for counts in (
            (128,), (129,), (1, 127), (1, 128), (64, 64), (64, 65), (1, 1, 126), (1, 1, 127),
        )
    ]  # fmt: skip
    return [
        *steps,
        call("KV.Txn", "4 levels", **nested(1, 1, 1, 1)),
        call("KV.Txn", "20 levels", **nested(*(1,) * 20)),
        call("KV.Txn", "128 compares", compare=[COMPARE] * 128),
        call("KV.Txn", "129 compares", compare=[COMPARE] * 129),
        call("KV.Txn", "129 not taken", failure=[read] * 129),
        call("KV.Txn", "many and large", success=[
            {"request_put": {"key": b"l%d" % n, "value": b"v" * 20_000}} for n in range(100)
        ]),
    ]  # fmt: skip


def queues() -> list[Step]:
    """A lock or candidacy each under a name of its own: nobody waits for another."""
    steps = []
    for method, good in (
        ("Lock.Lock", {"lease": LEASE}), ("Election.Campaign", {"lease": LEASE, "value": b"v"}),
    ):  # fmt: skip
        named = {"name": b"q", **good}
        for number, (label, fields) in enumerate(variants(request_of(method), named)):
            if not label.startswith("name="):
                fields = {**fields, "name": b"%s%d" % (method[:4].encode(), number)}
            steps.append(call(method, label, **fields))
    return steps


def streams() -> list[Step]:
    steps: list[Step] = []
    for label, fields in variants(request_of("Lease.LeaseKeepAlive"), {"ID": LEASE}):
        steps.append(stream("Lease.LeaseKeepAlive", [fields], label))
    create = {"key": b"a", "range_end": b"d"}
    for label, fields in variants(rpc_pb2.WatchCreateRequest.DESCRIPTOR, create):
        steps.append(watch(label, ("send", {"create_request": fields}), ("recv", 1)))
    for label, fields in variants(rpc_pb2.WatchCancelRequest.DESCRIPTOR, {"watch_id": 0}):
        steps.append(
            watch(
                f"cancel {label}",
                ("send", {"create_request": create}), ("recv", 1),
                ("send", {"cancel_request": fields}), ("quiet",),
            )
        )  # fmt: skip
    return steps


# What ends the process of 3.4.23; ours is asked in the unit tests of its services.
FATAL = re.compile(r"(sort_target|\(action)=(-1|99|2147483647)|\(perm=none")
# What only etcd does, so that the two would not be alike afterwards.
PARTS = re.compile(r"Proclaim\(leader.rev=none")
SCRIPT = [
    step
    for step in (*setup(), *plain(), *txns(), *queues(), *streams())
    if not FATAL.search(step.name) and not PARTS.search(step.name)
]
STRICTER: tuple[tuple[str, str], ...] = (
    (
        r"(KV|Lock|Leader|Campaign|watch).*[ (.](key|range_end|name)=b'k+\.\.|leader\.key=b'k",
        "a key of ours has at most 2 KiB",
    ),
    (r"sort_order=(-1|99|2147483647)", "outside the enum is refused, as newer servers do (R12)"),
    (
        r"(User|Role)(Add|Get|Delete)\((name|role)='(\\x00|n+\.\.)",
        "names are bounded and printable",
    ),
    (r"ChangePassword\(hashedPassword='[^']", "a ready-made hash is not taken (A12)"),
    (r"RoleGrantPermission\(perm=\{\}", "a permission on nothing is refused (A10)"),
    (r"perm\.key=(none|b''|b'\\xff)", "a permission on an empty range is refused (A10)"),
    (r"perm\.permType=(-1|99|2147483647)", "outside the enum is refused"),
    (r"RoleRevokePermission\(key=(none|b'\\xff)", "what was refused above was not granted"),
    (r"Maintenance\.Alarm\((action=none|memberID|alarm)", "a list of alarms has a header, too"),
    (r"Txn\(20 levels", "transactions nest four deep"),
    (r"(Lock|Campaign)\(lease=none|LeaseGrant\(ID=none", "each server draws an id"),
    (r"watch start_revision=-", "negative is refused as compacted, as newer servers do (W9)"),
)


def reason_of(name: str) -> str:
    """Why ours is meant to answer otherwise; "" if it is not."""
    return next((why for pattern, why in STRICTER if re.search(pattern, name)), "")


@pytest.mark.parametrize("number", range(len(SCRIPT)), ids=lambda n: SCRIPT[n].name[:120])
def test_bad_input_as_etcd(number: int, outcomes: dict[int, tuple[object, object]]) -> None:
    step, (theirs, ours) = SCRIPT[number], outcomes[number]
    compare(Step(step.name, step.run, reason_of(step.name)), theirs, ours)
