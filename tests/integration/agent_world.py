"""A whole agent against the in-process cluster of the client tests, without TLS."""

from __future__ import annotations

import asyncio
import io
import json
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from configagent.agent import Agent
from configagent.config import parse
from configagent.log import Log

from configsvc.client import Client, ClientSettings, parse_endpoints
from tests.support.agent_config import configuration
from tests.support.fake_cluster import FakeCluster

WAIT_S = 10.0

CONFIG = """\
backoff = {{ min = "20ms", max = "100ms" }}
heartbeat = "300ms"
[security]
allow_roots = ["{base}/root"]
allow_env = ["AGENT_TEST_COLOR"]
[defaults]
settle = {{ min = "0ms", max = "1s" }}
drift = {{ interval = "1s" }}
[[service]]
name = "svc"
reload = ["{base}/reload.sh"]
{service}
[[set]]
name = "web"
prefix = "/prod/web"
notify = ["svc"]
{set}
  [[set.file]]
  dest = "{base}/root/a.conf"
  text = '''n={{{{ getv("/n") }}}} # {{{{ banner() }}}}
'''
  {file}
  [[set.file]]
  dest = "{base}/root/b.conf"
  key = "/prod/web/raw"
{more}
"""


class World:
    """Files, a fake cluster, and at most one running agent."""

    def __init__(self, base: Path, cluster: FakeCluster) -> None:
        self.base = base
        self.cluster = cluster
        self.root = base / "root"
        self.root.mkdir(exist_ok=True)
        self.log = io.StringIO()
        self.parts = {"service": "", "set": "", "file": "", "more": ""}
        self.agent: Agent | None = None
        self.script("reload.sh", "echo told >> {base}/told")

    def script(self, name: str, body: str) -> str:
        path = self.base / name
        path.write_text("#!/bin/sh\n" + body.replace("{base}", str(self.base)) + "\n")
        path.chmod(0o700)
        return str(path)

    def config(self) -> str:
        return configuration(CONFIG, self.base, self.cluster.urls, **self.parts)

    def new_agent(self) -> Agent:
        path = self.base / "agent.toml"
        path.write_text(self.config())
        path.chmod(0o600)
        settings = parse(self.config(), str(path))
        self.agent = Agent(settings, Log("debug", self.log))
        return self.agent

    def put(self, key: str, value: str | bytes) -> None:
        data = value.encode() if isinstance(value, str) else value
        settings = ClientSettings(endpoints=parse_endpoints(self.cluster.urls))
        with Client(settings) as client:
            client.put(f"/prod/web{key}".encode(), data, reason="test")

    def delete(self, key: str) -> None:
        settings = ClientSettings(endpoints=parse_endpoints(self.cluster.urls))
        with Client(settings) as client:
            client.delete(f"/prod/web{key}".encode())

    def seed(self) -> None:
        self.put("/n", "1")
        self.put("/raw", b"raw\nbytes\n")

    def text(self, name: str = "a.conf") -> str:
        try:
            return (self.root / name).read_text()
        except FileNotFoundError:
            return ""

    def told(self) -> int:
        try:
            return len((self.base / "told").read_text().splitlines())
        except FileNotFoundError:
            return 0

    def status(self, name: str = "web") -> dict[str, Any]:
        assert self.agent is not None
        return next(one for one in self.agent.status()["sets"] if one["set"] == name)

    def reports(self) -> list[Any]:
        """What the fleet view was told, oldest first."""
        return [call[2] for call in self.cluster.calls("/configsvc.v1.Fleet/Report")]

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]

    async def in_thread(self, work: Callable[..., None], *args: object) -> None:
        await asyncio.to_thread(work, *args)

    async def until(self, holds: Callable[[], bool], what: str = "") -> None:
        """Wait for a condition; the events so far explain a failure."""
        deadline = time.monotonic() + WAIT_S
        while not holds():
            if time.monotonic() > deadline:
                state = self.status() if self.agent and self.agent.runners else {}
                raise AssertionError(f"{what or 'never'}: {state}\n{self.log.getvalue()[-3000:]}")
            await asyncio.sleep(0.01)

    async def outcome(self, wanted: str, name: str = "web") -> None:
        await self.until(lambda: self.status(name)["outcome"] == wanted, wanted)


def run(world: World, story: Callable[[World], Awaitable[None]], *, seed: bool = True) -> None:
    """Start an agent, tell a story, stop it."""

    async def play() -> None:
        if seed:
            await world.in_thread(world.seed)
        agent = world.new_agent()
        await agent.start()
        agent.follow()
        try:
            await story(world)
        finally:
            began = time.monotonic()
            await agent.stop()
            assert time.monotonic() - began < 5.0
            await asyncio.sleep(0.05)  # transports say goodbye

    asyncio.run(play())


def alone(work: Coroutine[Any, Any, Any]) -> Any:
    """Run one coroutine."""
    return asyncio.run(work)


def no_children_of(pid: int) -> bool:
    """Whether a process group is empty."""
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return True
    return False
