"""Lock and election of a real member, over gRPC and JSON (wire/behaviour.md 10, 11)."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from configsvc.proto import (
    rpc_pb2,
    rpc_pb2_grpc,
    v3election_pb2_grpc,
    v3lock_pb2,
    v3lock_pb2_grpc,
)
from configsvc.proto import v3election_pb2 as pb
from tests.support.gateway_client import JsonClient, b64, unb64

Connect = Callable[[str], grpc.Channel]
_names = itertools.count()


class Stubs:
    def __init__(self, channel: grpc.Channel) -> None:
        self.lock = v3lock_pb2_grpc.LockStub(channel)
        self.election = v3election_pb2_grpc.ElectionStub(channel)
        self.kv = rpc_pb2_grpc.KVStub(channel)
        self.leases = rpc_pb2_grpc.LeaseStub(channel)

    def keys(self, name: bytes) -> list[bytes]:
        request = rpc_pb2.RangeRequest(key=name + b"/", range_end=name + b"0")
        return [kv.key for kv in self.kv.Range(request, timeout=5).kvs]

    def lease(self, lease: int = 0, ttl: int = 60) -> int:
        return self.leases.LeaseGrant(rpc_pb2.LeaseGrantRequest(TTL=ttl, ID=lease), timeout=5).ID

    def take(self, name: bytes, lease: int = 0) -> Any:
        return self.lock.Lock.future(v3lock_pb2.LockRequest(name=name, lease=lease), timeout=10)

    def campaign(self, name: bytes, value: bytes, lease: int = 0) -> Any:
        request = pb.CampaignRequest(name=name, value=value, lease=lease)
        return self.election.Campaign.future(request, timeout=10)

    def delete(self, key: bytes) -> None:
        self.kv.DeleteRange(rpc_pb2.DeleteRangeRequest(key=key), timeout=5)


@pytest.fixture(scope="module")
def root_stubs(channel_of: Connect) -> Stubs:
    return Stubs(channel_of("root"))


@pytest.fixture(scope="module")
def alice_stubs(channel_of: Connect) -> Stubs:
    return Stubs(channel_of("alice"))


@pytest.fixture
def name() -> bytes:
    return b"app/queue%d" % next(_names)


def eventually(check: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def refusal(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()  # type: ignore[attr-defined]


UNKNOWN = grpc.StatusCode.UNKNOWN


# --- lock -----------------------------------------------------------------------------------------


def test_the_key_names_the_lease(alice_stubs: Stubs, name: bytes) -> None:
    s = alice_stubs
    lease = s.lease(0xABC)
    held = s.take(name, lease).result()
    assert held.key == name + b"/abc"
    (kv,) = s.kv.Range(rpc_pb2.RangeRequest(key=held.key)).kvs
    assert (kv.lease, kv.value, kv.create_revision) == (lease, b"", held.header.revision)
    again = s.take(name, lease).result()
    assert again.key == held.key
    assert s.keys(name) == [held.key]


def test_others_wait_in_the_order_they_came(alice_stubs: Stubs, name: bytes) -> None:
    s = alice_stubs
    first = s.take(name).result()
    waiting = []
    for number in range(1, 4):
        waiting.append(s.take(name))
        assert eventually(lambda n=number: len(s.keys(name)) == n + 1)
    assert not any(w.done() for w in waiting)
    held = first
    for index, follower in enumerate(waiting):
        s.lock.Unlock(v3lock_pb2.UnlockRequest(key=held.key))
        held = follower.result()
        assert not any(w.done() for w in waiting[index + 1 :])
    assert s.keys(name) == [held.key]


def test_a_lease_that_ends_hands_the_lock_on(alice_stubs: Stubs, name: bytes) -> None:
    s = alice_stubs
    lease = s.lease()
    s.take(name, lease).result()
    second = s.take(name)
    assert eventually(lambda: len(s.keys(name)) == 2)
    s.leases.LeaseRevoke(rpc_pb2.LeaseRevokeRequest(ID=lease))
    assert s.keys(name) == [second.result().key]


def test_without_a_lease_one_of_a_minute_is_granted(alice_stubs: Stubs, name: bytes) -> None:
    s = alice_stubs
    held = s.take(name).result()
    (kv,) = s.kv.Range(rpc_pb2.RangeRequest(key=held.key)).kvs
    told = s.leases.LeaseTimeToLive(rpc_pb2.LeaseTimeToLiveRequest(ID=kv.lease))
    assert told.grantedTTL == 60


@pytest.mark.parametrize("how", ["cancel", "deadline"])
@pytest.mark.parametrize("own_lease", [True, False])
def test_whoever_stops_waiting_leaves_no_key(
    alice_stubs: Stubs, name: bytes, how: str, own_lease: bool
) -> None:
    s = alice_stubs
    holder = s.take(name).result()
    lease = s.lease() if own_lease else 0
    request = v3lock_pb2.LockRequest(name=name, lease=lease)
    call = s.lock.Lock.future(request, timeout=0.3 if how == "deadline" else 10)
    assert eventually(lambda: len(s.keys(name)) == 2)
    if how == "cancel":
        call.cancel()
    else:
        assert refusal(call.result)[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    assert eventually(lambda: s.keys(name) == [holder.key])
    if own_lease:  # it is the caller's, and stays
        told = s.leases.LeaseTimeToLive(rpc_pb2.LeaseTimeToLiveRequest(ID=lease))
        assert told.TTL > 0


def test_a_key_that_vanishes_ends_the_wait(alice_stubs: Stubs, name: bytes) -> None:
    s = alice_stubs
    s.take(name).result()
    lease = s.lease()
    waiting = s.take(name, lease)
    assert eventually(lambda: len(s.keys(name)) == 2)
    s.leases.LeaseRevoke(rpc_pb2.LeaseRevokeRequest(ID=lease))
    assert refusal(waiting.result) == (UNKNOWN, "mutex: session is expired")


def test_refusals_of_lock(alice_stubs: Stubs, name: bytes) -> None:
    s = alice_stubs
    assert refusal(lambda: s.take(name, 999).result()) == (
        UNKNOWN,
        "etcdserver: requested lease not found",
    )
    assert refusal(lambda: s.lock.Unlock(v3lock_pb2.UnlockRequest())) == (
        UNKNOWN,
        "etcdserver: key is not provided",
    )
    s.lock.Unlock(v3lock_pb2.UnlockRequest(key=name + b"/missing"))


def test_a_lock_over_json(alice: JsonClient, alice_stubs: Stubs, name: bytes) -> None:
    held = alice.call("/v3/lock/lock", {"name": b64(name)})
    assert list(held.json) == ["header", "key"]
    late = alice.call("/v3/lock/lock", {"name": b64(name)}, headers={"Grpc-Timeout": "200m"})
    assert (late.status, late.json["code"]) == (504, 4)
    assert eventually(lambda: len(alice_stubs.keys(name)) == 1)
    waiting = alice.stream("/v3/lock/lock", json.dumps({"name": b64(name)}))
    assert eventually(lambda: len(alice_stubs.keys(name)) == 2)
    waiting.close()  # the client goes away
    assert eventually(lambda: len(alice_stubs.keys(name)) == 1)
    with alice.stream("/v3/lock/lock", json.dumps({"name": b64(name)})) as waiting:
        assert eventually(lambda: len(alice_stubs.keys(name)) == 2)
        alice.call("/v3/lock/unlock", {"key": held.json["key"]})
        assert waiting.status == 200
        key = json.loads(waiting.body())["key"]
    assert unb64(key) in alice_stubs.keys(name)


# --- rights ---------------------------------------------------------------------------------------


def test_every_step_needs_the_callers_rights(
    root: JsonClient, bob: JsonClient, alice: JsonClient, root_stubs: Stubs
) -> None:
    denied = (500, {"code": 2, "message": "etcdserver: permission denied"})
    leader = {"name": b64("app/x"), "key": b64("app/x/1"), "rev": 1, "lease": 1}
    for path, body in (
        ("lock/lock", {"name": b64("app/x")}),
        ("lock/unlock", {"key": b64("app/x/1")}),
        ("election/campaign", {"name": b64("app/x")}),
        ("election/leader", {"name": b64("app/x")}),
        ("election/observe", {"name": b64("app/x")}),
        ("election/proclaim", {"leader": leader}),
        ("election/resign", {"leader": leader}),
    ):
        answer = bob.call(f"/v3/{path}", body)
        error = answer.json.get("error") if "observe" in path else answer.json
        assert (answer.status, {k: error[k] for k in ("code", "message")}) == denied, path
    assert root_stubs.keys(b"app/x") == []
    outside = alice.call("/v3/lock/lock", {"name": b64("other")})
    assert outside.json["message"] == "etcdserver: permission denied"


def test_rights_lost_while_waiting_end_the_wait(
    root: JsonClient, root_stubs: Stubs, channel_of: Connect, name: bytes
) -> None:
    holder = root_stubs.take(name).result()
    root.call("/v3/auth/user/grant", {"user": "bob", "role": "app"})
    waiting = Stubs(channel_of("bob")).take(name)
    assert eventually(lambda: len(root_stubs.keys(name)) == 2)
    root.call("/v3/auth/user/revoke", {"name": "bob", "role": "app"})
    root_stubs.delete(holder.key)
    assert refusal(waiting.result) == (UNKNOWN, "etcdserver: permission denied")
    # The clean-up was bob's too: nobody else's rights were lent to it.
    assert len(root_stubs.keys(name)) == 1


# --- election -------------------------------------------------------------------------------------


def test_campaign_proclaim_resign(alice_stubs: Stubs, name: bytes) -> None:
    s = alice_stubs
    lease = s.lease()
    won = s.campaign(name, b"one", lease).result()
    me = won.leader
    assert (me.name, me.lease, me.rev) == (name, lease, won.header.revision)
    assert me.key == b"%s/%x" % (name, lease)
    second = s.campaign(name, b"two")
    assert eventually(lambda: len(s.keys(name)) == 2)
    s.election.Proclaim(pb.ProclaimRequest(leader=me, value=b"new"))
    leader = s.election.Leader(pb.LeaderRequest(name=name))
    assert (leader.kv.key, leader.kv.value, leader.kv.lease) == (me.key, b"new", lease)
    s.election.Resign(pb.ResignRequest(leader=pb.LeaderKey(key=me.key, rev=me.rev + 1)))
    assert not second.done()  # a wrong revision is a silent OK
    s.election.Resign(pb.ResignRequest(leader=me))
    assert second.result().leader.key != me.key
    proclaim = pb.ProclaimRequest(leader=me, value=b"late")
    assert refusal(lambda: s.election.Proclaim(proclaim)) == (UNKNOWN, "election: not leader")


def test_the_same_lease_campaigns_again(alice_stubs: Stubs, name: bytes) -> None:
    s = alice_stubs
    lease = s.lease()
    first = s.campaign(name, b"one", lease).result().leader
    again = s.campaign(name, b"two", lease).result().leader
    assert (again.key, again.rev) == (first.key, first.rev)
    assert s.election.Leader(pb.LeaderRequest(name=name)).kv.value == b"two"


def test_a_campaign_that_is_cancelled_resigns(alice_stubs: Stubs, name: bytes) -> None:
    s = alice_stubs
    leader = s.campaign(name, b"one").result().leader
    second = s.campaign(name, b"two", s.lease())
    assert eventually(lambda: len(s.keys(name)) == 2)
    second.cancel()
    assert eventually(lambda: s.keys(name) == [leader.key])


def test_refusals_of_election(alice_stubs: Stubs, name: bytes) -> None:
    s = alice_stubs
    assert refusal(lambda: s.election.Leader(pb.LeaderRequest(name=name))) == (
        UNKNOWN,
        "election: no leader",
    )
    for call in (
        lambda: s.election.Proclaim(pb.ProclaimRequest(value=b"x")),
        lambda: s.election.Resign(pb.ResignRequest()),
    ):
        assert refusal(call) == (UNKNOWN, '"leader" field must be provided')
    never = pb.LeaderKey(name=name, key=name + b"/1")
    assert refusal(lambda: s.election.Proclaim(pb.ProclaimRequest(leader=never)))[1] == (
        "election: not leader"
    )
    assert s.keys(name) == []
    assert refusal(lambda: s.campaign(name, b"x", 999).result())[1] == (
        "etcdserver: requested lease not found"
    )


def test_observe_tells_values_and_successors(alice_stubs: Stubs, name: bytes) -> None:
    s = alice_stubs
    seen: Iterator[Any] = s.election.Observe(pb.LeaderRequest(name=name), timeout=10)
    first = s.campaign(name, b"one").result().leader
    told = next(seen)
    assert (told.kv.key, told.kv.value) == (first.key, b"one")
    for number in range(50):
        value = b"%d" % number
        s.election.Proclaim(pb.ProclaimRequest(leader=first, value=value))
    assert [next(seen).kv.value for _ in range(50)] == [b"%d" % n for n in range(50)]
    second = s.campaign(name, b"two")
    assert eventually(lambda: len(s.keys(name)) == 2)
    s.election.Resign(pb.ResignRequest(leader=first))
    assert next(seen).kv.value == b"two"
    s.election.Resign(pb.ResignRequest(leader=second.result().leader))
    s.campaign(name, b"three").result()
    assert next(seen).kv.value == b"three"
    seen.cancel()  # type: ignore[attr-defined]


def test_observe_over_json(alice: JsonClient, alice_stubs: Stubs, name: bytes) -> None:
    with alice.stream("/v3/election/observe", json.dumps({"name": b64(name)})) as seen:
        assert seen.quiet(0.1)
        won = alice.call("/v3/election/campaign", {"name": b64(name), "value": b64("one")})
        assert '"leader":{"name":"' in won.text
        chunk = seen.chunk()
        assert chunk.startswith('{"result":{"header":{')
        assert unb64(json.loads(chunk)["result"]["kv"]["value"]) == b"one"
    body = {"leader": won.json["leader"], "value": b64("two")}
    assert list(alice.call("/v3/election/proclaim", body).json) == ["header"]
    assert list(alice.call("/v3/election/resign", {"leader": won.json["leader"]}).json) == [
        "header"
    ]
    missing = alice.call("/v3/election/resign", {})
    assert (missing.status, missing.json["code"]) == (500, 2)
    assert missing.json["message"] == '"leader" field must be provided'


def test_nothing_is_left_running(root: JsonClient, root_stubs: Stubs) -> None:
    """Every wait of the tests above has freed its watch."""

    def streams() -> str:
        text = root.get("/metrics").text
        return next(
            x for x in text.splitlines() if x.startswith("etcd_debugging_mvcc_watch_stream")
        )

    assert eventually(lambda: float(streams().split()[1]) == 0), streams()
