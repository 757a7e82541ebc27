"""Configured programs: no shell, no orphan, no environment, bounded."""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from configagent import cli
from configagent.commands import ENVIRONMENT, Ran, run
from configagent.errors import HealthError, NotifyError
from configagent.services import Services, splay_s
from configagent.settings import Command, Health, Service

from configsvc import limits


def play(work: Coroutine[Any, Any, Any]) -> Any:
    async def whole() -> Any:
        found = await work
        await asyncio.sleep(0.02)
        return found

    return asyncio.run(whole())


def shell(text: str, timeout_s: float = 5.0) -> Ran:
    found: Ran = play(run(Command(("/bin/sh", "-c", text), timeout_s)))
    return found


def test_exit_status_and_output() -> None:
    ran = shell("echo out; echo err >&2; exit 3")
    assert (ran.code, ran.ok, ran.explain()) == (3, False, "exit 3")
    assert ran.output == "out\nerr\n"
    assert shell("exit 0").ok


def test_arguments_are_never_read_by_a_shell() -> None:
    ran = play(run(Command(("/bin/echo", "$(id)", "{dir}"), 5.0), {"dir": "/a b;c"}))
    assert ran.output == "$(id) /a b;c\n"


def test_the_environment_is_fixed() -> None:
    os.environ["CANARY_TOKEN"] = "x"
    try:
        lines = play(run(Command(("/usr/bin/env",), 5.0))).output.splitlines()
    finally:
        del os.environ["CANARY_TOKEN"]
    assert dict(line.split("=", 1) for line in lines) == ENVIRONMENT


def test_a_timeout_ends_the_whole_group(tmp_path: Path) -> None:
    began = time.monotonic()
    ran = shell(f"trap '' TERM; sleep 60 & echo $! > {tmp_path}/pid; sleep 60", 0.3)
    assert ran.timed_out
    assert not ran.ok
    assert time.monotonic() - began < 0.3 + limits.AGENT_COMMAND_KILL_S + 2.0
    assert_gone(int((tmp_path / "pid").read_text()))


def test_a_background_process_is_not_left_behind(tmp_path: Path) -> None:
    ran = shell(f"sleep 60 & echo $! > {tmp_path}/pid; exit 0")
    assert ran.ok
    assert_gone(int((tmp_path / "pid").read_text()))


def assert_gone(pid: int) -> None:
    deadline = time.monotonic() + 2.0
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        time.sleep(0.01)
    raise AssertionError(f"process {pid} still lives")


def test_output_is_bounded() -> None:
    ran = shell("head -c 5000000 /dev/zero | tr '\\0' x")
    assert ran.ok
    assert len(ran.output) == limits.AGENT_COMMAND_OUTPUT_BYTES_MAX


def test_a_missing_program_is_an_answer() -> None:
    ran = play(run(Command(("/nonexistent/program",), 5.0)))
    assert ran.explain() == "could not be started"


def service(**changes: Any) -> Service:
    facts: dict[str, Any] = {
        "name": "svc", "reload": Command(("/bin/true",), 5.0), "restart": None, "health": None,
        "min_interval_s": 0.0, "splay_s": 0.0,
    }  # fmt: skip
    return Service(**(facts | changes))


def notify(one: Service, *, restart: bool = False) -> dict[str, object]:
    found: dict[str, object] = play(
        Services().notify(one, restart=restart, redact=lambda text: text)
    )
    return found


def test_the_second_try_restarts_where_configured() -> None:
    one = service(reload=Command(("/bin/false",), 5.0), restart=Command(("/bin/true",), 5.0))
    with pytest.raises(NotifyError, match="reload of svc: exit 1"):
        notify(one)
    assert notify(one, restart=True)["rc"] == 0


def test_health_by_tcp() -> None:
    async def story() -> None:
        server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        health = Health(None, ("127.0.0.1", port), 0.05, 0.5, 2)
        services = Services()
        one = service(health=health)
        await services.notify(one, restart=False, redact=str)
        server.close()
        await server.wait_closed()
        with pytest.raises(HealthError, match="does not accept"):
            await services.notify(one, restart=False, redact=str)

    play(story())


def test_splay_is_stable_and_spread() -> None:
    places = [splay_s(f"node-{n}", "web", 3, 10.0) for n in range(1000)]
    assert places == [splay_s(f"node-{n}", "web", 3, 10.0) for n in range(1000)]
    assert all(0.0 <= one < 10.0 for one in places)
    tenths = [sum(1 for one in places if int(one) == n) for n in range(10)]
    assert min(tenths) > 60


def test_min_interval_defers() -> None:
    services = Services()
    one = service(min_interval_s=100.0)
    assert services.earliest([one], "n", "s", 1, 50.0) == 50.0
    play(services.notify(one, restart=False, redact=str))
    later = services.earliest([one], "n", "s", 2, time.monotonic())
    assert later is not None
    assert later > time.monotonic() + 90.0
    assert services.earliest([], "n", "s", 1, 5.0) is None


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30.0), ("0.5", 0.5), ("30s", 30.0), ("2m", 120)]
)
def test_a_timeout_on_the_command_line(text: str, seconds: float) -> None:
    assert cli._duration(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "5 s", "soon", "nan", "1.2.3"])
def test_no_timeout_on_the_command_line(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="such as 30s"):
        cli._duration(text)
