"""Metrics as a scraper gets them: frozen names, whole numbers, a constant number of series."""

from __future__ import annotations

import io
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_world import World, run
from configagent.log import Log
from configagent.metrics import _number

from tests.support.fake_cluster import FakeCluster

NAMES = """\
applied_revision gauge
attempts gauge
commits_total counter
connected gauge
drifted_files gauge
generation gauge
held gauge
inputs_age_seconds gauge
lag_seconds gauge
link_seconds gauge
outcome gauge
reconnects_total counter
repairs_total counter
rollback_failed gauge
rollbacks_total counter
step_seconds gauge
target_revision gauge
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with FakeCluster(1) as cluster:
        made = World(tmp_path, cluster)
        text = made.config().replace("[store]", f'metrics = "unix:{tmp_path}/m"\n[store]', 1)
        made.config = lambda: text  # type: ignore[method-assign]
        yield made


async def scrape(w: World) -> dict[str, str]:
    """Value by series; the text itself under ""."""
    raw = ""

    def read() -> None:
        nonlocal raw
        with socket.socket(socket.AF_UNIX) as door:
            door.connect(f"{w.base}/m")
            door.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            with door.makefile("rb") as stream:
                raw = stream.read().decode()

    await w.in_thread(read)
    head, _, body = raw.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.0 200")
    assert f"Content-Length: {len(body)}" in head
    rows = [line.rpartition(" ") for line in body.splitlines() if not line.startswith("#")]
    return {"": body} | {name: value for name, _, value in rows}


def test_names_are_frozen_and_values_follow(world: World) -> None:
    async def story(w: World) -> None:
        await w.outcome("converged")
        found = await scrape(w)
        names = re.findall(r"^# TYPE configagent_(\S+ \S+)$", found[""], re.MULTILINE)
        assert "".join(f"{one}\n" for one in sorted(names)) == NAMES
        assert found["configagent_connected"] == "1"
        assert found['configagent_generation{set="web"}'] == "1"
        assert found['configagent_outcome{set="web",outcome="converged"}'] == "1"
        assert float(found['configagent_step_seconds{set="web",step="apply"}']) > 0
        assert found['configagent_step_seconds{set="web",step="rollback"}'] == "0"
        assert found["configagent_reconnects_total"] == "0"
        await w.until(lambda: (w.base / "state/sets/web/inputs.sealed").exists())
        member = w.cluster.members[0]
        await w.in_thread(member.stop)
        await w.until(lambda: w.agent is not None and w.agent.link.state == "offline")
        assert (await scrape(w))["configagent_connected"] == "0"
        await w.in_thread(member.start)
        await w.until(lambda: w.agent is not None and w.agent.link.state == "connected")
        found = await scrape(w)
        assert found["configagent_reconnects_total"] == "1"
        assert 0 <= float(found['configagent_inputs_age_seconds{set="web"}']) < 60

    run(world, story)


def test_what_the_store_says_makes_no_series(world: World) -> None:
    async def story(w: World) -> None:
        await w.outcome("converged")
        before = await scrape(w)
        for n in range(30):
            await w.in_thread(w.put, f'/"}} evil{n}', "x")
        await w.in_thread(w.put, "/n", 'x;\n"} evil 1')
        await w.outcome("render_failed")
        after = await scrape(w)
        assert len(after) == len(before)
        assert "evil" not in after[""]

    run(world, story)


def test_revisions_keep_all_their_digits() -> None:
    assert _number(1_234_567_890_123) == "1234567890123"
    assert _number(True) == "1"
    assert _number(0.0123456789) == "0.0123457"


def test_equal_events_are_thinned_out_and_lines_are_json() -> None:
    """A failing thing that is tried for ever must not fill the disk (M12)."""
    stream = io.StringIO()
    log = Log("info", stream)
    for n in range(1000):
        log.event("offline", set="web", why="refused")
        log.event("offline", set=f"s{n % 3}", why="refused")
        log.event("debugging", level="debug", why="x")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(lines) == 4
    assert {line["event"] for line in lines} == {"offline"}
    assert all(line.keys() == {"time", "level", "event", "set", "why"} for line in lines)
