"""``configctl migrate`` between a real etcd and a member of ours, as an operator uses it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from configsvc.client import Client, ClientSettings, Txn, operations, parse_endpoints
from configsvc.client import administration as admin
from configsvc.proto import auth_pb2
from tests.support.etcd_servers import Running, both

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 20.0


class World:
    """etcd, ours, clients of both, and a shell."""

    def __init__(self, root: Path, etcd: Running, ours: Running) -> None:
        self.root = root
        self.ours_pid = ours.process.pid
        self.urls = {"etcd": etcd.url, "ours": ours.url}
        self.etcd = Client(ClientSettings(parse_endpoints(etcd.url)))
        self.ours = Client(ClientSettings(parse_endpoints(ours.url)))

    def close(self) -> None:
        self.etcd.close()
        self.ours.close()

    def start(self, *words: str) -> subprocess.Popen[str]:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("CONFIGCTL_")}
        environ |= {"PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(self.root / "state")}
        argv = [sys.executable, "-m", "configsvc.cli.configctl", "migrate", words[0], "--json"]
        argv += ["--endpoints", self.urls["ours"], "--etcd-endpoints", self.urls["etcd"]]
        argv += words[1:]
        return subprocess.Popen(
            argv, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, *words: str) -> tuple[int, str, str]:
        process = self.start(*words)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def ok(self, *words: str) -> Any:
        code, out, err = self.run(*words)
        assert code == 0, (code, out, err)
        return json.loads(out)

    def keys(self, client: Client) -> dict[bytes, tuple[bytes, int]]:
        return {kv.key: (kv.value, kv.lease) for kv in client.get_prefix(b"").kvs}

    def fill(self, client: Client, keys: int) -> None:
        for start in range(0, keys, 100):
            puts = [
                operations.put(b"/app%d/%05d" % (n % 3, n), b"value %d" % n)
                for n in range(start, min(start + 100, keys))
            ]
            client.do(Txn().then(*puts).operation())


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with both(tmp_path) as (etcd, ours):
        world = World(tmp_path, etcd, ours)
        yield world
        world.close()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline, "never"
        time.sleep(0.05)


def test_there_verified_and_back_again(world: World) -> None:
    """Keys of all kinds, leases with what they have left, users, roles; then the other way."""
    world.fill(world.etcd, 2500)
    lease = world.etcd.do(operations.lease_grant(500)).ID
    world.etcd.put(b"/leased", b"x", lease=lease)
    world.etcd.put(b"\x00\xff", b"\xff\x00")
    world.etcd.put(b"/empty", b"")
    world.etcd.put(b"/large", b"z" * 1_400_000)
    world.etcd.do(admin.role_add("app"))
    world.etcd.do(admin.role_grant("app", auth_pb2.Permission.READ, b"/app", b"/apq"))
    world.etcd.do(admin.user_add("dana", "correct horse battery"))
    world.etcd.do(admin.user_grant_role("dana", "app"))

    plan = world.ok("from-etcd", "--dry-run")
    assert plan == {
        "keys": {"same": 0, "new": 2504, "lease": 0, "other": 0, "extra": 0, "too large": 0},
        "roles": ["app"],
        "users": ["dana"],
    }
    assert not world.keys(world.ours)
    assert not (world.root / "state").exists()

    told = world.ok("from-etcd")
    assert told["written"] == 2504
    assert told["users_without_password"] == ["dana"]
    assert world.keys(world.ours) == world.keys(world.etcd)
    left = world.ours.do(operations.lease_ttl(lease))
    assert 400 < left.TTL <= 500
    assert list(world.ours.do(admin.user_get("dana")).roles) == ["app"]
    compared = world.ok("verify")
    assert compared["same"]
    assert [one["prefix"] for one in compared["prefixes"]][-1] == "/app2/"

    # A second run finds everything in place.
    assert world.ok("from-etcd")["written"] == 0

    # Back: ours is newer now.
    world.ours.put(b"/app0/new", b"1")
    world.ours.delete(b"/empty")
    code, out, _ = world.run("verify")
    assert code == 1
    differing = {one["prefix"] for one in json.loads(out)["prefixes"] if not one["same"]}
    assert differing == {"/app0/", "/"}
    assert world.ok("to-etcd", "--prune", "--yes")["written"] == 2
    assert world.keys(world.ours) == world.keys(world.etcd)
    assert world.ok("verify")["same"]


def test_what_the_target_holds_is_safe(world: World) -> None:
    """Nothing at all is written while one value is in the way."""
    world.fill(world.etcd, 300)
    world.ours.put(b"/app1/00001", b"mine")
    world.ours.put(b"/mine", b"mine")
    before = world.ours.get(b"/mine")
    code, _, err = world.run("from-etcd")
    assert code == 5
    assert "/app1/00001" in err
    assert "--overwrite" in err
    assert len(world.keys(world.ours)) == 2
    world.ok("from-etcd", "--overwrite")
    assert world.keys(world.ours).pop(b"/mine") == (b"mine", 0)
    assert world.ours.get(b"/mine") == before
    assert len(world.keys(world.ours)) == 301
    compared = world.ok("verify", "--prefix", "/app")
    assert compared["same"]
    code, out, _ = world.run("verify")
    assert code == 1
    assert json.loads(out)["prefixes"][0]["named"] == [
        {"key": "/mine", "what": "only in configsvc"}
    ]


def test_a_killed_copy_goes_on(world: World) -> None:
    world.fill(world.etcd, 20_000)
    process = world.start("from-etcd", "--skip-users")
    until(lambda: world.ours.get_prefix(b"", limit=1).count > 1500)
    process.kill()
    process.communicate()
    there = world.ours.get_prefix(b"", limit=1).count
    assert there < 20_000
    state = json.loads(next((world.root / "state").rglob("*.json")).read_text())
    assert state["last_key"]
    code, out, err = world.run("from-etcd", "--skip-users")
    assert code == 0, err
    assert "going on behind /app" in err
    told = json.loads(out)
    assert told["written"] <= 20_000 - there + 200
    assert world.ok("verify")["same"]
    # A source that was compacted meanwhile: from the beginning, by itself.
    world.etcd.put(b"/app0/00000", b"changed")
    revision = world.etcd.put(b"/late", b"1").header.revision
    world.etcd.do(operations.compact(revision))
    assert world.run("from-etcd", "--skip-users")[0] == 5  # the changed value is in the way
    assert world.ok("from-etcd", "--skip-users", "--overwrite")["written"] == 2


def test_a_target_that_was_made_anew_is_filled_anew(world: World) -> None:
    """Ids are derived from configuration: the same ones do not mean the same data."""
    world.fill(world.etcd, 300)
    world.ok("from-etcd")
    state = next((world.root / "state").rglob("*.json"))
    saved = json.loads(state.read_text())
    assert saved["target_revision"] == world.ours.get_prefix(b"", limit=1).header.revision
    state.write_text(json.dumps(saved | {"target_revision": 10**6}))
    world.ours.do(operations.delete(b"/app0/", b"/app2"))
    process = world.start("from-etcd", "--follow")
    assert process.stderr is not None
    err = ""
    while "following from" not in err:
        err += process.stderr.readline()
    assert world.keys(world.ours) == world.keys(world.etcd)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert "the target is not where it was left" in err
    assert process.returncode == 0


def test_following_a_live_source(world: World) -> None:
    """Events of all kinds, leases that are kept alive there, a stop and a second start."""
    world.fill(world.etcd, 200)
    lease = world.etcd.do(operations.lease_grant(3)).ID
    world.etcd.put(b"/leased", b"x", lease=lease)
    process = world.start("from-etcd", "--follow")
    until(lambda: b"/leased" in world.keys(world.ours))
    for turn in range(50):
        world.etcd.put(b"/live/%d" % (turn % 7), b"%d" % turn)
        world.etcd.renew(lease)
        time.sleep(0.1)
    world.etcd.do(operations.delete(b"/app1/", b"/app10"))
    more = world.etcd.do(operations.lease_grant(2)).ID
    world.etcd.put(b"/short", b"x", lease=more)
    until(lambda: b"/short" in world.keys(world.ours))
    # Both outlived their time to live; the second is gone when nobody renews it.
    assert b"/leased" in world.keys(world.ours)
    until(lambda: b"/short" not in world.keys(world.ours))
    # A lease that ends in the target only comes back, with its keys.
    world.etcd.renew(lease)
    world.ours.do(operations.lease_revoke(lease))
    until(lambda: b"/leased" in world.keys(world.ours) or not world.etcd.renew(lease))
    until(lambda: world.keys(world.ours) == world.keys(world.etcd))
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert json.loads(out.splitlines()[-1])["events"] > 100

    # While nobody follows, values change, and a lease runs out in the target only.
    world.etcd.put(b"/while/stopped", b"1")
    world.etcd.delete(b"/live/1")
    for turn in range(3):
        world.etcd.put(b"/leased", b"%d" % turn, lease=lease)
    world.ours.do(operations.lease_revoke(lease))
    world.etcd.renew(lease)
    process = world.start("from-etcd", "--follow")
    until(lambda: b"/while/stopped" in world.keys(world.ours))
    until(lambda: b"/live/1" not in world.keys(world.ours))
    until(lambda: world.etcd.renew(lease) > 0 and b"/leased" in world.keys(world.ours))
    assert world.keys(world.ours)[b"/leased"] == (b"2", lease)
    # The target may be away for longer than any call waits.
    os.kill(world.ours_pid, signal.SIGSTOP)
    world.etcd.put(b"/while/away", b"1")
    time.sleep(6)
    os.kill(world.ours_pid, signal.SIGCONT)
    until(lambda: b"/while/away" in world.keys(world.ours))
    # A value of somebody else's is not overwritten.
    world.ours.put(b"/live/2", b"mine")
    world.etcd.put(b"/live/2", b"theirs")
    _, err = process.communicate(timeout=20)
    assert process.returncode == 5
    assert "/live/2" in err
    assert world.ours.get(b"/live/2").value == b"mine"  # type: ignore[union-attr]


def test_following_ours_back_to_etcd(world: World) -> None:
    world.fill(world.ours, 50)
    process = world.start("to-etcd", "--follow", "--prefix", "/app0", "--prefix", "/live/")
    until(lambda: b"/app0/00000" in world.keys(world.etcd))
    world.ours.put(b"/live/1", b"1")
    world.ours.put(b"/elsewhere", b"1")
    world.ours.delete(b"/app0/00000")
    until(lambda: b"/live/1" in world.keys(world.etcd))
    until(lambda: b"/app0/00000" not in world.keys(world.etcd))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert {key[:5] for key in world.keys(world.etcd)} == {b"/app0", b"/live"}
    assert world.ok("verify", "--prefix", "/app0", "--prefix", "/live/")["same"]


def test_usage(world: World) -> None:
    code, _, err = world.run("from-etcd", "--etcd-endpoints", world.urls["ours"])
    assert code == 2
    assert "same cluster" in err
    world.fill(world.etcd, 1)
    state = world.root / "s.json"
    world.ok("from-etcd", "--state", str(state))
    code, _, err = world.run("from-etcd", "--state", str(state), "--prefix", "/other")
    assert code == 78
    assert str(state) in err
    state.write_text("{}")
    assert world.run("from-etcd", "--state", str(state))[0] == 78
    assert world.run("from-etcd", "--prune")[0] == 2
