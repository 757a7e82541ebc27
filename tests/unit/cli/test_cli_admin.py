"""status, members, alarms, leases, users, roles, policy, locks, services."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

from grpc import StatusCode as Code

from configsvc.cli.commands_lease import show_id
from configsvc.cli.commands_service import is_healthy
from configsvc.proto import auth_pb2
from configsvc.proto import rpc_pb2 as rpc
from tests.support.cli_runner import Shell
from tests.support.fake_cluster import FakeCluster

PYTHON = sys.executable
REVOKE = "/etcdserverpb.Lease/LeaseRevoke"


def test_status(shell: Shell, cluster: FakeCluster) -> None:
    found = shell.ok("status", "--json").json
    assert [one["is_leader"] for one in found] == [True, False]
    assert found[0]["term"] == 3
    assert "development" in shell.ok("status").err
    cluster.members[1].stop()
    ran = shell.run("status", "--json")
    assert ran.code == 4
    assert [one["reachable"] for one in ran.json] == [True, False]
    assert shell.run("status", "--cluster").code == 4
    assert "Connection refused" in shell.run("status").out


def test_members(shell: Shell, cluster: FakeCluster) -> None:
    found = shell.ok("member", "list", "--json").json
    assert [(one["id"], one["name"]) for one in found] == [("1", "m1"), ("2", "m2")]
    added = shell.ok("member", "add", "https://x:2380", "--learner", "--json").json
    assert added["learner"]
    assert "--initial-cluster m1=" in shell.ok("member", "add", "https://x:2380").out
    assert shell.run("member", "remove", "m2").code == 2
    assert shell.run("member", "remove", "m9", "--yes").code == 1
    shell.ok("member", "remove", "m2", "--yes", "--reason", "old")
    remove = cluster.calls("/etcdserverpb.Cluster/MemberRemove")
    assert len(remove) == 1
    assert remove[0][1]["x-change-reason-bin"] == b"old"
    shell.ok("member", "update", "1", "https://y:2380")
    shell.ok("member", "promote", "m1")


def test_replacing_a_member_is_resumed_where_it_stands(shell: Shell, cluster: FakeCluster) -> None:
    words = ("member", "replace", "m1", "m3", "--peer-urls=https://z:2380", "--yes")
    assert shell.run(*words[:-1]).code == 2  # not without a yes
    assert "promotes the new member" in shell.ok(*words).out
    assert shell.run(*words).code == 4  # it has not started yet
    (new,) = cluster.store.joined
    new.name = "m3"
    assert "is in its place" in shell.ok(*words).out
    assert not new.isLearner
    assert cluster.store.removed == {1}
    shell.ok(*words)  # saying it once more changes nothing
    assert len(cluster.calls("/etcdserverpb.Cluster/MemberRemove")) == 1


def test_new_members_are_named_in_either_way(shell: Shell, cluster: FakeCluster) -> None:
    for words in (("m3", "--peer-urls", "https://x:1,https://x:2"), ("https://x:3", "m3")):
        assert "m3=https://x:" in shell.ok("member", "add", *words).out
    for words in ((), ("m3",), ("m3", "m4", "https://x:4")):
        assert shell.run("member", "add", *words).code == 2


def test_alarms(shell: Shell, cluster: FakeCluster) -> None:
    assert shell.ok("alarm", "list").out == "no alarms\n"
    cluster.store.alarms = [(1, rpc.NOSPACE), (2, rpc.CORRUPT)]
    ran = shell.run("alarm", "list", "--json")
    assert ran.code == 1
    assert ran.json == [
        {"member": "1", "alarm": "NOSPACE"},
        {"member": "2", "alarm": "CORRUPT"},
    ]
    shell.ok("alarm", "disarm")
    assert cluster.store.alarms == []


def test_leader_moves_by_asking_the_leader(shell: Shell, cluster: FakeCluster) -> None:
    shell.ok("move-leader", "m2")
    assert cluster.store.leader == 2
    assert "already" in shell.ok("move-leader", "m2").out
    shell.ok("move-leader", "m1")
    assert cluster.store.leader == 1
    cluster.store.leader = 0
    assert shell.run("move-leader", "m2").code == 4


def test_snapshot_appears_only_when_whole(
    shell: Shell, cluster: FakeCluster, tmp_path: Path
) -> None:
    path = tmp_path / "s.db"
    shell.ok("snapshot", "save", str(path))
    data = path.read_bytes()
    assert hashlib.sha256(data[:-32]).digest() == data[-32:]
    assert len(data) % 512 == 32
    assert path.stat().st_mode & 0o077 == 0
    cluster.store.snapshot = b"another"
    other = tmp_path / "damaged.db"
    assert shell.run("snapshot", "save", str(other)).code == 1
    assert sorted(one.name for one in tmp_path.iterdir()) == ["home", "s.db"]


def test_a_snapshot_that_has_no_place_says_so(
    shell: Shell, cluster: FakeCluster, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file" / "x", tmp_path / "none" / "x"):
        ran = shell.run("snapshot", "save", str(place))
        assert ran.code == 1
        assert str(place) in ran.err
        assert "a bug" not in ran.err
    assert shell.run("snapshot", "save", "").code == 2


def test_defrag(shell: Shell, cluster: FakeCluster) -> None:
    assert len(shell.ok("defrag").out.splitlines()) == 2


def test_leases(shell: Shell, cluster: FakeCluster) -> None:
    lease = shell.ok("lease", "grant", "30", "--json").json["lease"]
    shell.ok("put", "/a", "1", "--lease", lease)
    assert shell.ok("get", "/a", "--json").json["lease"] == lease
    assert shell.ok("lease", "ttl", lease, "--keys").out == "30 s left of 30 s\n/a\n"
    assert shell.ok("lease", "keepalive", lease, "--once").out == f"{lease} lasts 30 s\n"
    assert shell.ok("lease", "list", "--json").json == [lease]
    assert "deletes 1 keys" in shell.run("lease", "revoke", lease).err
    shell.ok("lease", "revoke", lease, "--yes")
    for words in (("ttl", lease), ("keepalive", lease), ("revoke", lease, "--yes")):
        assert shell.run("lease", *words).code == 1
    assert shell.run("lease", "ttl", "xyz").code == 2
    assert show_id(-1) == "f" * 16
    assert shell.run("put", "/a", "1", "--lease", "beef").code == 1


def test_users_and_roles(shell: Shell, cluster: FakeCluster, tmp_path: Path) -> None:
    secret = tmp_path / "pw"
    secret.write_text("long enough\n")
    shell.ok("user", "add", "bob")
    shell.ok("user", "add", "eve", "--password-file", str(secret))
    assert cluster.store.passwords["eve"] == "long enough"
    assert "bob" not in cluster.store.passwords
    assert shell.run("user", "add", "bob").code == 5
    shell.ok("user", "passwd", "bob", "--password-file", "-", stdin=b"from stdin\n")
    assert cluster.store.passwords["bob"] == "from stdin"
    assert shell.run("user", "passwd", "bob").code == 2  # no terminal to ask on
    shell.ok("role", "add", "app")
    shell.ok("role", "grant", "app", "readwrite", "/app/", "--prefix", "--reason", "r")
    shell.ok("role", "grant", "app", "read", "/k")
    shell.ok("role", "grant", "app", "write", "/x", "/z")
    text = shell.ok("role", "get", "app").out
    assert [line.split() for line in text.splitlines()[1:]] == [
        ["readwrite", "/app/*"],
        ["read", "/k"],
        ["write", "[/x,", "/z)"],
    ]
    permission = cluster.store.roles["app"][0]
    assert permission.permType == auth_pb2.Permission.READWRITE
    assert (permission.key, permission.range_end) == (b"/app/", b"/app0")
    shell.ok("role", "revoke", "app", "/app/", "--prefix")
    assert len(shell.ok("role", "get", "app", "--json").json) == 2
    assert shell.run("role", "grant", "app", "read", "/a", "/b", "--prefix").code == 2
    shell.ok("user", "grant", "bob", "app")
    assert shell.ok("user", "get", "bob").out == "app\n"
    shell.ok("user", "revoke", "bob", "app")
    assert shell.ok("user", "list", "--json").json == ["bob", "eve", "root"]
    assert shell.ok("role", "list").out == "app\nroot\n"
    assert shell.run("user", "delete", "bob").code == 2
    shell.ok("user", "delete", "bob", "--yes")
    shell.ok("role", "delete", "app", "--yes")
    assert shell.run("role", "get", "app").code == 1


def test_login_leaves_a_token_for_later_commands(
    shell: Shell, cluster: FakeCluster, tmp_path: Path
) -> None:
    shell.setenv(XDG_RUNTIME_DIR=str(tmp_path))
    secret = tmp_path / "pw"
    secret.write_text("correct horse")
    ran = shell.ok("login", "alice", "--password-file", str(secret))
    assert "token-" not in ran.out + ran.err
    shell.ok("--user", "alice", "put", "/a", "1")
    assert cluster.calls("/etcdserverpb.KV/Put")[0][1]["token"] == "token-alice-1"
    cluster.store.tokens.clear()
    ran = shell.run("--user", "alice", "put", "/a", "1")
    assert ran.code == 2  # nobody to ask for the password
    assert "--password-file" in ran.err
    secret.write_text("wrong")
    assert shell.run("login", "alice", "--password-file", str(secret)).code == 3
    token = tmp_path / "t"
    token.write_text("elsewhere")
    cluster.store.tokens.add("elsewhere")
    shell.ok("--token-file", str(token), "get", "", "--prefix")


# --- policy ---------------------------------------------------------------------------------------

BUNDLE = """
schema = "configsvc.policy/v1"
bundle = "prod"
version = 2
[[rule]]
id = "no-agents"
effect = "deny"
actions = ["kv.put"]
keys = { prefix = "/prod/" }
when = { "principal.kind" = ["agent"] }
[[test]]
name = "agents"
request = { principal = { kind = "agent", name = "n", roles = [] }, action = "kv.put", key = "/prod/a" }
expect = { decision = "deny", rule = "no-agents" }
[[test]]
name = "people"
request = { principal = { kind = "user", name = "n", roles = ["root"] }, action = "kv.put", key = "/prod/a" }
expect = { decision = "allow" }
"""  # noqa: E501


def test_policy_files(shell: Shell, cluster: FakeCluster, tmp_path: Path) -> None:
    path = tmp_path / "prod.toml"
    path.write_text(BUNDLE)
    assert shell.ok("policy", "check", str(path), "--json").json["bundle"] == "prod"
    shell.ok("policy", "test", str(path))
    assert "replaces default@1 by prod@2" in shell.run("policy", "load", str(path)).err
    shell.ok("policy", "load", str(path), "--yes", "--reason", "r")
    assert shell.ok("policy", "show", "--json").json["source"] == BUNDLE
    path.write_text(BUNDLE.replace('decision = "allow"', 'decision = "deny"'))
    ran = shell.run("policy", "load", str(path), "--yes")
    assert ran.code == 1
    assert "people" in ran.err
    path.write_text(BUNDLE.replace("effect", "effekt"))
    ran = shell.run("policy", "check", str(path))
    assert ran.code == 2
    assert f"{path}:" in ran.err
    assert shell.run("policy", "check", str(tmp_path / "no")).code == 2
    assert len(cluster.calls("/configsvc.v1.Policy/Load")) == 1


def test_can_i(shell: Shell, cluster: FakeCluster) -> None:
    text = shell.ok("can-i", "kv.put", "/a", "--as", "user/hana", "--explain", "--reason", "x").out
    assert text.startswith("ALLOW  rule=rbac:root  auth_rev=7  policy=default@1\n")
    asked = cluster.calls("/configsvc.v1.Policy/CanI")[0][2]
    assert getattr(asked, "as") == "user/hana"
    assert asked.reason == "x"  # type: ignore[attr-defined]
    assert asked.value_bytes == -1  # type: ignore[attr-defined]
    assert shell.run("can-i", "kv.put", "/secret/", "--prefix").code == 3
    cluster.store.refuse("/configsvc.v1.Policy/CanI", Code.INTERNAL, "internal error, id=1")
    assert shell.run("can-i", "kv.put", "/a").code == 4


# --- lock, elect, service -------------------------------------------------------------------------

SAY = "import os; print(os.environ['CONFIGCTL_FENCING_TOKEN'], os.environ['CONFIGCTL_LOCK_KEY'])"


def test_lock_hands_on_a_growing_token_and_the_exit_code(
    shell: Shell, cluster: FakeCluster
) -> None:
    first = shell.ok("lock", "l", "--", PYTHON, "-c", SAY).out.split()
    second = shell.ok("lock", "l", "--", PYTHON, "-c", SAY).out.split()
    assert int(second[0]) > int(first[0])
    assert first[1].startswith("l/")
    assert shell.run("lock", "l", "--", PYTHON, "-c", "raise SystemExit(7)").code == 7
    killed = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert shell.run("lock", "l", "--", PYTHON, "-c", killed).code == 137
    assert not cluster.store.leases  # given back each time
    assert shell.run("lock", "l", "--", "/no/such").code == 2


def test_a_command_is_stopped_when_the_lock_is_lost(shell: Shell, cluster: FakeCluster) -> None:
    def lose() -> None:
        while not cluster.store.leases:
            time.sleep(0.01)
        time.sleep(0.3)
        cluster.store.leases.clear()

    thread = threading.Thread(target=lose)
    thread.start()
    ran = shell.run("lock", "l", "--ttl", "1", "--", PYTHON, "-c", "import time; time.sleep(30)")
    thread.join()
    assert ran.code == 5
    assert "lease was lost" in ran.err


def test_elect(shell: Shell, cluster: FakeCluster) -> None:
    assert shell.run("elect", "e", "--show").code == 1
    shell.ok("elect", "e", "--value", "me", "--", PYTHON, "-c", SAY)
    cluster.store.revision += 1
    cluster.store.put(rpc.PutRequest(key=b"e/1", value=b"you"), {})
    shown = shell.ok("elect", "e", "--show", "--json").json
    assert shown["value"] == "you"
    assert shown["fencing_token"] == cluster.store.revision


def test_services(shell: Shell, cluster: FakeCluster) -> None:
    assert shell.run("service", "list").code == 1
    cluster.store.revision += 1
    key = b"/services/web/1"
    cluster.store.put(rpc.PutRequest(key=key, value=b'{"address": "h:1", "meta": {}}'), {})
    cluster.store.put(rpc.PutRequest(key=b"/services/db/x", value=b"not ours"), {})
    found = shell.ok("service", "list", "web", "--json").json
    assert [(one["instance"], one["address"]) for one in found] == [("1", "h:1")]
    assert "not ours" in shell.ok("service", "list").out
    for words in (("a/b", "1"), ("a", "")):
        assert shell.run("service", "register", *words, "--address", "h:1").code == 2
    assert shell.run("service", "register", "a", "1", "--address", "h", "--meta", "x").code == 2


def test_a_registered_instance_follows_its_probe(
    shell: Shell, cluster: FakeCluster, tmp_path: Path
) -> None:
    flag, refused = tmp_path / "healthy", tmp_path / "refused"
    seen: list[bool] = []

    def play() -> None:
        def wait(there: bool) -> None:
            deadline = time.monotonic() + 5
            while (b"/services/web/1" in cluster.store.live()) != there:
                if time.monotonic() > deadline:
                    return
                time.sleep(0.01)
            seen.append(there)

        while not refused.exists():
            time.sleep(0.01)
        flag.touch()
        wait(True)
        flag.unlink()
        wait(False)
        flag.touch()
        wait(True)
        cluster.store.leases.clear()  # lost: a new lease, announced anew
        # The key of before is still there: what counts is the lease that it is put on.
        while cluster.store.live()[b"/services/web/1"].lease not in cluster.store.leases:
            time.sleep(0.01)
        wait(True)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=play)
    thread.start()
    words = ["service", "register", "web", "1", "--address", "h:1", "--ttl", "2"]
    probe = f"test -e {flag} || {{ touch {refused}; false; }}"
    ran = shell.run(*words, "--probe-every", "0.05", "--", "sh", "-c", probe)
    thread.join()
    assert seen == [True, False, True, True]
    assert ran.code == 128 + signal.SIGTERM
    assert not cluster.store.leases
    assert [line.split()[0] for line in ran.out.splitlines()][:3] == ["up", "down", "up"]
    assert "/services/web/1: not announced while its probe fails" in ran.err
    assert "announcing anew" in ran.err


def test_a_probe_that_cannot_be_run_is_refused(shell: Shell, cluster: FakeCluster) -> None:
    ran = shell.run("service", "register", "web", "1", "--address", "h:1", "--", "/no/such/probe")
    assert ran.code == 2
    assert "/no/such/probe: no such command" in ran.err
    assert not cluster.store.leases


def test_probes() -> None:
    assert is_healthy([])
    assert is_healthy(["true"])
    assert not is_healthy(["false"])
    assert not is_healthy(["/no/such"])
