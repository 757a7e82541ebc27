"""The road to the store: a stream that falls silent, an event that is lost, a member that sheds."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_world import World, run
from configagent.feed import Feed

from configsvc.proto import v1_pb2 as v1
from tests.support.fake_cluster import FakeCluster
from tests.support.fake_services import Services


class Road:
    """A TCP proxy. ``mute`` swallows everything both ways and closes nothing."""

    def __init__(self, port: int) -> None:
        self.mute = False
        self.connections = 0
        self._to = port
        self._open: list[socket.socket] = []
        self._door = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._door.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._door.accept()
            except OSError:
                return
            self.connections += 1
            far = socket.create_connection(("127.0.0.1", self._to))
            self._open += [near, far]
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                if not self.mute:
                    other.sendall(data)
            if not self.mute:
                other.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        for one in [self._door, *self._open]:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with FakeCluster(2) as cluster:
        yield World(tmp_path, cluster)


@pytest.fixture
def road(world: World) -> Iterator[Road]:
    """The agent's first endpoint lies behind a road, the second is reached directly."""
    made = Road(world.cluster.members[0].port)
    text = world.config().replace(world.cluster.urls[0], made.url, 1)
    world.config = lambda: text  # type: ignore[method-assign]
    yield made
    made.close()


def test_a_silent_stream_is_left_for_another_member(world: World, road: Road) -> None:
    """No packet, no reset: three heartbeats of silence are the only sign (D5)."""

    async def story(w: World) -> None:
        await w.outcome("converged")
        if not road.connections:
            pytest.skip("the agent began with the other member")
        road.mute = True
        began = time.monotonic()
        await w.in_thread(w.put, "/n", "2")
        await w.until(lambda: w.text().startswith("n=2"))
        assert time.monotonic() - began < 5.0
        await w.until(lambda: w.agent is not None and w.agent.link.state == "connected")

    world.seed()
    run(world, story, seed=False)


def test_one_connection_carries_everything(world: World, road: Road) -> None:
    """Lists, watches of all sets, reports and author look-ups (D7)."""
    more = """
[[set]]
name = "s{n}"
prefix = "/prod/web"
[[set.file]]
dest = "{w}/s{n}"
key = "/n"
"""
    text = world.config() + "".join(more.format(n=n, w=world.root) for n in range(10))
    text = text.replace(f', "{world.cluster.urls[1]}"', "")
    world.config = lambda: text  # type: ignore[method-assign]

    async def story(w: World) -> None:
        for n in range(10):
            await w.outcome("converged", f"s{n}")
        await w.until(lambda: len(w.reports()) > 1)
        assert road.connections == 1

    run(world, story)


def test_a_lost_event_is_found_by_comparing(world: World, monkeypatch: Any) -> None:
    """The watch goes on as if nothing had been; the next comparison finds it (D4)."""
    text = world.config().replace("[store]", "[store]\nreconcile = '1s'")
    world.config = lambda: text  # type: ignore[method-assign]
    dropped: list[int] = []
    take = Feed._take

    def lossy(self: Feed, events: Any) -> None:
        if events and not dropped:
            dropped.append(len(events))
        else:
            take(self, events)

    async def story(w: World) -> None:
        await w.outcome("converged")
        monkeypatch.setattr(Feed, "_take", lossy)
        await w.in_thread(w.put, "/n", "2")
        await w.until(lambda: w.text().startswith("n=2"))
        assert dropped == [1]
        assert [e for e in w.events() if e["event"] == "reconciled"]

    run(world, story)


def test_a_member_that_sheds_is_given_its_pause(world: World, monkeypatch: Any) -> None:
    """``retry_after`` of a report is waited for, and files go on meanwhile (F7)."""
    at: list[float] = []

    def report(self: Services, request: Any, metadata: Any) -> v1.ReportResponse:
        at.append(time.monotonic())
        return v1.ReportResponse(heartbeat_ms=50, retry_after_ms=1000)

    monkeypatch.setattr(Services, "Report", report)

    async def story(w: World) -> None:
        for n in range(5):
            await w.in_thread(w.put, "/n", str(n + 10))
            await w.until(lambda n=n: w.text().startswith(f"n={n + 10}"))  # type: ignore[misc]
        await w.until(lambda: len(at) > 1)
        assert all(later - earlier >= 1.0 for earlier, later in itertools.pairwise(at))

    run(world, story)
