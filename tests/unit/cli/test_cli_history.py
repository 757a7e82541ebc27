"""log, blame, diff, rollback."""

from __future__ import annotations

from typing import Any

import pytest

from configsvc import limits
from configsvc.cli.commands_history import plan_rollback, rollback_txn
from configsvc.proto import kv_pb2
from tests.support import fake_store
from tests.support.cli_runner import Shell
from tests.support.fake_cluster import FakeCluster

TXN = "/etcdserverpb.KV/Txn"


def filled(shell: Shell) -> None:
    shell.ok("put", "/a/x", "1", "--reason", "first", "--ticket", "T-1")  # 2
    shell.ok("put", "/a/y", "2")  # 3
    shell.ok("put", "/a/x", "3", "--reason", "again")  # 4
    shell.ok("del", "/a/y")  # 5
    shell.ok("put", "/b", "other")  # 6


def test_log_names_author_time_and_reason(shell: Shell, cluster: FakeCluster) -> None:
    filled(shell)
    records = shell.ok("log", "/a/x", "--json").json
    assert [record["revision"] for record in records] == [4, 2]
    oldest = records[-1]
    assert oldest["key"] == "/a/x"
    assert oldest["event"] == "kv.put"
    assert oldest["actor"] == "user/root"
    assert oldest["method"] == "certificate"
    assert oldest["source"] == "127.0.0.1"
    assert oldest["time"] == "2023-11-14T22:13:22.000000000Z"
    assert (oldest["reason"], oldest["ticket"], oldest["seq"]) == ("first", "T-1", 0)
    assert "value" not in oldest
    assert shell.ok("log", "/a/x", "--values", "--asc", "--json").json[0]["value"] == "1"
    table = shell.ok("log", "/a/", "--prefix", "--limit", "2")
    assert "first [T-1]" not in table.out
    assert "kv.delete" in table.out
    assert "there are more" in table.err
    since = shell.ok("log", "/a/", "--prefix", "--since", "4", "--json").json
    assert [record["revision"] for record in since] == [5]
    assert shell.run("log", "/none").code == 1


def test_blame_shows_what_lives(shell: Shell, cluster: FakeCluster) -> None:
    filled(shell)
    shown = {one["key"]: one["revision"] for one in shell.ok("blame", "", "--json").json}
    assert shown == {"/a/x": 4, "/b": 6}


