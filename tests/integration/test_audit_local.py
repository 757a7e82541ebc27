"""Stream L in real members: records before answers, floods, dead disks, anchors, checkpoints."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import time
from collections.abc import Callable
from typing import Any

import pytest

from configsvc.audit.checkpoint import decode_checkpoint, decode_note
from configsvc.client import inquiries
from configsvc.errors import ConfigServiceError, UnimplementedError
from configsvc.proto import rpc_pb2 as rpc
from configsvc.proto import rpc_pb2_grpc
from configsvc.storage.snapshot.generations import FIRST_GENERATION, generation_path
from tests.support.joiners import configctl
from tests.support.local_stream import channel, events, refusal, refused, stream
from tests.support.members import MemberCluster, MemberProcess

pytestmark = pytest.mark.integration

DENIED = ("PERMISSION_DENIED", "etcdserver: permission denied")


@pytest.fixture
def alone(make_cluster: Callable[[int], MemberCluster]) -> MemberCluster:
    cluster = make_cluster(1)
    cluster.start()
    return cluster


def test_a_refusal_is_on_disk_before_its_answer(alone: MemberCluster) -> None:
    member = alone.members[0]
    with channel(alone, "mallory", member) as open_channel:
        kv = rpc_pb2_grpc.KVStub(open_channel)
        got = refusal(lambda: kv.Range(rpc.RangeRequest(key=b"/r/1", range_end=b"/r/2")))
        member.kill(signal.SIGKILL)
    assert got == DENIED
    records = stream(member)
    assert events(records)[:2] == ["settings", "start"]
    [denied] = [r for r in refused(records) if r["event"] == "authz.denied"]
    assert (denied["key"], denied["range_end"], denied["object"]) == (b"/r/1", b"/r/2", "kv.range")
    assert denied["code"] == "PERMISSION_DENIED"
    assert denied["method"] == "/etcdserverpb.KV/Range"
    assert denied["who"]["user"] == "mallory"
    assert denied["who"]["ip"] == "127.0.0.1"


def test_each_kind_of_refusal_has_its_record(alone: MemberCluster) -> None:
    member = alone.members[0]
    secret = "correct horse battery staple"
    with channel(alone, "root", member) as root:
        auth = rpc_pb2_grpc.AuthStub(root)
        auth.UserAdd(rpc.AuthUserAddRequest(name="bob", password=secret))
        options: Any = {"no_password": True}
        auth.UserAdd(rpc.AuthUserAddRequest(name="carol", options=options))
        token = auth.Authenticate(rpc.AuthenticateRequest(name="bob", password=secret)).token
        for name in ("bob", "carol", "SECRET-IN-NAME"):
            wrong = rpc.AuthenticateRequest(name=name, password="SECRET-PASSWORD-TRIED")
            assert refusal(lambda wrong=wrong: auth.Authenticate(wrong))[0] == "INVALID_ARGUMENT"
        kv = rpc_pb2_grpc.KVStub(root)
        bad = (("token", "SECRET-TOKEN-TRIED"),)
        ask = rpc.RangeRequest(key=b"x")
        assert refusal(lambda: kv.Range(ask, metadata=bad))[0] == "UNAUTHENTICATED"
        odd = root.unary_unary("/etcdserverpb.KV/SECRET-METHOD")
        assert refusal(lambda: odd(b""))[0] == "UNIMPLEMENTED"
        garbage = root.unary_unary("/etcdserverpb.KV/Range")
        assert refusal(lambda: garbage(b"\xff\xffSECRET-BYTES"))[0] == "INVALID_ARGUMENT"
        kv.Put(rpc.PutRequest(key=b"/secret/a", value=b"SECRET-VALUE"))
        assert kv.Range(rpc.RangeRequest(key=b"/secret/a")).count == 1
        assert kv.Range(rpc.RangeRequest(key=b"/plain/a")).count == 0
        list(rpc_pb2_grpc.MaintenanceStub(root).Snapshot(rpc.SnapshotRequest()))
    member.signal(signal.SIGHUP)
    with channel(alone, "mallory", member) as mallory:
        put = rpc.PutRequest(key=b"k", value=b"v")
        assert refusal(lambda: rpc_pb2_grpc.KVStub(mallory).Put(put)) == DENIED
        watch = rpc_pb2_grpc.WatchStub(mallory).Watch(
            iter([rpc.WatchRequest(create_request={"key": b"/w"})])  # type: ignore[arg-type]
        )
        assert next(watch).canceled
        watch.cancel()
    member.kill(signal.SIGTERM)

    records = stream(member)
    about = [(r["event"], r["code"], r.get("detail", ""), r.get("user", "")) for r in records]
    for expected in (
        ("auth.login", "OK", "", "bob"),
        ("auth.denied", "INVALID_ARGUMENT", "wrong password", "bob"),
        ("auth.denied", "INVALID_ARGUMENT", "user has no password", "carol"),
        ("auth.denied", "INVALID_ARGUMENT", "unknown user", ""),
        ("unknown.method", "UNIMPLEMENTED", UnimplementedError.text, ""),
        ("reload", "OK", "", ""),
        ("stop", "OK", "signal", ""),
    ):
        assert about.count(expected) >= 1, (expected, about)
    found = events(records)
    assert found.count("auth.denied") == 4
    assert found.count("request.malformed") == 1
    assert found.count("snapshot.export") == 1
    assert [r["key"] for r in records if r["event"] == "kv.range"] == [b"/secret/a"]
    denied = [r.get("key") for r in refused(records) if r["event"] == "authz.denied"]
    assert denied == [b"/w"], "what apply refused stands in stream M"
    held = repr(records) + member.log_text()
    for text in ("SECRET-", secret, token):
        assert text not in held


def test_a_flood_of_equal_refusals_becomes_a_count(alone: MemberCluster) -> None:
    member = alone.members[0]
    with channel(alone, "mallory", member) as open_channel:
        kv = rpc_pb2_grpc.KVStub(open_channel)
        ask = rpc.RangeRequest(key=b"/flood")
        calls = [kv.Range.future(ask) for _ in range(250)]
        assert all(call.code().name == "PERMISSION_DENIED" for call in calls)
    member.kill(signal.SIGTERM)
    denied = [r for r in refused(stream(member)) if r["event"] == "authz.denied"]
    assert len(denied) == 101
    assert sum(r.get("repeated", 1) for r in denied) == 250


def test_without_its_disk_nothing_is_refused_silently(alone: MemberCluster) -> None:
    member = alone.members[0]
    # As a full disk does, for this file alone: another connection holds the write lock.
    blocker = sqlite3.connect(member.data / "local" / "audit.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with channel(alone, "mallory", member) as open_channel:
        kv = rpc_pb2_grpc.KVStub(open_channel)
        ask = rpc.RangeRequest(key=b"/r")
        assert refusal(lambda: kv.Range(ask)) == ("UNAVAILABLE", "audit log unavailable")
        with alone.client() as client:
            assert client.get(b"/plain") is None, "what is not recorded is served"
        blocker.execute("ROLLBACK")
        blocker.close()
        deadline = time.monotonic() + 10
        while refusal(lambda: kv.Range(ask)) != DENIED:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    member.kill(signal.SIGTERM)
    records = stream(member)
    assert [r["seq"] for r in records] == list(range(len(records)))


def applied(cluster: MemberCluster) -> list[int]:
    return [cluster.status(m).raftAppliedIndex for m in cluster.members]


def signatures(member: MemberProcess) -> dict[tuple[int, int], bytes]:
    """(member, size) -> root, as the stopped member's history holds them."""
    found: dict[tuple[int, int], bytes] = {}
    path = generation_path(member.data, FIRST_GENERATION)
    with contextlib.closing(sqlite3.connect(path)) as db:
        for who, size, root in db.execute("SELECT member, size, root FROM signatures"):
            found[who % (1 << 64), size] = root
    return found


