"""Cluster, Maintenance, health and the limits of a message, against etcd."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import grpc
import pytest

from configsvc.proto import health_pb2, rpc_pb2
from tests.support.etcd_cases import TIMEOUT_S, Client, Note, Outcome, Step, call, compare, plain

CORRUPT = "disarming NOSPACE does not let writes through while CORRUPT is raised"
LEARNER = "a learner is still one after an update of its URLs"
EMPTY = "sizes and hashes of an empty store are 0, which protobuf leaves out"
DECLARED = "3.4 sends it as Unknown; ours with its declared code"
FAR = "http://10.1.2.3:2380"


def _members(client: Client, method: str, fields: dict[str, Any]) -> Outcome:
    """A list of members without what two servers cannot share: ids and ports."""
    found = client.unary(method, fields)
    if isinstance(found, tuple):
        return found
    for member in (*found.get("members", ()), found.get("member", {})):
        member.pop("ID", None)
        for urls in ("peerURLs", "clientURLs"):
            member[urls] = [u if "10.1.2" in u else "*" for u in member.get(urls, ())]
    found["members"] = sorted(found.get("members", ()), key=repr)
    return found


def members(method: str, label: str, differs: str = "", **fields: Any) -> Step:
    return Step(
        f"Cluster.{method}({label})", lambda c: _members(c, f"Cluster.{method}", fields), differs
    )


def settled(step: Step) -> Step:
    """The step behind a linearizable read.

    3.4.23 answers a change of members before its consensus has noted that it is applied, and drops
    the next one, without a word, if it comes within that moment. A read waits the moment out.
    """

    def run(client: Client) -> Outcome:
        client.unary("KV.Range", {"key": b"settled"})
        return step.run(client)

    return Step(step.name, run, step.differs)


def _first_id(client: Client) -> Outcome:
    client.unary("Cluster.MemberList", {})
    client.notes["self"] = client.notes["last"].members[0].ID
    return len(client.notes["last"].members)


def cluster() -> list[Step]:
    bad_urls: list[list[str]] = [
        [], [""], ["nonsense"], ["http://host"], ["ftp://10.1.2.3:2380"], ["http://10.1.2.3:2380/x"],
        ["http://10.1.2.3:http"], ["10.1.2.3:2380"], [FAR, "http://10.1.2.3"],
    ]  # fmt: skip
    steps = [
        Step("note the member's id", _first_id),
        members("MemberList", "one"),
        members("MemberList", "linearizable", linearizable=True),
        *(members("MemberAdd", f"bad {urls}", peerURLs=urls) for urls in bad_urls),
        *(call("Cluster.MemberRemove", ID=n) for n in (0, 5, 2**64 - 1)),
        *(call("Cluster.MemberUpdate", ID=n, peerURLs=[FAR]) for n in (0, 5)),
        *(call("Cluster.MemberPromote", ID=n) for n in (0, 5)),
        call("Cluster.MemberPromote", "a voter", ID=Note("self")),
        call("Cluster.MemberRemove", "the last one", ID=Note("self"), differs=DECLARED),
        members("MemberAdd", "learner", peerURLs=["http://10.1.2.4:2380"], isLearner=True),
        Step("note the learner's id", _learner_id),
        members("MemberList", "with learner"),
        Step("another second", _another_second),
        members("MemberAdd", "same URL", peerURLs=["http://10.1.2.4:2380"]),
        members("MemberAdd", "second learner", peerURLs=["http://10.1.2.5:2380"], isLearner=True),
        call("Cluster.MemberPromote", "not in sync", ID=Note("learner")),
        members(
            "MemberUpdate",
            "learner",
            LEARNER,
            ID=Note("learner"),
            peerURLs=["http://10.1.2.6:2380"],
        ),
        members("MemberList", "updated", LEARNER),
        members("MemberRemove", "learner", ID=Note("learner")),
        call("Cluster.MemberRemove", "removed", ID=Note("learner")),
        call("Cluster.MemberUpdate", "removed", ID=Note("learner"), peerURLs=[FAR]),
        call("Cluster.MemberPromote", "removed", ID=Note("learner")),
        members("MemberList", "removed"),
    ]
    return [settled(step) for step in steps]


def _another_second(client: Client) -> Outcome:
    """An id is made of URLs and the second: in the same one, the same URLs are the same id."""
    second = int(time.time())
    while int(time.time()) == second:
        time.sleep(0.01)
    return 0


def _learner_id(client: Client) -> Outcome:
    client.unary("Cluster.MemberList", {})
    found = [m.ID for m in client.notes["last"].members if m.isLearner]
    assert found, f"no learner at {client.notes['target']}"  # the port says which server
    client.notes["learner"] = found[0]
    return len(found)


def maintenance() -> list[Step]:
    steps = [
        call("Maintenance.Status", differs=EMPTY),
        call("Maintenance.Defragment"),
        call("Maintenance.HashKV", revision=0, differs=EMPTY),
        call("KV.Put", "hash", key=b"h", value=b"1"),
        call("Maintenance.HashKV", "one key", revision=0),
        call("Maintenance.HashKV", "past", revision=1, differs=EMPTY),
        call("Maintenance.HashKV", "future", revision=99),
        call("Maintenance.HashKV", "negative", revision=-1),
        call("Maintenance.Hash"),
        call("Maintenance.MoveLeader", "unknown", targetID=5),
        call("Maintenance.MoveLeader", "zero", targetID=0),
        call("Maintenance.MoveLeader", "itself", targetID=Note("self")),
        Step("Maintenance.Snapshot", _snapshot),
    ]
    for alarm in (1, 2):
        steps += [_alarm(0, 0, alarm), _alarm(1, 5, alarm), *_under_alarm(f"{alarm} raised")]
        steps += [_alarm(1, 5, alarm), _alarm(1, 6, alarm), _alarm(0, 0, 0), _alarm(0, 9, alarm)]
        steps += [_alarm(0, 0, 3 - alarm), _alarm(2, 0, alarm), _alarm(2, 5, 0)]
        steps += [_alarm(2, 5, 3 - alarm), _alarm(2, 6, alarm), *_under_alarm(f"{alarm} one left")]
        steps += [_alarm(2, 5, alarm), _alarm(2, 5, alarm), *_under_alarm(f"{alarm} disarmed")]
    steps += [_alarm(1, 5, 1), _alarm(1, 5, 2), *_under_alarm("both raised"), _alarm(2, 5, 1)]
    # Last, since only etcd's revision grows.
    return [*steps, call("KV.Put", "NOSPACE disarmed, CORRUPT not", key=b"a", differs=CORRUPT)]


def _alarm(action: int, member: int, alarm: int) -> Step:
    """None is raised of type NONE: 3.4.23 panics then, ours does nothing (N5)."""

    def run(client: Client) -> Outcome:
        fields = {"action": action, "memberID": member, "alarm": alarm}
        found = client.unary("Maintenance.Alarm", fields)
        if isinstance(found, dict):
            found.pop("header", None)  # 3.4 sends none
            found.get("alarms", []).sort(key=repr)  # in no order there
        return found

    return Step(f"Maintenance.Alarm(action {action}, member {member}, type {alarm})", run)


def _under_alarm(when: str) -> list[Step]:
    return [
        call("KV.Put", f"alarm {when}", key=b"alarm", value=b"1"),
        call("KV.Range", f"alarm {when}", key=b"alarm"),
        call("KV.DeleteRange", f"alarm {when}", key=b"alarm"),
        call("KV.Txn", f"alarm {when}", failure=[{"request_put": {"key": b"alarm"}}]),
        call("Lease.LeaseRevoke", f"alarm {when}", ID=404),
        call("KV.Compact", f"alarm {when}", revision=10**6),
    ]


def _snapshot(client: Client) -> Outcome:
    """Sizes fit, the last message is the hash of all before, and no header is there (N8, H7)."""
    chunks = list(
        client.channel.unary_stream(
            "/etcdserverpb.Maintenance/Snapshot",
            rpc_pb2.SnapshotRequest.SerializeToString,
            rpc_pb2.SnapshotResponse.FromString,
        )(rpc_pb2.SnapshotRequest(), timeout=TIMEOUT_S)
    )
    blob = b"".join(c.blob for c in chunks)
    body, digest = blob[:-32], blob[-32:]
    left, fits = len(body), True
    for chunk in chunks[:-1]:
        left -= len(chunk.blob)
        fits = fits and chunk.remaining_bytes == left
    return {
        "aligned": len(body) % 512,
        "hashed": hashlib.sha256(body).digest() == digest,
        "alone": len(chunks[-1].blob),
        "remaining": fits and chunks[-1].remaining_bytes == 0,
        "headers": any(c.HasField("header") for c in chunks),
        "small": max(len(c.blob) for c in chunks) <= 32768,
    }


def _health(service: str) -> Step:
    def run(client: Client) -> Outcome:
        check = client.channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            health_pb2.HealthCheckRequest.SerializeToString,
            health_pb2.HealthCheckResponse.FromString,
        )
        try:
            return check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT_S).status
        except grpc.RpcError as error:
            return error.code().name, error.details()

    return Step(f"health of {service!r}", run)


def _raw(path: str, body: bytes, label: str, differs: str = "", **metadata: str) -> Step:
    """Bytes as they are: what is no message, no method, or too much."""

    def run(client: Client) -> Outcome:
        send = client.channel.unary_unary(path, lambda b: b, lambda b: b)
        try:
            answer = send(body, timeout=TIMEOUT_S, metadata=list(metadata.items()))
            return plain(rpc_pb2.RangeResponse.FromString(answer))
        except grpc.RpcError as error:
            return error.code().name, error.details()

    return Step(f"{path} {label}", run, differs)


def transport() -> list[Step]:
    kv = "/etcdserverpb.KV/Range"
    return [
        _health(""),
        _health("etcdserverpb.KV"),
        _raw("/etcdserverpb.KV/Nothing", b"", "unknown method", "names no service of ours"),
        _raw("/nothing.Such/Call", b"", "unknown service", "names no service of ours"),
        _raw(kv, b"\x0a\x05a", "cut short", "another parser's words"),
        _raw(kv, b"", "empty"),
        _raw(kv, b"\x0a\x01a\xf8\x3f\x01", "unknown field"),
        _raw(kv, b"\x0a\x01a", "hasleader", hasleader="true"),
        _raw(kv, b"\x0a" + b"\x80\x80\xa0\x01" + b"a" * (20 << 17), "2.5 MiB"),
    ]


SCRIPT = [*cluster(), *transport(), *maintenance()]


@pytest.mark.parametrize("number", range(len(SCRIPT)), ids=lambda n: SCRIPT[n].name)
def test_cluster_as_etcd(number: int, outcomes: dict[int, tuple[object, object]]) -> None:
    compare(SCRIPT[number], *outcomes[number])