def test_more_than_a_member_answers_at_once_is_asked_on_for(
    shell: Shell, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(shell)
    shell.ok("put", "/a/z", "5")  # 7
    monkeypatch.setattr(fake_store, "PAGE_RECORDS", 2)

    def revisions(*words: str) -> list[int]:
        return [one["revision"] for one in shell.ok(*words, "--json").json]

    log = ("log", "/a/", "--prefix")
    assert revisions(*log) == [7, 5, 4, 3, 2]
    assert revisions(*log, "--asc") == [2, 3, 4, 5, 7]
    assert revisions(*log, "--since", "2") == [7, 5, 4, 3]
    assert revisions(*log, "--asc", "--since", "2") == [3, 4, 5, 7]
    cut = shell.ok(*log, "--limit", "3")
    assert (cut.out.count("\n"), "there are more" in cut.err) == (4, True)
    assert "there are more" not in shell.ok(*log, "--limit", "5").err
    assert revisions("blame") == [4, 7, 6]
    assert "there are more" in shell.ok("blame", "--limit", "2").err


def test_blame_of_nothing_says_so(shell: Shell, cluster: FakeCluster) -> None:
    ran = shell.run("blame", "/none/")
    assert (ran.code, "no keys live there" in ran.err) == (1, True)


def test_diff(shell: Shell, cluster: FakeCluster) -> None:
    filled(shell)
    found = shell.ok("diff", "3..", "/a/", "--json").json
    assert found["to_revision"] == 6
    assert [(one["key"], one["change"]) for one in found["differences"]] == [
        ("/a/x", "changed"),
        ("/a/y", "removed"),
    ]
    text = shell.ok("diff", "2023-11-14T22:13:22Z..3", "/a/").out
    assert text == "+ /a/y\n    + 2\n1 keys differ between revisions 2 and 3\n"
    for bad in ("3", "..3", "x..3", "2999-01-01..3"):
        assert shell.run("diff", bad, "/a/").code == 2


def test_diff_names_the_order_of_its_ends_and_a_value_that_came_again(
    shell: Shell, cluster: FakeCluster
) -> None:
    filled(shell)
    shell.ok("put", "/b", "other")  # 7
    ran = shell.run("diff", "4..2", "/a/")
    assert (ran.code, "(2..4)" in ran.err) == (2, True)
    assert "the same value, written again" in shell.ok("diff", "6..", "/b").out


def test_diff_of_long_texts_is_line_by_line(shell: Shell, cluster: FakeCluster) -> None:
    shell.ok("put", "/a", "-", stdin=b"one\ntwo\n\x1b\n")
    shell.ok("put", "/a", "-", stdin=b"one\nTWO\n\x1b\n")
    assert shell.ok("diff", "2..3").out.splitlines()[1:-1] == [
        "    @@ -1,3 +1,3 @@",
        "     one",
        "    -two",
        "    +TWO",
        "     \\x1b",
    ]


def test_rollback_is_one_attributed_transaction(shell: Shell, cluster: FakeCluster) -> None:
    filled(shell)
    refused = shell.run("rollback", "/a/", "--to", "3")
    assert refused.code == 2
    assert "+ /a/y\n    + 2\n" in refused.err
    assert not cluster.calls(TXN)
    done = shell.ok("rollback", "/a/", "--to", "3", "--yes", "--reason", "bad", "--json").json
    assert done == {"ok": True, "changed": 2, "target_revision": 3, "revision": 7}
    assert {key: kv.value for key, kv in cluster.store.live().items()} == {
        b"/a/x": b"1",
        b"/a/y": b"2",
        b"/b": b"other",
    }
    assert cluster.calls(TXN)[0][1]["x-change-reason-bin"] == b"bad"
    again = shell.ok("rollback", "/a/", "--to", "3", "--yes")
    assert "nothing differs" in again.out
    assert len(cluster.calls(TXN)) == 1


def test_rollback_stops_when_a_key_moved(
    shell: Shell, cluster: FakeCluster, monkeypatch: Any
) -> None:
    from configsvc.cli.session import Session

    for meanwhile in ("put /a/x new", "put /a/new z", "del /a/x"):
        cluster.store.__init__()  # type: ignore[misc]
        filled(shell)
        moved = meanwhile.split()

        def confirm(self: Session, plan: object, moved: list[str] = moved) -> None:
            shell.ok(*moved)

        with monkeypatch.context() as patch:
            patch.setattr(Session, "confirm", confirm)
            ran = shell.run("rollback", "/a/", "--to", "2")
        assert ran.code == 5, meanwhile
        assert cluster.store.revision == 7  # nothing but the change in between


def kv(key: bytes, value: bytes = b"v", *, mod: int = 5, lease: int = 0) -> kv_pb2.KeyValue:
    return kv_pb2.KeyValue(key=key, value=value, mod_revision=mod, lease=lease)


def test_rollback_guards_as_many_keys_as_a_transaction_holds() -> None:
    span = (b"/", b"0")
    few = {b"/%d" % n: kv(b"/%d" % n) for n in range(3)}
    then = {**few, b"/0": kv(b"/0", b"old")}
    request = rollback_txn(plan_rollback(few, then), few, span, 9).request
    assert len(request.compare) == 1 + 3  # type: ignore[attr-defined]
    many = {b"/%d" % n: kv(b"/%d" % n) for n in range(400)}
    then = {**many, b"/0": kv(b"/0", b"old")}
    request = rollback_txn(plan_rollback(many, then), many, span, 9).request
    assert len(request.compare) == 1 + 1  # type: ignore[attr-defined]
    assert len(request.success) == 1  # type: ignore[attr-defined]


def test_rollback_keeps_only_leases_that_are_still_the_keys() -> None:
    now = {b"/a": kv(b"/a", b"1", lease=7), b"/b": kv(b"/b", b"1", lease=8)}
    then = {
        b"/a": kv(b"/a", b"0", lease=7),
        b"/b": kv(b"/b", b"0", lease=9),
        b"/c": kv(b"/c", b"0", lease=9),
    }
    txn = rollback_txn(plan_rollback(now, then), now, (b"/", b"0"), 9).request
    leases = [op.request_put.lease for op in txn.success]  # type: ignore[attr-defined]
    assert leases == [7, 0, 0]


def test_a_rollback_too_large_for_one_transaction_is_refused(
    shell: Shell, cluster: FakeCluster
) -> None:
    lines = "".join(f"put /k/{n} v\n" for n in range(limits.TXN_OPS_MAX))
    shell.ok("txn", stdin=b"\n" + lines.encode())
    ran = shell.run("rollback", "/k/", "--to", "1", "--yes")
    assert ran.code == 2
    assert "narrow the prefix" in ran.err
