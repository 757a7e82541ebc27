"""``configctl deny``: what is refused from now on, and letting it in again."""

from __future__ import annotations

import time
from typing import Any

import pytest
from grpc import StatusCode as Code

from configsvc.cli.times import show_time
from tests.support.cli_runner import Shell
from tests.support.fake_cluster import FakeCluster

ADD = "/configsvc.v1.DenyList/DenyAdd"
REMOVE = "/configsvc.v1.DenyList/DenyRemove"
LIST = "/configsvc.v1.DenyList/DenyList"


def test_a_denial_says_why_and_until_when(shell: Shell, cluster: FakeCluster) -> None:
    before = time.time_ns()
    words = ("deny", "add", "identity", "agent/web-1", "--until", "30d", "--json")
    ran = shell.ok(*words, "--reason", "stolen", "--ticket", "CHG-7")
    [(_, metadata, asked)] = cluster.calls(ADD)
    request: Any = asked
    assert metadata["x-change-reason-bin"] == b"stolen"
    assert metadata["x-change-ticket-bin"] == b"CHG-7"
    assert (request.what, request.value, request.allow_lockout) == (
        "identity",
        "agent/web-1",
        False,
    )
    assert 0 <= request.until_ns - before - 30 * 86_400 * 10**9 < 60 * 10**9
    until = show_time(request.until_ns)
    assert ran.json == {"ok": True, "kind": "identity", "value": "agent/web-1", "until": until}
    text = shell.ok("deny", "add", "kid", "a-key-of-it", "--allow-lockout").out
    assert text == "kid a-key-of-it is denied until somebody removes it\n"
    assert cluster.calls(ADD)[1][2].allow_lockout  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", ["4a0b", "4A:0B", "serial=004A0B", "0x4a0b"])
def test_a_serial_is_taken_as_people_write_it(
    shell: Shell, cluster: FakeCluster, text: str
) -> None:
    shell.ok("deny", "add", "serial", text)
    shell.ok("deny", "remove", "serial", text)
    assert [call[2].value for path in (ADD, REMOVE) for call in cluster.calls(path)] == [  # type: ignore[attr-defined]
        "4a0b",
        "4a0b",
    ]


def test_tokens_end_and_nothing_stays_on_the_list(shell: Shell, cluster: FakeCluster) -> None:
    assert shell.ok("deny", "add", "user", "ada").out == "tokens of user ada have ended\n"
    assert shell.ok("deny", "add", "all").out == "tokens of everybody have ended\n"
    assert shell.ok("deny", "list", "--json").json == []
    for words in (("user",), ("all", "ada"), ("serial",), ("nobody", "x")):
        assert shell.run("deny", "add", *words).code == 2
    assert shell.run("deny", "remove", "user", "ada").code == 2
    assert shell.run("deny", "add", "kid", "a-key-of-it", "--until", "1h ago").code == 2


def test_the_list_is_read_to_its_end(shell: Shell, cluster: FakeCluster) -> None:
    values = [f"{number:032x}" for number in range(5)]
    for value in values:
        shell.ok("deny", "add", "jti", value)
    found = shell.ok("deny", "list", "--json").json
    assert [one["value"] for one in found] == values
    assert found[0] == {"kind": "jti", "value": values[0], "until": ""}
    assert len(cluster.calls(LIST)) == 3
    assert shell.ok("deny", "list").out.splitlines()[0].split() == ["KIND", "VALUE", "UNTIL"]


def test_what_is_let_in_again_was_denied(shell: Shell, cluster: FakeCluster) -> None:
    shell.ok("deny", "add", "jti", "aa")
    ran = shell.ok("deny", "remove", "jti", "aa", "--reason", "found", "--json")
    assert ran.json == {"ok": True, "kind": "jti", "value": "aa"}
    assert cluster.calls(REMOVE)[0][1]["x-change-reason-bin"] == b"found"
    assert shell.run("deny", "remove", "jti", "aa").code == 1


def test_a_refusal_is_one_line_that_names_the_way_out(shell: Shell, cluster: FakeCluster) -> None:
    text = "value: your own certificate; --allow-lockout does it anyway"
    cluster.store.refuse("/configsvc.v1.DenyList/DenyAdd", Code.INVALID_ARGUMENT, text)
    ran = shell.run("deny", "add", "serial", "4a")
    assert ran.code == 2
    assert text in ran.err
    cluster.store.refuse(ADD, Code.PERMISSION_DENIED, "etcdserver: permission denied")
    assert shell.run("deny", "add", "serial", "4a").code == 3


def test_completion_knows_the_kinds(shell: Shell) -> None:
    assert "jti" in shell.ok("completion", "bash").out
