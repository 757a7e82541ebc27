"""Every command of Debian's etcdctl that talks to a server, on three secure members.

One story after the other on one cluster, each below a prefix of its own. Members that are added
and removed by it: ``test_membership_changes``. Its load test takes a minute: not here.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode
from pathlib import Path

import pytest

from tests.support.members import MemberCluster
from tests.support.stock_etcdctl import etcdctl, lasting, run

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

TALKS = {
    "alarm", "auth", "check", "compaction", "defrag", "del", "elect", "endpoint", "get", "lease",
    "lock", "make-mirror", "member", "move-leader", "put", "role", "snapshot", "txn", "user",
    "watch",
}  # fmt: skip
STAYS_AT_HOME = {"completion", "help", "migrate", "version"}


def test_no_command_was_forgotten(trio: MemberCluster) -> None:
    listed = etcdctl(trio, "help").split("COMMANDS:")[1].split("OPTIONS:")[0]
    names = {line.split()[0] for line in listed.splitlines() if line.strip()}
    assert names == TALKS | STAYS_AT_HOME


def test_put_and_its_options(trio: MemberCluster) -> None:
    assert etcdctl(trio, "put", "p/a", "one") == "OK\n"
    assert etcdctl(trio, "put", "--prev-kv", "p/a", "two") == "OK\np/a\none\n"
    lease = etcdctl(trio, "lease", "grant", "600").split()[1]
    assert etcdctl(trio, "put", "--lease", lease, "p/a", "three") == "OK\n"
    assert etcdctl(trio, "put", "--ignore-value", "p/a") == "OK\n"
    assert etcdctl(trio, "put", "p/in", stdin="from standard input") == "OK\n"
    kept = json.loads(etcdctl(trio, "get", "-w", "json", "p/a"))["kvs"][0]
    assert (b64decode(kept["value"]), kept["version"], "lease" in kept) == (b"three", 4, False)
    assert etcdctl(trio, "get", "--print-value-only", "p/in") == "from standard input\n"


GETS = [
    (("g/b",), "g/b\n2\n"),
    (("g/a", "g/c"), "g/a\n1\ng/b\n2\n"),
    (("--prefix", "g/"), "g/a\n1\ng/b\n2\ng/c\n3\n"),
    (("--prefix", "--limit=1", "g/"), "g/a\n1\n"),
    (("--prefix", "--order=DESCEND", "g/"), "g/c\n3\ng/b\n2\ng/a\n1\n"),
    (("--prefix", "--order=DESCEND", "--sort-by=MODIFY", "--limit=1", "g/"), "g/c\n3\n"),
    (("--prefix", "--sort-by=VALUE", "--limit=1", "g/"), "g/a\n1\n"),
    (("--prefix", "--keys-only", "g/"), "g/a\n\ng/b\n\ng/c\n\n"),
    (("--prefix", "--print-value-only", "g/"), "1\n2\n3\n"),
    (("--consistency=s", "g/a"), "g/a\n1\n"),
    (("--hex", "g/a"), "\\x67\\x2f\\x61\n\\x31\n"),
    (("g/nothing",), ""),
]


def test_get_and_its_options(trio: MemberCluster) -> None:
    for key, value in (("a", "1"), ("b", "2"), ("c", "3")):
        etcdctl(trio, "put", f"g/{key}", value)
    for words, printed in GETS:
        assert etcdctl(trio, "get", *words) == printed, words
    head = json.loads(etcdctl(trio, "get", "-w", "json", "g/a"))["header"]["revision"]
    etcdctl(trio, "put", "g/a", "new")
    assert etcdctl(trio, "get", f"--rev={head}", "g/a") == "g/a\n1\n"
    assert '"Count" : 3' in etcdctl(trio, "get", "-w", "fields", "--prefix", "g/")
    wrong = run(trio, "get", "--rev=99999999", "g/a")
    assert wrong.returncode == 1
    assert "required revision is a future revision" in wrong.stderr


def test_del_and_its_options(trio: MemberCluster) -> None:
    for key in ("a", "b", "c", "d"):
        etcdctl(trio, "put", f"d/{key}", key)
    assert etcdctl(trio, "del", "--prev-kv", "d/a") == "1\nd/a\na\n"
    assert etcdctl(trio, "del", "d/b", "d/c") == "1\n"
    assert etcdctl(trio, "del", "--prefix", "d/") == "2\n"
    assert etcdctl(trio, "del", "d/a") == "0\n"


def test_txn(trio: MemberCluster) -> None:
    etcdctl(trio, "put", "t/a", "1")
    story = 'value("t/a") = "1"\n\nput t/b then\n\nput t/b otherwise\n\n'
    assert etcdctl(trio, "txn", stdin=story) == "SUCCESS\n\nOK\n"
    story = 'mod("t/a") < "1"\n\nput t/b then\n\nget t/b\n\n'
    assert etcdctl(trio, "txn", stdin=story) == "FAILURE\n\nt/b\nthen\n"


def test_watch_and_its_options(trio: MemberCluster) -> None:
    etcdctl(trio, "put", "w/a", "0")
    head = json.loads(etcdctl(trio, "put", "-w", "json", "w/a", "1"))["header"]["revision"]
    words = ("watch", "--prefix", "--prev-kv", f"--rev={head}", "w/")
    with lasting(trio, *words) as watch, lasting(trio, "watch", f"--rev={head}", "w/a") as one:
        assert watch.lines(5) == ["PUT", "w/a", "0", "w/a", "1"]
        assert one.lines(3) == ["PUT", "w/a", "1"]
        etcdctl(trio, "del", "w/a")
        assert watch.lines(4) == ["DELETE", "w/a", "1", "w/a"]
        assert one.lines(2) == ["DELETE", "w/a"]


def test_lease(trio: MemberCluster) -> None:
    granted = etcdctl(trio, "lease", "grant", "300")
    lease = granted.split()[1]
    assert granted == f"lease {lease} granted with TTL(300s)\n"
    etcdctl(trio, "put", "--lease", lease, "l/a", "x")
    assert lease in etcdctl(trio, "lease", "list")
    assert "attached keys([l/a])" in etcdctl(trio, "lease", "timetolive", "--keys", lease)
    kept = etcdctl(trio, "lease", "keep-alive", "--once", lease)
    assert kept == f"lease {lease} keepalived with TTL(300)\n"
    assert etcdctl(trio, "lease", "revoke", lease) == f"lease {lease} revoked\n"
    assert etcdctl(trio, "get", "l/a") == ""
    assert "already expired" in etcdctl(trio, "lease", "timetolive", lease)
    with lasting(trio, "lease", "keep-alive", lease) as gone:
        assert gone.line() == f"lease {lease} expired or revoked."


def test_lock_runs_a_command_and_the_next_one_waits(trio: MemberCluster) -> None:
    assert etcdctl(trio, "lock", "lock/a", "--", "echo", "held") == "held\n"
    with lasting(trio, "lock", "lock/b") as first:
        assert first.line().startswith("lock/b/")
        with lasting(trio, "lock", "lock/b") as second:
            first.process.terminate()
            assert second.line().startswith("lock/b/")


def test_elect_and_observe(trio: MemberCluster) -> None:
    with lasting(trio, "elect", "elect/a", "me") as leader:
        assert leader.lines(2)[1] == "me"
        with lasting(trio, "elect", "-l", "elect/a") as observer:
            assert observer.lines(2)[1] == "me"


def test_endpoints_alarms_and_maintenance(trio: MemberCluster) -> None:
    assert run(trio, "endpoint", "health", "--cluster").stderr.count("is healthy") == 3
    told = json.loads(etcdctl(trio, "endpoint", "status", "-w", "json"))
    assert len({each["Status"]["leader"] for each in told}) == 1
    trio.wait_applied()
    hashes = json.loads(etcdctl(trio, "endpoint", "hashkv", "-w", "json"))
    assert len({each["HashKV"]["hash"] for each in hashes}) == 1
    assert etcdctl(trio, "alarm", "list") == ""
    assert etcdctl(trio, "alarm", "disarm") == ""
    assert etcdctl(trio, "defrag").count("Finished defragmenting") == 3
    revision = json.loads(etcdctl(trio, "put", "-w", "json", "m/a", "1"))["header"]["revision"]
    assert etcdctl(trio, "compaction", str(revision)) == f"compacted revision {revision}\n"
    wrong = run(trio, "compaction", str(revision))
    assert (wrong.returncode, "has been compacted" in wrong.stderr) == (1, True)


def test_members_and_leadership(trio: MemberCluster) -> None:
    assert etcdctl(trio, "member", "list").count("started") == 3
    leader = trio.leader()
    heir = trio.others(leader)[0]
    moved = etcdctl(trio, "move-leader", f"{heir.id:x}", member=leader)
    assert moved == f"Leadership transferred from {leader.id:x} to {heir.id:x}\n"
    assert trio.leader() is heir
    wrong = run(trio, "move-leader", f"{heir.id:x}", member=leader)
    assert (wrong.returncode != 0, "no leader endpoint given" in wrong.stderr) == (True, True)
    wrong = run(trio, "member", "promote", f"{heir.id:x}")
    assert (wrong.returncode, "can only promote a learner" in wrong.stderr) == (1, True)


def test_snapshot_carries_its_own_sum(trio: MemberCluster, tmp_path: Path) -> None:
    path = tmp_path / "snapshot.db"
    member = trio.members[0]
    printed = etcdctl(trio, "snapshot", "save", str(path), member=member)
    assert printed == f"Snapshot saved at {path}\n"
    saved = path.read_bytes()
    assert hashlib.sha256(saved[:-32]).digest() == saved[-32:]


def test_mirror(trio: MemberCluster) -> None:
    """From one prefix of the cluster to another one: what was there, and what comes."""
    put = etcdctl(trio, "put", "-w", "json", "from/a", "1")
    since = json.loads(put)["header"]["revision"]
    pair = trio.user("root")
    words = (
        *("make-mirror", "--prefix=from/", "--dest-prefix=to/"),
        *(f"--dest-cacert={trio.pki / 'ca-server.pem'}", f"--dest-cert={pair}.pem"),
        *(f"--dest-key={pair}.key", trio.members[1].client_url),
    )
    with (
        lasting(trio, "watch", "--prefix", f"--rev={since}", "to/") as seen,
        lasting(trio, *words) as mirror,
    ):
        assert seen.lines(3) == ["PUT", "to/a", "1"]
        etcdctl(trio, "put", "from/b", "2")
        assert seen.lines(3) == ["PUT", "to/b", "2"]
        assert mirror.process.poll() is None


def test_users_roles_and_their_rights(trio: MemberCluster) -> None:
    assert etcdctl(trio, "role", "add", "writer") == "Role writer created\n"
    grant = ("role", "grant-permission", "--prefix", "writer", "readwrite", "u/")
    assert etcdctl(trio, *grant) == "Role writer updated\n"
    assert "[u/, u0) (prefix u/)" in etcdctl(trio, "role", "get", "writer")
    assert "writer" in etcdctl(trio, "role", "list").split()
    assert etcdctl(trio, "user", "add", "wanda", "--no-password") == "User wanda created\n"
    told = etcdctl(trio, "user", "grant-role", "wanda", "writer")
    assert told == "Role writer is granted to user wanda\n"
    assert etcdctl(trio, "user", "get", "wanda") == "User: wanda\nRoles: writer\n"
    assert "wanda" in etcdctl(trio, "user", "list").split()
    assert etcdctl(trio, "put", "u/a", "1", user="wanda") == "OK\n"
    denied = run(trio, "put", "v/a", "1", user="wanda")
    assert (denied.returncode, "permission denied" in denied.stderr) == (1, True)
    revoke = ("role", "revoke-permission", "--prefix", "writer", "u/")
    assert "is revoked from role writer" in etcdctl(trio, *revoke)
    assert run(trio, "put", "u/a", "1", user="wanda").returncode == 1
    etcdctl(trio, "user", "revoke-role", "wanda", "writer")
    assert etcdctl(trio, "user", "delete", "wanda") == "User wanda deleted\n"
    assert etcdctl(trio, "role", "delete", "writer") == "Role writer deleted\n"


def test_passwords(trio: MemberCluster) -> None:
    made = etcdctl(trio, "user", "add", "paul", "--interactive=false", stdin="a-long-pass-phrase")
    assert made == "User paul created\n"
    told = etcdctl(trio, "user", "passwd", "paul", "--interactive=false", stdin="another-long-one")
    assert told == "Password updated\n"
    etcdctl(trio, "user", "delete", "paul")


def test_rights_stay_on(trio: MemberCluster) -> None:
    assert etcdctl(trio, "auth", "enable") == "Authentication Enabled\n"
    refused = run(trio, "auth", "disable")
    assert (refused.returncode, "cannot be switched off" in refused.stderr) == (1, True)
    assert run(trio, "get", "--prefix", "", user="nobody").returncode == 1
