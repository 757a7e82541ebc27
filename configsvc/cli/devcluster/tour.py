"""`make tour`: what the cluster can do, each step with its command and one line of result.

The steps run the same commands that a person would type. It needs the cluster of `make up`, kills
a member on the way and starts it again, and leaves everything running.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from configsvc.cli.devcluster import cluster, processes
from configsvc.cli.devcluster.agent import OUT_DIR, RELOAD_SWITCH, agent_running
from configsvc.cli.devcluster.calls import client
from configsvc.cli.devcluster.layout import Layout, MemberPlan
from configsvc.client import administration as admin
from configsvc.client.endpoints import parse_endpoints
from configsvc.errors import ConfigError, ConfigServiceError

WAIT_S: Final = 15.0
GREETING: Final = "/demo/greeting"


class Ran(NamedTuple):
    code: int
    out: str
    err: str


class Tour:
    """Runs commands as users of the cluster and prints what they said."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.number = 0
        self.failed = 0
        self.bin = Path(sys.executable).parent

    def environ(self, user: str) -> dict[str, str]:
        pair = self.layout.users / user
        keep = {k: v for k, v in os.environ.items() if not k.startswith(("CONFIGCTL_", "ETCD"))}
        return keep | {
            "PATH": f"{self.bin}:{os.environ.get('PATH', '')}",
            "CONFIGCTL_ENDPOINTS": self.layout.endpoints,
            "CONFIGCTL_CACERT": str(self.layout.pki / "ca-server.pem"),
            "CONFIGCTL_CERT": f"{pair}.pem",
            "CONFIGCTL_KEY": f"{pair}.key",
        }

    def run(self, *argv: str, user: str = "alice", stdin: str = "") -> Ran:
        """One configctl command."""
        done = subprocess.run(  # noqa: S603  # our own program
            [str(self.bin / argv[0]), *argv[1:]],
            env=self.environ(user),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Ran(done.returncode, done.stdout.strip(), done.stderr.strip())

    def step(self, title: str, command: str, result: str, *, good: bool) -> None:
        """Two lines: the command, and what came of it."""
        self.number += 1
        self.failed += not good
        mark = "ok  " if good else "FAIL"
        print(
            f"{self.number:>2} {mark} {title}\n      $ {command}\n      {result[:150]}", flush=True
        )

    def until(self, what: Callable[[], bool]) -> float:
        """Seconds until ``what`` holds; WAIT_S when it never does."""
        began = time.monotonic()
        while time.monotonic() - began < WAIT_S:
            if what():
                return time.monotonic() - began
            time.sleep(0.002)
        return WAIT_S


def tour(layout: Layout) -> int:
    """Run all steps; 1 if one did not show what it should."""
    if not all(processes.running(layout.pid_file(m.name)) for m in layout.members):
        raise ConfigError("the cluster does not run", "make up")
    if not agent_running(layout):
        raise ConfigError("the agent does not run", "make down && make up")
    began = time.monotonic()
    t = Tour(layout)
    for part in (
        _file_follows, _who_and_why, _blame, _rollback, _hand_edit, _failed_reload,
        _leader_killed, _no_certificate, _stolen_token, _edited_row,
    ):  # fmt: skip
        part(t)
    print(f"\n{t.number} steps, {t.failed} failed, {time.monotonic() - began:.0f} s")
    return 1 if t.failed else 0


def _rendered(t: Tour) -> Path:
    return t.layout.agent / OUT_DIR / "greeting.txt"


def _holds(path: Path, text: str) -> bool:
    try:
        return text in path.read_text()
    except OSError:
        return False


def _file_follows(t: Tour) -> None:
    word = f"hello-{int(time.time())}"
    with client(t.layout, "alice") as c:
        c.put(GREETING.encode(), word.encode(), reason="CHG-1 the tour")
    answered = time.monotonic()
    t.until(lambda: _holds(_rendered(t), word))
    lag = (time.monotonic() - answered) * 1000
    t.step(
        "a file on this machine follows the change",
        f"configctl put {GREETING} {word} --reason 'CHG-1 the tour'",
        f"{_rendered(t).relative_to(t.layout.root)} has it {lag:.0f} ms after the answer",
        good=_holds(_rendered(t), word),
    )


def _who_and_why(t: Tour) -> None:
    ran = t.run("configctl", "log", GREETING, "--limit", "1", "--json")
    record = json.loads(ran.out)[0] if ran.code == 0 else {}
    if record:
        line = (
            f"{record.get('actor')} by {record.get('method')} from {record.get('source')} "
            f"at {record.get('time')}: {record.get('reason')}"
        )
    else:
        line = ran.err
    good = record.get("actor") == "user/alice" and record.get("reason") == "CHG-1 the tour"
    t.step("who changed it, and why", f"configctl log {GREETING} --limit 1", line, good=good)


def _blame(t: Tour) -> None:
    ran = t.run("configctl", "blame", "/demo/")
    lines = [x for x in ran.out.splitlines() if GREETING in x]
    t.step(
        "the last author of every key",
        "configctl blame /demo/",
        lines[0] if lines else ran.err,
        good=bool(lines),
    )


def _rollback(t: Tour) -> None:
    before = json.loads(t.run("configctl", "get", GREETING, "--json").out)
    revision = str(before["mod_revision"])
    t.run("configctl", "put", GREETING, "a mistake", "--reason", "a slip")
    ran = t.run(
        "configctl", "rollback", "/demo/", "--to", revision, "--reason", "undo the slip", "--yes"
    )
    after = json.loads(t.run("configctl", "get", GREETING, "--json").out)
    t.step(
        "a mistake is rolled back, as one attributed change",
        f"configctl rollback /demo/ --to {revision} --reason 'undo the slip' --yes",
        (ran.out or ran.err).splitlines()[-1] if (ran.out or ran.err) else f"exit {ran.code}",
        good=ran.code == 0 and after["value"] == before["value"],
    )


def _hand_edit(t: Tour) -> None:
    path = _rendered(t)
    t.until(lambda: _holds(path, "hello"))
    good_text = path.read_text()
    path.chmod(0o640)
    path.write_text("edited by hand\n")
    spent = t.until(lambda: _holds(path, good_text.strip()))
    t.step(
        "a hand edit is put back",
        f"echo 'edited by hand' > {path.relative_to(t.layout.root)}",
        f"the managed content is back after {spent:.2f} s",
        good=spent < WAIT_S,
    )


def _failed_reload(t: Tour) -> None:
    path = _rendered(t)
    before = path.read_text()
    switch = t.layout.agent / RELOAD_SWITCH
    switch.write_text("fail\n")
    t.run("configctl", "put", GREETING, "breaks-the-service", "--reason", "bad value")

    def rolled_back() -> bool:
        ran = t.run("configctl", "fleet", "status", "--json", user="root")
        return "rolled_back" in ran.out or "rollback_failed" in ran.out

    t.until(rolled_back)
    same = path.read_text() == before
    switch.unlink()
    ran = t.run("configctl", "fleet", "status", user="root")
    line = [x for x in ran.out.splitlines() if "dev-node" in x]
    t.step(
        "a reload that fails brings the old file back",
        "configctl fleet status",
        line[0] if line else ran.err,
        good=same and bool(line),
    )
    t.run("configctl", "put", GREETING, "hello again", "--reason", "a good value")
    t.until(lambda: _holds(path, "hello again"))


def _leader(t: Tour) -> MemberPlan:
    for member in t.layout.members:
        endpoint = parse_endpoints(member.client_url)[0]
        with client(t.layout, "root", member.client_url, 2.0) as c:
            status = c.do(admin.status(), endpoint=endpoint)
        if status.leader == status.header.member_id:
            return member
    raise ConfigError("no leader", "wait a moment, then make tour again")


def _leader_killed(t: Tour) -> None:
    leader = _leader(t)
    others = ",".join(m.client_url for m in t.layout.members if m is not leader)
    pid = processes.running(t.layout.pid_file(leader.name))
    with client(t.layout, "alice", others, 10.0) as c:
        c.put(b"/demo/failover", b"before")
        os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        spent = WAIT_S
        while time.monotonic() - began < WAIT_S:
            try:
                c.put(b"/demo/failover", b"after", reason="the leader is gone")
            except ConfigServiceError:
                continue
            spent = time.monotonic() - began
            break
    cluster.start_members(t.layout)
    cluster.wait_healthy(t.layout)
    t.step(
        "the leader is killed, writes go on",
        f"kill -9 {pid}   # {leader.name}, the leader",
        f"next write accepted after {spent:.2f} s; {leader.name} is back",
        good=spent < 3.0,
    )


def _no_certificate(t: Tour) -> None:
    url = t.layout.members[0].client_url
    curl = shutil.which("curl") or "curl"
    argv = [curl, "-sS", "--cacert", str(t.layout.pki / "ca-server.pem"), f"{url}/version"]
    try:
        ran = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
        code, line = ran.returncode, (ran.stderr or ran.stdout).strip()
    except OSError:
        code, line = 1, "curl is not installed; any TLS client is refused alike"
    t.step(
        "a call without a certificate is refused",
        f"curl --cacert … {url}/version",
        line.splitlines()[0] if line else f"exit {code}",
        good=code != 0,
    )


def _stolen_token(t: Tour) -> None:
    password = "correct-horse-battery-staple"  # noqa: S105  # of a throwaway user
    with client(t.layout, "root") as c:
        try:
            c.do(admin.user_add("dave", password))
        except ConfigServiceError:
            c.do(admin.user_change_password("dave", password))
    with client(t.layout, "alice") as c:
        token = c.do(admin.authenticate("dave", password)).token
    argv = ("configctl", "get", GREETING, "--token-file", "-")
    own = t.run(*argv, user="alice", stdin=token)
    stolen = t.run(*argv, user="bob", stdin=token)
    line = stolen.err.splitlines()[0] if stolen.err else f"exit {stolen.code}"
    t.step(
        "a stolen token is worth nothing with another certificate",
        f"configctl get {GREETING} --token-file -   # alice's token, bob's certificate",
        line,
        good="invalid auth token" in stolen.err and "invalid auth token" not in own.err,
    )


def _edited_row(t: Tour) -> None:
    member = t.layout.members[-1]
    processes.stop(t.layout.pid_file(member.name))
    source = sorted((t.layout.data(member) / "sql").glob("gen-*.db"))[-1]
    copy = t.layout.dev / "tour-copy.db"
    copy.unlink(missing_ok=True)
    with (
        contextlib.closing(sqlite3.connect(source)) as origin,
        contextlib.closing(sqlite3.connect(copy)) as db,
    ):
        origin.backup(db)
    copy.chmod(0o600)
    with contextlib.closing(sqlite3.connect(copy)) as db, db:
        db.execute("UPDATE commits SET time_ns = time_ns - 3600000000000 WHERE revision = 2")
    key = t.layout.keys / f"{member.name}.key"
    ran = t.run(
        "configctl", "audit", "verify", "--db", str(copy), "--seal-key", str(key),
        user="carol",
    )  # fmt: skip
    copy.unlink()
    cluster.start_members(t.layout)
    cluster.wait_healthy(t.layout)
    line = (ran.out or ran.err).splitlines()
    t.step(
        "a row edited in SQL is found",
        "sqlite3 copy.db 'UPDATE commits SET time_ns = …'; configctl audit verify --db copy.db",
        line[0] if line else f"exit {ran.code}",
        good=ran.code == 1,
    )
