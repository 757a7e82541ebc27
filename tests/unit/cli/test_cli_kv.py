"""put, get, del, watch, txn, compact against a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
from grpc import StatusCode as Code

from tests.support.cli_runner import Shell
from tests.support.fake_cluster import FakeCluster

PUT = "/etcdserverpb.KV/Put"


def test_put_and_get(shell: Shell, cluster: FakeCluster) -> None:
    assert shell.ok("put", "/a", "1", "--reason", "why", "--ticket", "T-1").out == "revision 2\n"
    metadata = cluster.calls(PUT)[0][1]
    assert metadata["x-change-reason-bin"] == b"why"
    assert metadata["x-change-ticket-bin"] == b"T-1"
    assert shell.ok("get", "/a").out == "1\n"
    assert shell.ok("put", "/a", "2", "--prev").out == "revision 3\n1\n"
    assert shell.ok("get", "/a", "--json").json["mod_revision"] == 3
    assert shell.ok("get", "/a", "--rev", "2").out == "1\n"


def test_options_may_stand_on_either_side(shell: Shell, cluster: FakeCluster) -> None:
    shell.ok("put", "/a", "1")
    assert shell.ok("--json", "get", "/a").json == shell.ok("get", "/a", "--json").json


def test_values_from_input_and_files(shell: Shell, cluster: FakeCluster, tmp_path: Path) -> None:
    shell.ok("put", "/a", "-", stdin=b"\x00\xff\n")
    assert cluster.store.live()[b"/a"].value == b"\x00\xff\n"
    path = tmp_path / "value"
    path.write_bytes(b"from file")
    shell.ok("put", "/b", "--file", str(path))
    assert cluster.store.live()[b"/b"].value == b"from file"
    for words in (
        ("put", "/c"),
        ("put", "/c", "x", "--file", str(path)),
        ("put", "/c", "--file", "/no"),
    ):
        assert shell.run(*words).code == 2
    shell.ok("put", "--", "-dash", "-value")
    assert cluster.store.live()[b"-dash"].value == b"-value"


def test_ranges(shell: Shell, cluster: FakeCluster) -> None:
    for name in ("/a/1", "/a/2", "/b"):
        shell.ok("put", name, f"v{name}")
    assert shell.ok("get", "/a/", "--prefix").out == "/a/1 = v/a/1\n/a/2 = v/a/2\n"
    assert shell.ok("get", "/a/2", "--from-key", "--keys-only").out == "/a/2\n/b\n"
    assert shell.ok("get", "/a/", "--range-end", "/a/2", "--keys-only").out == "/a/1\n"
    assert shell.ok("get", "", "--prefix", "--count-only").out == "3\n"
    reverse = shell.ok("get", "/a/", "--prefix", "--keys-only", "--order", "desc", "--limit", "1")
    assert reverse.out == "/a/2\n"
    keys = [one["key"] for one in shell.ok("get", "/a/", "--prefix", "--json").json]
    assert keys == ["/a/1", "/a/2"]
    assert shell.ok("get", "/zzz", "--prefix", "--json").json == []
    assert shell.run("get", "/a/", "--prefix", "--from-key").code == 2


def test_an_absent_key_is_no(shell: Shell, cluster: FakeCluster) -> None:
    ran = shell.run("get", "/nope")
    assert (ran.code, ran.out, ran.err) == (1, "", "configctl: /nope: no such key\n")
    assert shell.run("get", "/nope", "--json").out == "null\n"


def test_what_does_not_print_is_escaped(shell: Shell, cluster: FakeCluster) -> None:
    evil = b"\x1b[31mred\x1b[0m\r\n\xff\xe2\x80\xae tab\t"
    shell.ok("put", "/\x1b]0;x\x07", "-", stdin=evil)
    shown = shell.ok("get", "/", "--prefix").out
    assert shown == "/\\x1b]0;x\\x07 = \\x1b[31mred\\x1b[0m\\r\\n\\xff\\u202e tab\\t\n"
    whole = shell.ok("get", "/\x1b]0;x\x07").out
    assert whole == "\\x1b[31mred\\x1b[0m\\r\n\\xff\\u202e tab\t\n"
    assert "\x1b" not in shell.run("get", "/\x1b[2J").err
    assert "value_base64" in shell.ok("get", "/", "--prefix", "--json").json[0]


def test_raw_values_only_into_files(
    shell: Shell, cluster: FakeCluster, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    shell.ok("put", "/a", "-", stdin=b"\x1b\xff")
    from configsvc.cli.configctl import main

    assert main(["get", "/a", "--raw"]) == 0
    assert capfdbinary.readouterr().out == b"\x1b\xff"  # no line end of ours either


def test_delete(shell: Shell, cluster: FakeCluster) -> None:
    for name in ("/a/1", "/a/2"):
        shell.ok("put", name, "v")
    ran = shell.run("del", "/a/", "--prefix")
    assert ran.code == 2
    assert "will delete 2 keys:\n  /a/1\n  /a/2\n" in ran.err
    assert len(cluster.store.live()) == 2
    gone = shell.ok("del", "/a/", "--prefix", "--yes", "--prev", "--reason", "tidy")
    assert gone.out == "2 deleted\n/a/1 = v\n/a/2 = v\n"
    assert shell.run("del", "/a/1").code == 1
    shell.ok("put", "/a/3", "v")
    assert shell.ok("del", "/a/3", "--json").json["deleted"] == 1


def test_watch(shell: Shell, cluster: FakeCluster) -> None:
    shell.ok("put", "/a", "1")
    shell.ok("put", "/a", "2")
    shell.ok("del", "/a")
    text = shell.ok("watch", "/a", "--rev", "2", "--count", "3", "--prev").out
    assert text == "2 PUT /a = 1\n3 PUT /a = 2 (was 1)\n4 DELETE /a (was 2)\n"
    lines = shell.ok("watch", "", "--prefix", "--rev", "1", "--count", "2", "--json").out
    assert [line.split('"')[3] for line in lines.splitlines()] == ["PUT", "PUT"]
    cluster.store.compacted = 9
    assert shell.run("watch", "/a", "--rev", "2").code == 1


def test_txn(shell: Shell, cluster: FakeCluster) -> None:
    text = b'ver("/a") = "0"\n\nput /a "one two"\nget /a\n\nget /a\n'
    first = shell.ok("txn", "--reason", "x", stdin=text)
    assert first.out == "SUCCESS\nok\n/a = one two\n"
    second = shell.run("txn", "--json", stdin=text)
    assert second.code == 1
    assert second.json["responses"][0]["get"][0]["value"] == "one two"
    for bad in (b"nonsense\n\nput a b\n", b'mod("a") > "x"\n', b"\nput a\n", b'\nput "a b\n'):
        assert shell.run("txn", stdin=bad).code == 2
    assert len(cluster.store.events) == 1


def test_numbers_of_a_txn_have_bounds(shell: Shell, cluster: FakeCluster) -> None:
    for condition in (f'mod("a") > "{2**63}"', f'lease("a") = "{2**64:x}"'):
        ran = shell.run("txn", stdin=f"{condition}\n\nput a 1\n".encode())
        assert (ran.code, "too large" in ran.err) == (2, True)
    negative = f'lease("a") = "{2**64 - 5:x}"\n\nput a 1\n'
    assert shell.run("txn", stdin=negative.encode()).code == 1
    assert not cluster.store.live()


def test_compact_needs_a_yes(shell: Shell, cluster: FakeCluster) -> None:
    shell.ok("put", "/a", "1")
    shell.ok("put", "/a", "2")
    assert shell.run("compact", "3").code == 2
    assert cluster.store.compacted == 0
    shell.ok("compact", "3", "--yes")
    ran = shell.run("get", "/a", "--rev", "2")
    assert ran.code == 1
    assert "get --at" in ran.err
    assert shell.ok("get", "/a", "--at", "2").out == "1\n"


@pytest.mark.parametrize(
    ("code", "text", "exit_code"),
    [
        (Code.PERMISSION_DENIED, "etcdserver: permission denied", 3),
        (Code.UNAUTHENTICATED, "certificate not acceptable", 3),
        (Code.UNAUTHENTICATED, "other", 3),
        (Code.UNAVAILABLE, "etcdserver: request timed out", 4),
        (Code.UNAVAILABLE, "etcdserver: no leader", 4),
        (Code.RESOURCE_EXHAUSTED, "configsvc: too many requests in flight", 4),
        (Code.INVALID_ARGUMENT, "etcdserver: request is too large", 2),
        (Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded", 1),
        (Code.ABORTED, "moved", 5),
    ],
)
def test_refusals_have_their_exit_codes(
    shell: Shell, cluster: FakeCluster, code: Code, text: str, exit_code: int
) -> None:
    cluster.store.refuse(PUT, code, text)
    ran = shell.run("put", "/a", "1")
    assert ran.code == exit_code
    assert len(ran.err.splitlines()) == 1
    assert ran.err.startswith("configctl: ")


def test_an_unknown_outcome_says_so(shell: Shell, cluster: FakeCluster) -> None:
    cluster.store.refuse(PUT, Code.UNAVAILABLE, "etcdserver: request timed out", after=True)
    ran = shell.run("put", "/a", "1")
    assert ran.code == 4
    assert "outcome unknown" in ran.err
    assert len(cluster.calls(PUT)) == 1


def test_nobody_there(shell: Shell, cluster: FakeCluster) -> None:
    for member in cluster.members:
        member.stop()
    ran = shell.run("get", "/a")
    assert ran.code == 4
    assert "Connection refused" in ran.err
