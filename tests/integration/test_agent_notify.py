"""What a service manager hears: ready, reloading, alive, and silence when the writer hangs."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_world import World, run

from tests.support.fake_cluster import FakeCluster

BEAT_S = 0.05
SILENCE_S = 10 * BEAT_S


class Manager:
    """The service manager's end of the socket."""

    def __init__(self, path: Path) -> None:
        self.heard: list[str] = []
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._door.bind(str(path))
        self._door.setblocking(False)

    def close(self) -> None:
        self._door.close()

    def listen(self) -> list[str]:
        """Everything said so far."""
        while True:
            try:
                self.heard += self._door.recv(4096).decode().splitlines()
            except BlockingIOError:
                return self.heard

    def said(self, line: str) -> int:
        return self.listen().count(line)


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    made = Manager(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", str(int(BEAT_S * 4e6)))
    yield made
    made.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with FakeCluster(1) as cluster:
        yield World(tmp_path, cluster)


def test_ready_comes_after_the_first_decision_and_then_the_heartbeat(
    world: World, manager: Manager
) -> None:
    async def story(w: World) -> None:
        await w.until(lambda: manager.said("READY=1") > 0)
        assert w.text().startswith("n=1")
        await w.until(lambda: manager.said("WATCHDOG=1") > 2)
        assert manager.heard[0] == "READY=1"
        assert "STATUS=connected, 1 sets, 0 not converged" in manager.heard

    run(world, story)


def test_not_ready_while_a_set_is_undecided(world: World, manager: Manager) -> None:
    """No store, nothing stored here, and the configuration wants the store: nothing is said."""
    text = world.config().replace("[security]", "[cache]\noffline_start = false\n[security]")
    world.config = lambda: text  # type: ignore[method-assign]
    world.cluster.members[0].stop()

    async def story(w: World) -> None:
        await w.until(lambda: w.agent is not None and w.agent.link.state == "offline")
        await asyncio.sleep(SILENCE_S)
        assert manager.listen() == []

    run(world, story, seed=False)


def test_ready_without_the_store_when_what_is_here_stays(world: World, manager: Manager) -> None:
    async def first(w: World) -> None:
        await w.outcome("converged")

    run(world, first)
    world.cluster.members[0].stop()
    manager.heard.clear()

    async def second(w: World) -> None:
        await w.until(lambda: manager.said("READY=1") > 0)
        assert w.text().startswith("n=1")

    run(world, second, seed=False)


@pytest.mark.parametrize("extra", ["", "\nnonsense = 1\n"])
def test_a_reload_is_announced_and_ended_good_or_bad(
    world: World, manager: Manager, extra: str
) -> None:
    async def story(w: World) -> None:
        await w.until(lambda: manager.said("READY=1") == 1)
        path = w.base / "agent.toml"
        path.write_text(path.read_text() + extra)
        before = time.monotonic_ns() // 1000
        assert w.agent is not None
        await w.agent.reload()
        heard = [one for one in manager.listen() if not one.startswith(("WATCHDOG", "STATUS"))]
        assert [heard[0], heard[1], heard[3]] == ["READY=1", "RELOADING=1", "READY=1"]
        said = int(heard[2].removeprefix("MONOTONIC_USEC="))
        assert before <= said <= time.monotonic_ns() // 1000

    run(world, story)


def test_a_writer_that_hangs_is_not_called_alive(world: World, manager: Manager) -> None:
    async def story(w: World) -> None:
        await w.until(lambda: manager.said("WATCHDOG=1") > 0)
        assert w.agent is not None
        writer = w.agent._writer_child.pid
        os.kill(writer, signal.SIGSTOP)
        try:
            await asyncio.sleep(2 * BEAT_S)
            manager.listen()
            manager.heard.clear()
            await asyncio.sleep(SILENCE_S)
            assert manager.listen() == []
        finally:
            os.kill(writer, signal.SIGCONT)
        await w.until(lambda: manager.said("WATCHDOG=1") > 1)

    run(world, story)


def test_the_fleet_view_hears_how_long_the_parts_took(world: World) -> None:
    check = world.script("check.sh", "exec true")
    world.parts["set"] = f'check = {{ cmd = ["{check}"] }}'

    async def story(w: World) -> None:
        await w.outcome("converged")
        await w.until(lambda: w.reports()[-1].sets[0].outcome == "converged", "reported")
        report = w.reports()[-1].sets[0]
        took = report.durations
        parts = (took.render_us, took.check_us, took.commit_us, took.reload_us)
        assert all(part > 0 for part in parts)
        assert sum(parts) <= took.total_us < 10_000_000
        assert report.root == w.status()["root"]
        assert len(report.root) == 64
        generation = w.status()["generation"]
        w.script("check.sh", "exit 1")
        await w.in_thread(w.put, "/n", "2")
        await w.outcome("check_failed")
        await w.until(lambda: w.reports()[-1].sets[0].outcome == "check_failed", "reported")
        report = w.reports()[-1].sets[0]
        assert report.generation == generation
        assert report.durations.check_us > 0
        assert report.durations.reload_us == 0  # nobody was told of what failed

    run(world, story)


def test_a_slow_check_of_one_set_delays_no_other(world: World) -> None:
    slow = world.script("slow.sh", "exec sleep 60")
    world.parts["more"] = f'''
[[set]]
name = "slow"
prefix = "/prod/web"
check = {{ cmd = ["{slow}"], timeout = "60s" }}
  [[set.file]]
  dest = "{world.root}/c.conf"
  key = "/prod/web/n"
'''

    async def story(w: World) -> None:
        await w.until(lambda: w.status("slow")["step"] == "apply", "its check runs")
        await w.outcome("converged")
        for number in range(3):
            await w.in_thread(w.put, "/n", f"new{number}")
            text = f"n=new{number}"
            await w.until(lambda text=text: w.text().startswith(text), "in normal time")
        assert w.status("slow")["step"] == "apply"
        assert w.status("slow")["generation"] == 0

    run(world, story)