@pytest.mark.timeout(300)  # the wait for silence alone may take two minutes
def test_anchors_and_signed_heads_then_silence(
    make_cluster: Callable[[int], MemberCluster],
) -> None:
    cluster = make_cluster(3)
    cluster.start()
    with cluster.client() as client:
        for number in range(5):
            client.put(b"/k", b"%d" % number)
        note = client.do(inquiries.checkpoint())
    keys = decode_note(note.note).signatures
    assert len({each.key_id for each in keys}) >= 2, "a majority signs one head"
    with cluster.client(member=cluster.others(cluster.leader())[0]) as client:
        proof = client.do(inquiries.inclusion(0, note.size))
        assert proof.tree_size == note.size
        with pytest.raises(ConfigServiceError, match="signed head"):
            client.do(inquiries.inclusion(0, 1))

    # Anchors come within ten seconds, signatures of them ten later. On a busy machine an election
    # may begin both again, and asking three members takes its time: silence is measured by clock.
    deadline = time.monotonic() + 120
    before, since = applied(cluster), time.monotonic()
    while time.monotonic() - since < 12:
        assert time.monotonic() < deadline, "an idle cluster writes nothing"
        time.sleep(1)
        now = applied(cluster)
        if now != before:
            before, since = now, time.monotonic()
    shown = configctl(cluster, "audit", "verify", "--local")
    assert shown.count(" local: ") == 3
    shown = configctl(cluster, "audit", "local", "--limit", "2")
    assert [json.loads(line)["event"] for line in shown.splitlines()] == ["settings", "start"]

    own = cluster.members[0]
    for member in cluster.members:
        member.kill(signal.SIGTERM)
    held = signatures(own)
    size = max(s for who, s in held if who == own.id)
    last = decode_checkpoint((own.data / "local" / "log.signed").read_text())
    assert (last.size, last.root) == (size, held[own.id, size])
    same = [who for (who, s), root in held.items() if (s, root) == (size, last.root)]
    assert len(same) >= 2


def test_a_history_that_lost_what_was_signed_ends_the_member(alone: MemberCluster) -> None:
    member = alone.members[0]
    with alone.client() as client:
        client.put(b"/k", b"v")
        client.do(inquiries.checkpoint())
    member.kill(signal.SIGTERM)
    path = generation_path(member.data, FIRST_GENERATION)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        (leaf,) = db.execute("SELECT leaf FROM commits WHERE seq = 1").fetchone()
        db.execute("UPDATE commits SET leaf = ? WHERE seq = 1", (leaf[:-1] + b"!",))
    member.start()
    assert member.wait_exit(30) == 91
    assert "the tree does not hold the head signed before" in member.log_text()
    [evidence] = (member.data / "local").glob("evidence-*.txt")
    assert "signed last:" in evidence.read_text()
