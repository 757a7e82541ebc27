"""The agent as a process: killed at any moment, stopped, started beside another one."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from configsvc.client import Client, ClientSettings, Txn, operations, parse_endpoints
from tests.support.agent_config import configuration
from tests.support.fake_cluster import FakeCluster

pytestmark = pytest.mark.integration
KILLS = int(os.environ.get("AGENT_KILLS", "12"))
LINES = 200
CONFIG = """\
backoff = {{ min = "20ms", max = "100ms" }}
[security]
allow_roots = ["{base}/root"]
[defaults]
settle = {{ min = "0ms", max = "1s" }}
[[set]]
name = "s"
prefix = "/s"
  [[set.file]]
  dest = "{base}/root/a.conf"
  text = '''{{% for n in tree("/lines") %}}a {{{{ getv("/n") }}}}
{{% endfor %}}'''
  [[set.file]]
  dest = "{base}/root/b.conf"
  text = '''{{% for n in tree("/lines") %}}b {{{{ getv("/n") }}}}
{{% endfor %}}'''
"""


class Node:
    """A directory with a configuration, and a process at most."""

    def __init__(self, base: Path, cluster: FakeCluster) -> None:
        self.base = base
        (base / "root").mkdir()
        self.config = base / "agent.toml"
        self.config.write_text(configuration(CONFIG, base, cluster.urls[:1]))
        self.config.chmod(0o600)
        self.client = Client(ClientSettings(endpoints=parse_endpoints(cluster.urls)))
        for n in range(LINES):
            self.client.put(f"/s/lines/{n:04}".encode(), b"x")
        self.client.put(b"/s/n", b"0")
        self.process: subprocess.Popen[bytes] | None = None

    def command(self, *arguments: str) -> list[str]:
        start = "import sys; sys.path[:0] = %r; from configagent.cli import main; sys.exit(main())"
        return [sys.executable, "-c", start % (sys.path,), *arguments, "--config", str(self.config)]

    def start(self) -> None:
        with (self.base / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command("run"), stderr=log)

    def end(self, number: signal.Signals) -> int:
        process, self.process = self.process, None
        if process is None:
            return 0
        process.send_signal(number)
        return process.wait(10)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=30, check=False
        )

    def read(self, name: str) -> str:
        try:
            return (self.base / "root" / name).read_text()
        except FileNotFoundError:
            return ""

    def whole(self, name: str) -> str:
        """The number in a file, after checking that the file is all of one rendering."""
        lines = self.read(name).splitlines()
        if not lines:
            return ""
        assert len(lines) == LINES
        assert len(set(lines)) == 1
        return lines[0].split()[1]

    def until(self, holds: Callable[[], bool], seconds: float = 15.0) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, (self.base / "log").read_text()[-2000:]
            time.sleep(0.01)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with FakeCluster(1) as cluster:
        made = Node(tmp_path, cluster)
        try:
            yield made
        finally:
            made.end(signal.SIGKILL)
            made.client.close()


@pytest.mark.timeout(60 + 2 * KILLS)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_ended_at_random_during_updates(node: Node, how: signal.Signals) -> None:
    """No partial file ever; whole and complete after the last start; nothing left behind."""
    stop = threading.Event()
    last = [0]

    def write() -> None:
        while not stop.is_set():
            last[0] += 1
            value = str(last[0]).encode()
            node.client.do(Txn().then(operations.put(b"/s/n", value)).operation())
            time.sleep(0.005)

    writer = threading.Thread(target=write)
    writer.start()
    chance = random.Random(11)
    seen = set()
    try:
        for _ in range(KILLS if how is signal.SIGKILL else KILLS // 2):
            before = node.whole("a.conf")
            node.start()
            node.until(lambda before=before: node.whole("a.conf") != before)  # type: ignore[misc]
            time.sleep(chance.random() * 0.08)
            began = time.monotonic()
            assert node.end(how) == (0 if how is signal.SIGTERM else -signal.SIGKILL)
            assert time.monotonic() - began < 5.0
            seen.add(node.whole("a.conf"))
            node.whole("b.conf")
    finally:
        stop.set()
        writer.join()
    node.start()
    node.until(lambda: node.whole("a.conf") == node.whole("b.conf") == str(last[0]))
    assert node.end(signal.SIGTERM) == 0
    assert sorted(os.listdir(node.base / "root")) == ["a.conf", "b.conf"]
    assert len(seen) > KILLS // 4
    assert not list((node.base / "state").rglob("tree"))


def test_helpers_end_with_their_agent(node: Node) -> None:
    node.start()
    node.until(lambda: node.whole("a.conf") == "0")
    assert node.process is not None
    parent = node.process.pid
    children = [
        int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    ]
    assert len(children) == 2
    node.end(signal.SIGKILL)
    node.until(lambda: not any(_lives(pid) for pid in children), 5.0)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_stops_in_time_and_commands_speak_in_exit_codes(node: Node) -> None:
    assert node.run("plan").returncode == 3
    assert not (node.base / "state").exists()
    assert node.run("apply", "--once").returncode == 2
    explained = node.run("explain", str(node.base / "root" / "a.conf")).stdout
    assert "author not known" not in explained
    assert " leaf " in explained
    assert node.run("apply", "--once").returncode == 0
    node.client.put(b"/s/n", b"5")
    would = node.run("plan")
    assert (would.returncode, "+a 5" in would.stdout) == (3, True)
    node.client.delete(b"/s/n")
    missing = node.run("apply", "--once", "--timeout", "10")
    assert missing.returncode == 10
    assert "key /n: does not exist" in missing.stdout
    node.client.put(b"/s/n", b"6")
    node.start()
    node.until(lambda: node.whole("b.conf") == "6")
    status = json.loads(node.run("status", "--json").stdout)
    assert (status["link"], status["sets"][0]["outcome"]) == ("connected", "converged")
    assert node.run("verify").returncode == 0
    again = node.run("run")
    assert (again.returncode, "another agent" in again.stderr) == (20, True)
    began = time.monotonic()
    assert node.end(signal.SIGTERM) == 0
    assert time.monotonic() - began < 5.0
    (node.base / "root" / "a.conf").write_text("edited")
    assert node.run("verify").returncode == 17
    back = node.run("rollback", "s")
    assert back.returncode == 2
    assert node.whole("a.conf") == node.whole("b.conf")
    assert node.whole("a.conf") != "6"
    node.config.chmod(0o666)
    assert node.run("status").returncode == 15
    node.config.chmod(0o600)
    node.config.write_text(node.config.read_text() + "\nnonsense = 1\n")
    bad = node.run("check")
    assert (bad.returncode, "nonsense" in bad.stderr) == (20, True)


def test_one_pass_never_hangs_without_a_store(node: Node) -> None:
    text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:1", node.config.read_text())
    node.config.write_text(text)
    began = time.monotonic()
    away = node.run("apply", "--once", "--timeout", "1s")
    assert away.returncode == 14
    assert "the store does not answer: " in away.stdout
    assert time.monotonic() - began < 10.0
